//! `tar -x`, file by file, with the calls that GNU tar makes.

use std::{
    fs::{self, File, FileTimes, Permissions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;

use super::{Effect, Job, Step};
use crate::{served::close, tree::Tree};

#[derive(Debug)]
pub(super) struct Untar {
    root: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
    n: usize,
}

impl Untar {
    pub(super) fn new(root: &Path, tree: &Tree) -> Result<Self> {
        Ok(Self { root: root.to_owned(), files: tree.files()?, n: 0 })
    }
}

impl Job for Untar {
    fn step(&mut self) -> Result<Step> {
        let (name, content) = &self.files[self.n % self.files.len()];
        let path = Path::new(&format!("tree-{}", self.n / self.files.len())).join(name);
        self.n += 1;
        let to = self.root.join(&path);
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        let start = Instant::now();
        if let Some(dir) = to.parent()
            && !dir.is_dir()
        {
            fs::create_dir_all(dir)?;
        }
        let file = File::create_new(&to)?;
        file.write_all_at(content, 0)?;
        file.set_times(times)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        close(file)?;
        let waited = start.elapsed();
        let effect = Effect::File(path, blake3::hash(content));
        Ok(Step { waited, bytes: content.len() as u64, effect })
    }
}
