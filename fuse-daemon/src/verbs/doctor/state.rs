//! Is what this program keeps in order?

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::Finding;
use crate::{
    exit::Code,
    home::{BucketName, Home},
    lock::{Holder, LockFile},
    place,
    settings::Settings,
    ui,
};

/// Settings that make no sense, keys that others can read, mounts without a daemon, and whether a
/// daemon runs.
pub(super) fn examine(home: &Home) -> Vec<Finding> {
    let mut findings = vec![settings(home)];
    let buckets = home.bucket_names();
    if let Err(failure) = &buckets {
        findings.push(Finding::bad(failure.code, "buckets: cannot be listed", &failure.message));
    }
    let private = private_files(home, &buckets.unwrap_or_default());
    let open = private.iter().filter(|path| is_open_to_others(path)).map(|path| {
        Finding::bad(
            Code::Failed,
            format_args!("keys: others can read {}", path.display()),
            format_args!("chmod go= '{}'", path.display()),
        )
    });
    findings.extend(open);
    for dead in place::dead_mounts(|dead| dead.is_of(home)) {
        let dir = dead.dir.display();
        findings.push(Finding::doubtful(
            format_args!("mounts: the daemon of {dir} died"),
            format_args!("mount it again, or run 'cairnfs umount {dir}'; what was saved is safe"),
        ));
    }
    findings.push(match LockFile::holder(&home.daemon_lock()) {
        Ok(Some(Holder::Process(pid))) => Finding::good(format_args!("daemon: process {pid}")),
        Ok(Some(Holder::Unknown)) => Finding::good("daemon: is just starting"),
        Ok(None) => Finding::good("daemon: none runs, the next mount starts it"),
        Err(failure) => Finding::doubtful("daemon: cannot be told", failure.message),
    });
    findings
}

fn settings(home: &Home) -> Finding {
    match Settings::load(home) {
        Ok(_) => Finding::good("settings: make sense"),
        Err(failure) => Finding::bad(
            failure.code,
            format_args!("settings: {}", ui::shown(failure.message.as_bytes())),
            "mend that: until then mount, daemon and other verbs refuse to go on",
        ),
    }
}

fn private_files(home: &Home, buckets: &[BucketName]) -> Vec<std::path::PathBuf> {
    let mut paths = vec![home.data_dir().join("device.key"), home.run_dir()];
    paths.extend(buckets.iter().map(|name| home.bucket_dir(name)));
    paths
}

fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}
