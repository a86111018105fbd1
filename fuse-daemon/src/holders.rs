//! Which processes keep a mount busy, as far as this user may know.
//!
//! Only links below `/proc` are read, which name paths without asking the file system that they
//! lie in: it may be the one that hangs.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// More are not worth a line.
const SHOWN_MAX: usize = 5;

/// `process 12 (bash)`, for each that has its working directory, its root, its program or an open
/// file at or below `dir`; but for this process and the one that asks.
pub(crate) fn of(dir: &Path, asking: Option<u32>) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let process = entry.path();
        let is_asking = pid == std::process::id() || asking == Some(pid);
        if !is_asking && holds(&process, dir) {
            if found.len() == SHOWN_MAX {
                found.push("others".to_owned());
                break;
            }
            let program = fs::read_to_string(process.join("comm")).unwrap_or_default();
            found.push(format!("process {pid} ({})", program.trim()));
        }
    }
    found
}

fn holds(process: &Path, dir: &Path) -> bool {
    let is_inside = |link: PathBuf| fs::read_link(link).is_ok_and(|path| path.starts_with(dir));
    ["cwd", "root", "exe"].iter().any(|link| is_inside(process.join(link)))
        || fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| is_inside(entry.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_open_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let _open = fs::File::create(path.join("file")).unwrap();
        let this = Path::new("/proc/self");
        assert!(holds(this, &path));
        assert!(!holds(this, &path.join("other")));
    }
}
