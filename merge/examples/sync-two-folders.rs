//! Brings two folders together: `sync-two-folders DIR_A DIR_B`.
//!
//! Each folder has a log beside it, `DIR.merge-log`, of what was seen in it. A run records what
//! changed in each folder since the last run, merges the logs both ways, and writes the merged tree
//! into both folders, conflict files and all. Regular files and directories only; whole files are
//! kept in the log, so it is a demonstration, not a tool for large folders.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cairnfs_merge::{Content, ContentId, Context, DeviceId, PathOpLog, Strategy};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Log = PathOpLog<Vec<u8>>;

/// Files by path; `None` for a directory.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [a, b] = args.as_slice() else {
        eprintln!("usage: sync-two-folders DIR_A DIR_B");
        return ExitCode::from(2);
    };
    match sync(Path::new(a), Path::new(b)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("sync-two-folders: {err}");
            ExitCode::FAILURE
        }
    }
}

fn sync(a: &Path, b: &Path) -> Outcome<()> {
    let (a, b) = (Folder::open(a)?, Folder::open(b)?);
    if a.dir == b.dir {
        return Err("both folders are the same".into());
    }
    let (mut left, mut right) = (a.log.clone(), b.log.clone());
    let context = Context { text: None };
    left.merge_with_resolver(&b.log, &Strategy::ConflictFile, &context)?;
    right.merge_with_resolver(&a.log, &Strategy::ConflictFile, &context)?;
    for conflict in left.conflicts() {
        println!("{}: {} conflict", String::from_utf8_lossy(&conflict.path), conflict.kind);
    }
    a.store(&left)?;
    b.store(&right)
}

struct Folder {
    dir: PathBuf,
    log_file: PathBuf,
    log: Log,
}

impl Folder {
    /// Reads a folder and its log, and records what changed since.
    fn open(dir: &Path) -> Outcome<Self> {
        let dir = dir.canonicalize().map_err(|err| format!("{}: {err}", dir.display()))?;
        let mut log_file = dir.clone().into_os_string();
        log_file.push(".merge-log");
        let log_file = PathBuf::from(log_file);
        let mut log: Log = if log_file.exists() {
            let bytes = fs::read(&log_file)?;
            postcard::from_bytes(&bytes).map_err(|_damaged| {
                format!("{} is damaged; remove both logs to start anew", log_file.display())
            })?
        } else {
            let name = blake3::hash(log_file.as_os_str().as_encoded_bytes());
            let mut device = [0; 16];
            device.copy_from_slice(&name.as_bytes()[..16]);
            PathOpLog::new(DeviceId(device))
        };
        record(&mut log, &read_tree(&dir)?)?;
        Ok(Self { dir, log_file, log })
    }

    /// Makes the folder look like `log`, and stores the log.
    fn store(&self, log: &Log) -> Outcome<()> {
        let (now, wanted) = (read_tree(&self.dir)?, tree_of(log));
        for (path, old) in now.iter().rev() {
            match (old, wanted.get(path)) {
                (Some(_), Some(Some(_))) | (None, Some(None)) => (),
                (Some(_), _) => fs::remove_file(self.dir.join(path))?,
                (None, _) => fs::remove_dir(self.dir.join(path))?,
            }
        }
        for (path, new) in &wanted {
            match new {
                None => fs::create_dir_all(self.dir.join(path))?,
                Some(_) if now.get(path) == Some(new) => (),
                Some(bytes) => fs::write(self.dir.join(path), bytes)?,
            }
        }
        Ok(fs::write(&self.log_file, postcard::to_stdvec(log)?)?)
    }
}

fn tree_of(log: &Log) -> Tree {
    let entries = log.resolve_all().into_iter();
    let named = entries.map(|(path, entry)| {
        let bytes = entry.content.map(|content| content.body);
        (String::from_utf8_lossy(&path).into_owned(), bytes)
    });
    named.collect()
}

/// Writes down how `tree` differs from what the log knows.
fn record(log: &mut Log, tree: &Tree) -> Outcome<()> {
    let known = tree_of(log);
    for (path, old) in known.iter().rev() {
        let same_kind = tree.get(path).is_some_and(|new| new.is_some() == old.is_some());
        if !same_kind {
            log.remove(path.as_bytes())?;
        }
    }
    for (path, new) in tree {
        match new {
            None if known.get(path) != Some(&None) => log.mkdir(path.as_bytes())?,
            Some(bytes) if known.get(path) != Some(new) => {
                let id = ContentId(*blake3::hash(bytes).as_bytes());
                let content = Content::new(id, bytes.len() as u64, bytes.clone());
                log.write(path.as_bytes(), content)?;
            }
            _ => (),
        }
    }
    Ok(())
}

fn read_tree(root: &Path) -> Outcome<Tree> {
    let mut tree = Tree::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
            let kind = kind?;
            let name = path.strip_prefix(root)?.to_str().ok_or("a name is not UTF-8")?.to_owned();
            if kind.is_dir() {
                tree.insert(name, None);
                todo.push(path);
            } else if kind.is_file() {
                tree.insert(name, Some(fs::read(&path)?));
            }
        }
    }
    Ok(tree)
}
