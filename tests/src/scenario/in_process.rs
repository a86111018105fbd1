//! Devices in this process: buckets in temporary directories, served without FUSE, and versions
//! handed over by calls instead of connections.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use cairnfs_mount_core::{
    Attr, Bucket, Caller, Done, Fetch, Ino, Keep, Kind, MergeStep, Mount, OpenFlags, Options,
    Protection, RenameMode, Role, Seen, SetAttr, SetXattr, Settings, Strategy, Time, TimeOrNow,
    Unlock, VersionId,
};
use cairnfs_store::DeviceKey;

use super::devices::{Device, Devices, Listed, Shown, Told};

const ME: Caller = Caller { uid: 0, gid: 0 };
/// Rounds in which everybody pulls from everybody, before one that brings nothing new.
const ROUNDS_MAX: usize = 4;
/// Blobs that are asked for at once.
const BLOBS: usize = 64;

/// Devices in this process.
#[derive(Debug)]
pub struct InProcess {
    root: tempfile::TempDir,
    machines: BTreeMap<char, Machine>,
}

#[derive(Debug)]
struct Machine {
    dir: PathBuf,
    key: Arc<DeviceKey>,
    mount: Mount,
}

impl InProcess {
    /// No devices yet.
    ///
    /// # Errors
    ///
    /// If there can be no temporary directory.
    pub fn new() -> Told<Self> {
        let root = tempfile::Builder::new().prefix("cairnfs-scenario-").tempdir();
        Ok(Self { root: root.map_err(why("a temporary directory"))?, machines: BTreeMap::new() })
    }

    fn machine(&self, who: char) -> Told<&Machine> {
        self.machines.get(&who).ok_or_else(|| format!("there is no device {who}"))
    }

    /// All at once, the first of each pair merges what the second one has. Says whether anybody
    /// learned anything.
    fn merge(&self, pulls: &[(char, char)]) -> Told<bool> {
        let mut fetched = Vec::new();
        for (to, from) in pulls {
            let (to, from) = (self.machine(*to)?, self.machine(*from)?);
            let head = from.published()?;
            if !to.mount.covers(&head).map_err(why("covers"))? {
                fetched.push((to, head, to.fetch(from, head)?));
            }
        }
        let mut learned = false;
        for (to, head, fetch) in fetched {
            let outcome = to.mount.merge_from(fetch).map_err(why("merge"))?;
            learned |= outcome.step != MergeStep::Nothing;
            if !to.mount.covers(&head).map_err(why("covers"))? {
                return Err("a version that was merged is not known".into());
            }
        }
        Ok(learned)
    }
}

impl Devices for InProcess {
    fn admit(&mut self, who: char) -> Told {
        let dir = self.root.path().join(who.to_string());
        let key = Arc::new(DeviceKey::generate().map_err(why("a key"))?);
        if let Some(inviter) = self.machines.get(&'A') {
            let mount = &inviter.mount;
            mount
                .set_member(key.public(), &who.to_string(), Some(Role::Writer))
                .map_err(why("invite"))?;
            let secrets = mount.secrets(&[]);
            Bucket::join(&dir, &key, Protection::KeyFile, mount.bucket_id(), &secrets, 0)
                .map_err(why("join"))?;
        } else {
            Bucket::create(&dir, &key, Protection::KeyFile).map_err(why("create"))?;
        }
        let mount = start(&dir, &key)?;
        self.machines.insert(who, Machine { dir, key, mount });
        if who != 'A' {
            self.pull(&[(who, 'A')])?;
        }
        Ok(())
    }

    fn device(&mut self, who: char) -> Told<&mut dyn Device> {
        match self.machines.get_mut(&who) {
            Some(machine) => Ok(machine),
            None => Err(format!("there is no device {who}")),
        }
    }

    fn pull(&mut self, pulls: &[(char, char)]) -> Told {
        self.merge(pulls).map(drop)
    }

    fn settle(&mut self) -> Told {
        let letters: Vec<char> = self.machines.keys().copied().collect();
        for _ in 0..=ROUNDS_MAX {
            let mut learned = false;
            for to in &letters {
                for from in letters.iter().filter(|from| *from != to) {
                    learned |= self.merge(&[(*to, *from)])?;
                }
            }
            if !learned {
                return Ok(());
            }
        }
        Err(format!("not quiet after {ROUNDS_MAX} rounds"))
    }

