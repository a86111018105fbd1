pub(super) fn run(_: &crate::cli::DemoArgs) -> crate::exit::Result<()> {
    Ok(())
}
