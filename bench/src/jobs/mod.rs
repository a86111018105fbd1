//! Real kinds of work, step by step: what a program does until it waits no more, and what it may
//! then take for done.

mod build;
mod copy;
mod database;
mod editor;
mod untar;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;

pub(crate) use self::database::NAME as DATABASE;
use self::editor::Style;
use crate::{systems::find_program, tree::Tree};

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Kind {
    /// An editor that renames the old file, writes a new one and fsyncs it, as vim does.
    EditorVim,
    /// An editor that writes another file, fsyncs it and renames it over the old one.
    EditorReplace,
    /// An editor that writes over the file and closes it, without fsync, as nano does.
    EditorInPlace,
    /// A source tree unpacked, with the calls of tar.
    Untar,
    /// Commits of a row each, by the `sqlite3` program in its default mode.
    Database,
    /// A large file copied, in pieces of 128 KiB.
    Copy,
    /// A C project compiled by `cc`, unit by unit.
    Build,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::EditorVim,
        Self::EditorReplace,
        Self::EditorInPlace,
        Self::Untar,
        Self::Database,
        Self::Copy,
        Self::Build,
    ];

    /// What is counted.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::EditorVim | Self::EditorReplace | Self::EditorInPlace => "save",
            Self::Untar => "file",
            Self::Database => "commit",
            Self::Copy => "write of 128 KiB",
            Self::Build => "run of cc",
        }
    }

    /// Several of them.
    #[must_use]
    pub const fn units(self) -> &'static str {
        match self {
            Self::EditorVim | Self::EditorReplace | Self::EditorInPlace => "saves",
            Self::Untar => "files",
            Self::Database => "commits",
            Self::Copy => "writes of 128 KiB",
            Self::Build => "runs of cc",
        }
    }

    /// Whether each step alone is to last: else only all of them together.
    #[must_use]
    pub const fn syncs(self) -> bool {
        !matches!(self, Self::Copy)
    }

    /// Whether the program itself asks for what it saves to last.
    #[must_use]
    pub const fn fsyncs(self) -> bool {
        matches!(self, Self::EditorVim | Self::EditorReplace | Self::Database)
    }

    /// The program that it takes, with the package that has it, if that is not here.
    #[must_use]
    pub fn missing(self) -> Option<(&'static str, &'static str)> {
        let needed = match self {
            Self::Database => ("sqlite3", "sqlite3"),
            Self::Build => ("cc", "gcc"),
            _ => return None,
        };
        find_program(needed.0).is_none().then_some(needed)
    }

    /// How long it usually rests after the `n`th step: a person types, data comes over a line.
    #[must_use]
    pub const fn pause(self, n: u64) -> Duration {
        let ms = match self {
            Self::EditorVim | Self::EditorReplace | Self::EditorInPlace => 250,
            Self::Untar if n.is_multiple_of(40) => 1_200,
            Self::Untar => 2,
            Self::Database => 20,
            Self::Copy => 30,
            Self::Build => 50,
        };
        Duration::from_millis(ms)
    }

    /// Begins it in the directory `root`; a large file has `large_bytes`.
    ///
    /// # Errors
    ///
    /// What the file system or the program says.
    pub fn begin(self, root: &Path, tree: &Tree, large_bytes: u64) -> Result<Box<dyn Job>> {
        Ok(match self {
            Self::EditorVim => Box::new(editor::Editor::new(root, Style::Vim)?),
            Self::EditorReplace => Box::new(editor::Editor::new(root, Style::Replace)?),
            Self::EditorInPlace => Box::new(editor::Editor::new(root, Style::InPlace)?),
            Self::Untar => Box::new(untar::Untar::new(root, tree)?),
            Self::Database => Box::new(database::Database::new(root)?),
            Self::Copy => Box::new(copy::Copy::new(root, large_bytes)),
            Self::Build => Box::new(build::Build::new(root, tree)?),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EditorVim => "editor, as vim (rename, write, fsync)",
            Self::EditorReplace => "editor, write + fsync + rename",
            Self::EditorInPlace => "editor, as nano (write, close)",
            Self::Untar => "untar of a source tree",
            Self::Database => "database (sqlite3), commits",
            Self::Copy => "large copy",
            Self::Build => "build (cc)",
        })
    }
}

/// Work that goes on and on.
pub trait Job {
    /// Does the next step.
    ///
    /// # Errors
    ///
    /// What the file system or the program says.
    fn step(&mut self) -> Result<Step>;
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct Step {
    /// How long the program waited for it.
    pub waited: Duration,
    /// Bytes that it saved, as the program counts them.
    pub bytes: u64,
    /// What it may take for done.
    pub effect: Effect,
}

/// Something that is to be found later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A file, below the work's root, with this whole content.
    File(PathBuf, blake3::Hash),
    /// A piece of a file with this content.
    Piece {
        /// Below the work's root.
        path: PathBuf,
        /// Where it begins.
        offset: u64,
        /// Its length.
        len: usize,
        /// Its content.
        hash: blake3::Hash,
    },
    /// That many rows in the database.
    Rows(u64),
    /// Nothing that was not there before.
    Nothing,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workplace;

    #[test]
    fn each_step_leaves_what_it_says() {
        let dir = workplace::in_memory().unwrap();
        let tree = Tree::new(dir.path(), 20, 20).unwrap();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.missing().is_none()) {
            let root = dir.path().join(format!("{kind:?}"));
            fs::create_dir(&root).unwrap();
            let mut job = kind.begin(&root, &tree, 256 << 10).unwrap();
            for n in 1..=5 {
                let step = job.step().unwrap();
                match step.effect {
                    Effect::File(path, hash) => {
                        let content = fs::read(root.join(path)).unwrap();
                        assert_eq!(blake3::hash(&content), hash, "{kind}");
                        assert_eq!(content.len() as u64, step.bytes, "{kind}");
                    }
                    Effect::Piece { path, offset, len, hash } => {
                        let content = fs::read(root.join(path)).unwrap();
                        let from = usize::try_from(offset).unwrap();
                        assert_eq!(blake3::hash(&content[from..from + len]), hash, "{kind}");
                    }
                    Effect::Rows(rows) => assert_eq!(rows, n),
                    Effect::Nothing => assert_eq!((kind, n), (Kind::Copy, 3), "after two pieces"),
                }
            }
        }
    }
}
