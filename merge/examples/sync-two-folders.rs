//! Brings two folders together: `sync-two-folders DIR_A DIR_B`.
//!
//! Each folder has a log beside it, `DIR.merge-log`, of what was seen in it. A run records what
//! changed in each folder since the last run, merges the logs both ways, and writes the merged tree
//! into both folders, conflict files and all.
//!
//! It knows files, symbolic links and directories, but not their permissions; a file that has gone
//! is taken for moved if exactly one new file has its bytes. Other things in a folder are left
//! alone. The logs hold whole files, and nobody may change the folders meanwhile: it is a
//! demonstration, not a tool for large folders.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cairnfs_merge::{Content, ContentId, Context, DeviceId, PathOpLog, Strategy};
use serde::{Deserialize, Serialize};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Log = PathOpLog<Leaf>;

/// What is no directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Leaf {
    File(Vec<u8>),
    Link(Vec<u8>),
}

/// Leaves by path; `None` for a directory.
type Tree = BTreeMap<Vec<u8>, Option<Leaf>>;

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
    if a.dir.starts_with(&b.dir) || b.dir.starts_with(&a.dir) {
        return Err("one folder is the other, or lies in it".into());
    }
    let (mut left, mut right) = (a.log.clone(), b.log.clone());
    for (log, other) in [(&mut left, &b.log), (&mut right, &a.log)] {
        log.merge_with_resolver(other, &Strategy::ConflictFile, &Context { text: None })
            .map_err(|err| format!("{err}; if a log was lost, remove the other to start anew"))?;
    }
    for conflict in left.conflicts() {
        println!("{}: {} conflict", String::from_utf8_lossy(&conflict.path), conflict.kind);
    }
    // Nothing is changed before all is known to fit.
    let (to_a, to_b) = (a.plan(&left)?, b.plan(&right)?);
    a.store(&left, &to_a)?;
    b.store(&right, &to_b)
}

struct Folder {
    dir: PathBuf,
    log_file: PathBuf,
    log: Log,
    tree: Tree,
    /// What is neither a file nor a link nor a directory.
    others: Vec<Vec<u8>>,
}

impl Folder {
    /// Reads a folder and its log, and records what changed since.
    fn open(dir: &Path) -> Outcome<Self> {
        let told = |err| format!("{}: {err}", dir.display());
        let dir = dir.canonicalize().map_err(told)?;
        let mut log_file = dir.clone().into_os_string();
        log_file.push(".merge-log");
        let log_file = PathBuf::from(log_file);
        let mut log: Log = match fs::read(&log_file) {
            Ok(bytes) => postcard::from_bytes(&bytes).map_err(|_damaged| {
                format!("{} is damaged; remove both logs to start anew", log_file.display())
            })?,
            Err(err) if err.kind() == ErrorKind::NotFound => {
                let name = blake3::hash(log_file.as_os_str().as_bytes());
                let mut device = [0; 16];
                device.copy_from_slice(&name.as_bytes()[..16]);
                PathOpLog::new(DeviceId(device))
            }
            Err(err) => return Err(format!("{}: {err}", log_file.display()).into()),
        };
        let (tree, others) = read_tree(&dir).map_err(|err| format!("{}: {err}", dir.display()))?;
        record(&mut log, &tree)?;
        Ok(Self { dir, log_file, log, tree, others })
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.dir.join(OsStr::from_bytes(path))
    }

    /// What the folder is to hold, if nothing that is left alone is in the way.
    fn plan(&self, log: &Log) -> Outcome<Tree> {
        let wanted = tree_of(log);
        for other in &self.others {
            let (taken, at) = (wanted.contains_key(other), self.at(other));
            let parent = parent(other);
            let kept = parent.is_empty() || wanted.get(parent) == Some(&None);
            if taken || !kept {
                return Err(format!("{} is in the way", at.display()).into());
            }
        }
        Ok(wanted)
    }