    fn agree(&mut self) -> Told {
        let heads = self.machines.values().map(Machine::published);
        for head in heads.collect::<Told<Vec<_>>>()? {
            for (who, machine) in &self.machines {
                let (mount, other) = (&machine.mount, crate::hex(&head[..4]));
                if !mount.covers(&head).map_err(why("covers"))? {
                    return Err(format!("{who} does not stand on the state of version {other}"));
                }
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Told {
        for (who, machine) in &mut self.machines {
            let mut damage = Vec::new();
            let mut found = |_: Option<&[u8]>, what: &str| damage.push(what.to_owned());
            machine.mount.check(&mut |_, _| true, &mut found).map_err(why("check"))?;
            if !damage.is_empty() {
                return Err(format!("damage on {who}: {damage:?}"));
            }
            machine.mount.stop().map_err(why("stop"))?;
        }
        // The buckets are let go with the last clones.
        let stopped = std::mem::take(&mut self.machines);
        for (who, Machine { dir, key, mount }) in stopped {
            drop(mount);
            let mount = start(&dir, &key)?;
            self.machines.insert(who, Machine { dir, key, mount });
        }
        Ok(())
    }
}

fn start(dir: &Path, key: &Arc<DeviceKey>) -> Told<Mount> {
    let bucket = Bucket::open(dir, Arc::clone(key), Unlock::KeyFile).map_err(why("open"))?;
    // Versions are made when somebody pulls.
    let hour = Duration::from_secs(3600);
    let options = Options { publish_quiet: hour, publish_max: hour, ..Options::default() };
    Mount::start(bucket, options).map_err(why("start"))
}

impl Machine {
    fn published(&self) -> Told<VersionId> {
        self.mount.publish().map_err(why("publish"))?;
        self.mount.head().ok_or_else(|| "there is no version yet".into())
    }

    fn fetch(&self, from: &Self, head: VersionId) -> Told<Fetch> {
        let mut fetch = self.mount.fetch(head).map_err(why("fetch"))?;
        let have: Vec<_> = self.mount.head().into_iter().collect();
        let ancestry = from.mount.ancestry(&head, &have, 1000).map_err(why("ancestry"))?;
        fetch.expect_ancestors(&ancestry);
        while !fetch.is_complete() {
            let wanted = fetch.wanted(BLOBS).map_err(why("fetch"))?;
            let mut blobs = Vec::new();
            for id in &wanted {
                match from.mount.sealed(id).map_err(why("give"))? {
                    Some(blob) => blobs.push(blob),
                    None => fetch.unavailable(&[*id]).map_err(why("fetch"))?,
                }
            }
            fetch.supply(blobs).map_err(why("fetch"))?;
        }
        Ok(fetch)
    }

    fn attr(&self, path: &str) -> Told<Attr> {
        let (dir, name) = self.parent(path)?;
        self.mount.lookup(dir, name).map_err(why(path))
    }

    fn dir(&self, path: &str) -> Told<Ino> {
        if path.is_empty() { Ok(Ino::ROOT) } else { Ok(self.attr(path)?.ino) }
    }

    fn parent<'p>(&self, path: &'p str) -> Told<(Ino, &'p [u8])> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.dir(dir)?, name.as_bytes()))
    }

    fn change(&self, path: &str, changes: SetAttr) -> Told {
        let ino = self.attr(path)?.ino;
        self.mount.setattr(ino, None, changes).map(drop).map_err(why(path))
    }

    fn read(&self, ino: Ino) -> Told<String> {
        let fh = self.mount.open(ino, OpenFlags::default()).map_err(why("open"))?;
        let bytes = self.mount.read(fh, 0, 1 << 20).map_err(why("read"))?;
        self.mount.release(ino, fh, Box::new(|_| ()));
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn entries(&self, dir: Ino) -> Told<Vec<(String, Kind, Ino)>> {
        let fh = self.mount.opendir(dir).map_err(why("opendir"))?;
        let mut found = Vec::new();
        let mut take = |entry: cairnfs_mount_core::DirEntry| {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            found.push((name, entry.kind, entry.ino));
            true
        };
        self.mount.readdir(dir, fh, 2, true, &mut take).map_err(why("readdir"))?;
        self.mount.releasedir(fh);
        Ok(found)
    }
}

impl Device for Machine {
    fn write(&mut self, path: &str, text: &str) -> Told {
        let (dir, name) = self.parent(path)?;
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        let made = self.mount.create(ME, dir, name, 0o644, flags);
        let (Attr { ino, .. }, fh) = made.map_err(why(path))?;
        let written = waits(|done| self.mount.write(ino, fh, 0, text.as_bytes(), false, done));
        let saved = waits(|done| self.mount.flush(ino, fh, done));
        let closed = waits(|done| self.mount.release(ino, fh, done));
        written.map(drop).and(saved).and(closed)
    }

    fn mkdir(&mut self, path: &str) -> Told {
        let (dir, name) = self.parent(path)?;
        self.mount.mkdir(ME, dir, name, 0o755).map(drop).map_err(why(path))
    }

    fn unlink(&mut self, path: &str) -> Told {
        let (dir, name) = self.parent(path)?;
        self.mount.unlink(dir, name).map_err(why(path))
    }

    fn rmdir(&mut self, path: &str) -> Told {
        let (dir, name) = self.parent(path)?;
        self.mount.rmdir(dir, name).map_err(why(path))
    }

    fn rename(&mut self, from: &str, to: &str) -> Told {
        let ((dir, name), (new_dir, new_name)) = (self.parent(from)?, self.parent(to)?);
        self.mount.rename(dir, name, new_dir, new_name, RenameMode::Replace).map_err(why(from))
    }

    fn symlink(&mut self, path: &str, target: &str) -> Told {
        let (dir, name) = self.parent(path)?;
        self.mount.symlink(ME, dir, name, target.as_bytes()).map(drop).map_err(why(path))
    }

    fn set_executable(&mut self, path: &str, executable: bool) -> Told {
        let mode = self.attr(path)?.mode;
        let mode = if executable { mode | 0o111 } else { mode & !0o111 };
        self.change(path, SetAttr { mode: Some(mode), ..SetAttr::default() })
    }

    fn set_xattr(&mut self, path: &str, key: &str, value: &str) -> Told {
        let ino = self.attr(path)?.ino;
        let key = format!("user.{key}");
        let set = self.mount.setxattr(ino, key.as_bytes(), value.as_bytes(), SetXattr::Any);
        set.map_err(why(path))
    }

    fn set_mtime(&mut self, path: &str, seconds: i64) -> Told {
        let mtime = Some(TimeOrNow::At(Time { seconds, nanos: 0 }));
        self.change(path, SetAttr { mtime, ..SetAttr::default() })
    }

    fn resolve(&mut self, path: &str, text: &str) -> Told {
        self.write(path, text)?;
        let listed = self.mount.conflicts_to_settle(Some(path.as_bytes())).map_err(why(path))?;
        let mut seen = Seen::default();
        listed.iter().for_each(|conflict| seen.add(conflict));
        match self.mount.resolve(path.as_bytes(), &Keep::Shown, &seen) {
            // Writing the bytes of its only copy has settled it.
            Err(cairnfs_mount_core::Error::NotFound) => Ok(()),
            result => result.map_err(why(path)),
        }
    }

    fn publish(&mut self) -> Told {
        self.published().map(drop)
    }

    fn merge_texts(&mut self) -> Told {
        let settings = Settings { strategy: Strategy::MergeText, rules: Vec::new() };
        self.mount.set_settings(settings).map_err(why("settings"))
    }

    fn tree(&mut self) -> Told<BTreeMap<String, Shown>> {
        let mut tree = BTreeMap::new();
        let mut dirs = vec![(String::new(), Ino::ROOT)];
        while let Some((above, dir)) = dirs.pop() {
            for (name, kind, ino) in self.entries(dir)? {
                let path = format!("{above}{name}");
                let shown = match kind {
                    Kind::Dir => {
                        dirs.push((format!("{path}/"), ino));
                        Shown::Dir
                    }
                    Kind::Symlink => {
                        let target = self.mount.readlink(ino).map_err(why(&path))?;
                        Shown::Link(String::from_utf8_lossy(&target).into_owned())
                    }
                    _ => Shown::File(self.read(ino)?),
                };
                if tree.insert(path.clone(), shown).is_some() {
                    return Err(format!("{path} is listed twice"));
                }
            }
        }
        Ok(tree)
    }

    fn conflicts(&mut self) -> Told<Vec<Listed>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = self.mount.conflicts(None).map_err(why("conflicts"))?;
        let listed = found.into_iter().flat_map(|conflict| {
            let ids = || conflict.sides.iter().map(|side| crate::hex(&side.id));
            let listed = |path: &[u8], shown: Vec<String>| Listed {
                kind: conflict.kind.to_string(),
                path: text(path),
                sides: shown.into_iter().zip(ids()).collect(),
            };
            let shown = conflict.sides.iter().map(|side| text(&side.path)).collect();
            let first = listed(&conflict.path, shown);
            // A scenario has each name by itself.
            let others = conflict.other_names.iter();
            let others =
                others.map(|it| listed(&it.path, it.shown.iter().map(|p| text(p)).collect()));
            others.chain([first]).collect::<Vec<_>>()
        });
        Ok(listed.collect())
    }

    fn executable(&mut self, path: &str) -> Told<String> {
        Ok(if self.attr(path)?.mode & 0o111 == 0 { "0" } else { "1" }.into())
    }

    fn mtime(&mut self, path: &str) -> Told<String> {
        Ok(self.attr(path)?.mtime.seconds.to_string())
    }

    fn xattr(&mut self, path: &str, key: &str) -> Told<String> {
        let ino = self.attr(path)?.ino;
        match self.mount.getxattr(ino, format!("user.{key}").as_bytes()) {
            Ok(value) => Ok(String::from_utf8_lossy(&value).into_owned()),
            Err(cairnfs_mount_core::Error::NoXattr) => Ok(String::new()),
            Err(err) => Err(why(path)(err)),
        }
    }
}

/// Makes a call that answers later, and waits for its answer.
fn waits<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Told<T> {
    let (tell, told) = mpsc::sync_channel(1);
    call(Box::new(move |result| {
        tell.send(result).expect("because the caller waits for it");
    }));
    told.recv().map_err(why("answer"))?.map_err(why("call"))
}

/// An error in words, with what it is about before it.
fn why<E: Display>(what: &str) -> impl Fn(E) -> String {
    move |err| format!("{what}: {err}")
}
