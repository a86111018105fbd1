pub(super) fn run(_: &super::Context) -> crate::exit::Result<()> {
    Ok(())
}