    /// Makes the folder look like `wanted`, and stores the log.
    fn store(&self, log: &Log, wanted: &Tree) -> Outcome<()> {
        let told = |path: &Path, err| format!("{}: {err}", path.display());
        // Children come after their directory in the order of paths, so backwards.
        for (path, old) in self.tree.iter().rev() {
            let at = self.at(path);
            let gone = match (old, wanted.get(path)) {
                (None, Some(None)) => continue,
                (Some(old), Some(Some(new))) if old == new => continue,
                (None, _) => fs::remove_dir(&at),
                // A file is replaced below.
                (Some(Leaf::File(_)), Some(Some(Leaf::File(_)))) => continue,
                (Some(_), _) => fs::remove_file(&at),
            };
            gone.map_err(|err| told(&at, err))?;
        }
        for (path, new) in wanted.iter().filter(|(path, new)| self.tree.get(*path) != Some(new)) {
            let at = self.at(path);
            let made = match new {
                None => fs::create_dir(&at),
                Some(Leaf::Link(target)) => symlink(OsStr::from_bytes(target), &at),
                Some(Leaf::File(bytes)) => replace(&at, bytes),
            };
            made.map_err(|err| told(&at, err))?;
        }
        let stored = replace(&self.log_file, &postcard::to_stdvec(log)?);
        Ok(stored.map_err(|err| told(&self.log_file, err))?)
    }
}

/// Writes a file so that there is either the old one or the new one.
fn replace(at: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = at.parent().unwrap_or(Path::new("/"));
    let old = fs::metadata(at).map(|old| old.permissions());
    let permissions = old.unwrap_or_else(|_new| fs::Permissions::from_mode(0o666));
    let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.persist(at)?;
    Ok(())
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &path[..slash])
}

fn tree_of(log: &Log) -> Tree {
    let entries = log.entries().into_iter();
    entries.map(|(path, entry)| (path, entry.content.map(|content| content.body))).collect()
}

/// Writes down how `tree` differs from what the log knows.
fn record(log: &mut Log, tree: &Tree) -> Outcome<()> {
    let known = tree_of(log);
    for (from, to) in moved(&known, tree) {
        // Where that cannot be, it is recorded as removed and made.
        let _refused = log.rename(&from, &to);
    }
    for (path, old) in tree_of(log).iter().rev() {
        let same_kind = tree.get(path).is_some_and(|new| new.is_some() == old.is_some());
        if !same_kind {
            log.remove(path)?;
        }
    }
    let known = tree_of(log);
    for (path, new) in tree.iter().filter(|(path, new)| known.get(*path) != Some(new)) {
        match new {
            None => log.mkdir(path)?,
            Some(leaf) => log.write(path, content(leaf)?)?,
        }
    }
    Ok(())
}

fn content(leaf: &Leaf) -> Outcome<Content<Leaf>> {
    let bytes = postcard::to_stdvec(leaf)?;
    let len = match leaf {
        Leaf::File(bytes) | Leaf::Link(bytes) => bytes.len() as u64,
    };
    Ok(Content::new(ContentId(*blake3::hash(&bytes).as_bytes()), len, leaf.clone()))
}

/// Leaves that have gone, each with the one new path that has its bytes.
fn moved(known: &Tree, tree: &Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (gone, new) = (by_leaf(known, tree), by_leaf(tree, known));
    let pairs = gone.iter().filter_map(|(leaf, from)| Some((from, new.get(leaf)?)));
    let single = pairs.filter_map(|(from, to)| match (from.as_slice(), to.as_slice()) {
        ([from], [to]) => Some(((*from).clone(), (*to).clone())),
        _ => None,
    });
    single.collect()
}

/// The leaves whose paths only `here` has, by what they hold.
fn by_leaf<'a>(here: &'a Tree, there: &Tree) -> BTreeMap<&'a Leaf, Vec<&'a Vec<u8>>> {
    let mut found: BTreeMap<&Leaf, Vec<&Vec<u8>>> = BTreeMap::new();
    for (path, leaf) in here.iter().filter(|(path, _)| !there.contains_key(*path)) {
        if let Some(leaf) = leaf {
            found.entry(leaf).or_default().push(path);
        }
    }
    found
}

fn read_tree(root: &Path) -> Outcome<(Tree, Vec<Vec<u8>>)> {
    let (mut tree, mut others) = (Tree::new(), Vec::new());
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
            let (name, kind) = (path.strip_prefix(root)?.as_os_str().as_bytes().to_vec(), kind?);
            if kind.is_dir() {
                tree.insert(name, None);
                todo.push(path);
            } else if kind.is_file() {
                tree.insert(name, Some(Leaf::File(fs::read(&path)?)));
            } else if kind.is_symlink() {
                let target = fs::read_link(&path)?.into_os_string();
                tree.insert(name, Some(Leaf::Link(target.as_bytes().to_vec())));
            } else {
                others.push(name);
            }
        }
    }
    Ok((tree, others))
}
