//! Where the binary under test is.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use crate::run::run;

/// The `cairnfs` binary: `$CAIRNFS_BIN`, or the one beside the running test, brought up to date
/// by cargo once per test process.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match env::var_os("CAIRNFS_BIN") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "CAIRNFS_BIN names no file: {}", path.display());
            path.canonicalize().unwrap()
        }
        None => build(),
    })
}

fn build() -> PathBuf {
    // target/<profile>/deps/e2e-<hash>, target/<profile>/scenarios
    let exe = env::current_exe().unwrap();
    let dir = exe.parent().expect("a program is in a directory");
    let profile_dir = if dir.ends_with("deps") { dir.parent() } else { Some(dir) };
    let profile_dir = profile_dir.expect("a test runs from target/<profile>/deps");
    let target_dir = profile_dir.parent().expect("target/<profile> has a parent");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => panic!("{} is no target directory", profile_dir.display()),
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "-p", "cairnfs", "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    run(&mut command, Duration::from_secs(1_800)).succeeds();
    let path = profile_dir.join("cairnfs");
    assert!(path.is_file(), "cargo built no {}", path.display());
    path
}
