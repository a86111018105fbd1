//! `cp`: one large file after the other, 128 KiB at a time.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Effect, Job, Step};
use crate::{noise::Noise, served::close};

/// As GNU cp does.
const PIECE: usize = 128 << 10;

#[derive(Debug)]
pub(super) struct Copy {
    root: PathBuf,
    len: u64,
    noise: Noise,
    n: u64,
    open: Option<(PathBuf, File, u64)>,
}

impl Copy {
    pub(super) fn new(root: &Path, len: u64) -> Self {
        Self { root: root.to_owned(), len, noise: Noise::new(8), n: 0, open: None }
    }
}

impl Job for Copy {
    fn step(&mut self) -> Result<Step> {
        let data = self.noise.bytes(PIECE);
        let start = Instant::now();
        let (path, file, offset) = if let Some(open) = self.open.take() {
            open
        } else {
            self.n += 1;
            let name = PathBuf::from(format!("large-{}", self.n));
            let file = File::create_new(self.root.join(&name))?;
            (name, file, 0)
        };
        if offset >= self.len {
            close(file)?;
            return Ok(Step { waited: start.elapsed(), bytes: 0, effect: Effect::Nothing });
        }
        file.write_all_at(&data, offset)?;
        let waited: Duration = start.elapsed();
        self.open = Some((path.clone(), file, offset + PIECE as u64));
        let effect = Effect::Piece { path, offset, len: PIECE, hash: blake3::hash(&data) };
        Ok(Step { waited, bytes: PIECE as u64, effect })
    }
}
