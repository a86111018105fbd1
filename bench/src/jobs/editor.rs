//! Editors: one file of text, saved again and again.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Result;

use super::{Effect, Job, Step};
use crate::{noise::Noise, plain::barrier, served::close};

/// Bytes of the file.
const LEN: usize = 8 << 10;
const NAME: &str = "notes.txt";

/// How a save is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    /// vim, with `backupcopy=auto` and `writebackup`, its defaults (`buf_write`, bufwrite.c).
    Vim,
    /// What most programs do that want to be safe.
    Replace,
    /// nano, and the redirection of a shell.
    InPlace,
}

#[derive(Debug)]
pub(super) struct Editor {
    root: PathBuf,
    style: Style,
    n: u64,
}

impl Editor {
    pub(super) fn new(root: &Path, style: Style) -> Result<Self> {
        fs::write(root.join(NAME), text(0))?;
        Ok(Self { root: root.to_owned(), style, n: 0 })
    }
}

impl Job for Editor {
    fn step(&mut self) -> Result<Step> {
        self.n += 1;
        let text = text(self.n);
        let path = self.root.join(NAME);
        let start = Instant::now();
        match self.style {
            Style::Vim => {
                let backup = self.root.join(format!("{NAME}~"));
                // Whether it may make files here.
                let probe = self.root.join("4913");
                close(File::create(&probe)?)?;
                fs::remove_file(&probe)?;
                fs::rename(&path, &backup)?;
                let file = File::create_new(&path)?;
                file.write_all_at(&text, 0)?;
                barrier(&file)?;
                close(file)?;
                fs::set_permissions(&path, Permissions::from_mode(0o644))?;
                fs::remove_file(&backup)?;
            }
            Style::Replace => {
                let fresh = self.root.join(format!(".{NAME}.new"));
                let file = File::create_new(&fresh)?;
                file.write_all_at(&text, 0)?;
                barrier(&file)?;
                close(file)?;
                fs::rename(&fresh, &path)?;
            }
            Style::InPlace => {
                let file = File::create(&path)?;
                file.write_all_at(&text, 0)?;
                close(file)?;
            }
        }
        let waited = start.elapsed();
        let effect = Effect::File(PathBuf::from(NAME), blake3::hash(&text));
        Ok(Step { waited, bytes: text.len() as u64, effect })
    }
}

/// The `n`th version of the text: letters and spaces.
fn text(n: u64) -> Vec<u8> {
    let letters = b"the quick brown fox jumps over the lazy dog ";
    let bytes = Noise::new(n).bytes(LEN);
    bytes.into_iter().map(|byte| letters[usize::from(byte) % letters.len()]).collect()
}
