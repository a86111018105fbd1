//! What the tests need of the machine. Missing means failed, not skipped.

use std::{env, fs, path::Path};

/// Fails unless FUSE can be used here.
pub fn fuse() {
    assert!(
        fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok(),
        "/dev/fuse is missing or may not be opened: these tests mount for real and cannot run \
         without it (modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
    );
    program("fusermount3", "fuse3");
}

/// Fails unless `name` is on the path; `package` is what to install.
pub fn program(name: &str, package: &str) {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|dir| dir.join(name).is_file());
    assert!(found, "`{name}` is missing: install the Debian package {package} (`make deps`)");
}

/// Fails unless the tests run as root, which `what` needs.
pub fn root(what: &str) {
    assert!(rustix::process::geteuid().is_root(), "{what} needs root: run the tests as root");
}

/// Whether tests of files run in an ordinary directory instead of a mount.
#[must_use]
pub fn plain_dir() -> Option<&'static Path> {
    static DIR: std::sync::OnceLock<Option<std::path::PathBuf>> = std::sync::OnceLock::new();
    DIR.get_or_init(|| env::var_os("CAIRNFS_TEST_DIR").map(Into::into)).as_deref()
}
