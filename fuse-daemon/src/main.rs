//! The `cairnfs` command: see the library.

fn main() -> std::process::ExitCode {
    cairnfs::main()
}
