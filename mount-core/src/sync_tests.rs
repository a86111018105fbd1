//! Several devices in one process: what one publishes the others merge into their live mounts.

use std::{path::Path, sync::Arc, time::Duration};

use cairnfs_store::{DeviceKey, KeyRing, Options as StoreOptions, Secret, create, open, sim};
use parking_lot::Mutex;

use crate::{
    Bucket, BucketId, Caller, Error, Fh, Ino, Keep, Kind, MergeStep, Mount, Observer, OpenFlags,
    Options, Outdated, RenameMode, Result, Role, Settings, Strategy,
    bucket::{begin, begin_unknown},
};

const DIR: &str = "/bucket";
const ME: Caller = Caller { uid: 0, gid: 0 };
const READ: OpenFlags =
    OpenFlags { append: false, sync: false, truncate: false, write: false, exclusive: false };
const WRITE: OpenFlags = OpenFlags { write: true, ..READ };

/// A device with its disk.
struct Peer {
    disk: sim::SimDisk,
    key: Arc<DeviceKey>,
    mount: Option<Mount>,
}

fn keys() -> KeyRing {
    KeyRing::new([(0, Secret::new([3; 32]))]).unwrap()
}

fn bucket_id() -> BucketId {
    BucketId([1; 16])
}

fn store_options() -> StoreOptions {
    StoreOptions { pack_bytes: 1 << 20, reserve_bytes: 64 << 10, ..StoreOptions::default() }
}

fn start(disk: &sim::SimDisk, key: &Arc<DeviceKey>) -> Mount {
    let opened = open(Arc::new(disk.clone()), Path::new(DIR), keys(), store_options()).unwrap();
    let bucket = Bucket {
        id: bucket_id(),
        device: Arc::clone(key),
        appender: opened.appender,
        blobs: opened.blobs,
        saves: opened.saves,
        key_file: None,
    };
    // Versions are made when the test says so.
    let hour = Duration::from_secs(3600);
    let options = Options { publish_quiet: hour, publish_max: hour, ..Options::default() };
    Mount::start(bucket, options).unwrap()
}

impl Peer {
    fn fresh(
        fill: impl FnOnce(&DeviceKey, cairnfs_store::Appender, Arc<cairnfs_store::Blobs>),
    ) -> Self {
        let key = Arc::new(DeviceKey::generate().unwrap());
        let disk = sim::SimDisk::new(1);
        let (appender, blobs) =
            create(Arc::new(disk.clone()), Path::new(DIR), keys(), store_options()).unwrap();
        fill(&key, appender, blobs);
        let mount = Some(start(&disk, &key));
        Self { disk, key, mount }
    }

    fn first() -> Self {
        Self::fresh(|key, appender, blobs| {
            begin((0, 0), key, bucket_id(), appender, blobs).unwrap();
        })
    }

    /// A device that `self` invites, with the tree that `self` has.
    fn invite(&self, role: Role) -> Self {
        let peer = Self::fresh(|key, mut appender, _| {
            begin_unknown(key, bucket_id(), &mut appender).unwrap();
        });
        self.mount().set_member(peer.key.public(), "peer", Some(role)).unwrap();
        assert!(peer.mount().awaits_first_version());
        assert_eq!(peer.pull(self).unwrap(), MergeStep::FastForward);
        assert!(!peer.mount().awaits_first_version());
        peer
    }

    /// Fetches what `other` stands on and merges it.
    fn pull(&self, other: &Self) -> Result<MergeStep> {
        other.mount().publish().unwrap();
        let head = other.mount().head().unwrap();
        if self.mount().covers(&head)? {
            return Ok(MergeStep::Nothing);
        }
        let (fetch, _) = self.fetch(other, head)?;
        let outcome = self.mount().merge_from(fetch)?;
        assert!(self.mount().covers(&head)? || outcome.step == MergeStep::Nothing);
        Ok(outcome.step)
    }

    /// Fetches `head`; says how many blobs came.
    fn fetch(&self, other: &Self, head: [u8; 32]) -> Result<(crate::Fetch, u64)> {
        let mut fetch = self.mount().fetch(head)?;
        let have: Vec<_> = self.mount().head().into_iter().collect();
        fetch.expect_ancestors(&other.mount().ancestry(&head, &have, 1000)?);
        while !fetch.is_complete() {
            let wanted = fetch.wanted(16)?;
            let mut blobs = Vec::new();
            for id in &wanted {
                match other.mount().sealed(id)? {
                    Some(blob) => blobs.push(blob),
                    None => fetch.unavailable(&[*id])?,
                }
            }
            fetch.supply(&blobs)?;
        }
        let blobs = fetch.progress().blobs;
        Ok((fetch, blobs))
    }

    /// As if it were started again: after a clean stop, or after its power was cut.
    fn restart(&mut self, cleanly: bool) {
        if cleanly {
            self.mount().stop().unwrap();
        } else {
            self.disk = self.disk.crash(7);
            self.mount().stop().ok();
        }
        self.start_on(self.disk.clone());
    }

    fn start_on(&mut self, disk: sim::SimDisk) {
        // The bucket is let go with the last clone.
        self.mount = None;
        self.mount = Some(start(&disk, &self.key));
        self.disk = disk;
    }

    fn mount(&self) -> &Mount {
        self.mount.as_ref().expect("it is taken only while another is started")
    }

    fn walk(&self, path: &str) -> Result<Ino> {
        let names = path.split('/').filter(|name| !name.is_empty());
        names
            .into_iter()
            .try_fold(Ino::ROOT, |dir, name| Ok(self.mount().lookup(dir, name.as_bytes())?.ino))
    }

    fn parent<'p>(&self, path: &'p str) -> (Ino, &'p [u8]) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.walk(dir).unwrap(), name.as_bytes())
    }

    fn write(&self, path: &str, text: &str) {
        let (dir, name) = self.parent(path);
        let flags = OpenFlags { truncate: true, ..WRITE };
        let (attr, fh) = self.mount().create(ME, dir, name, 0o644, flags).unwrap();
        self.write_to(attr.ino, fh, 0, text).unwrap();
        self.close(attr.ino, fh);
    }

    fn write_to(&self, ino: Ino, fh: Fh, at: u64, text: &str) -> Result<()> {
        let (tell, told) = crossbeam_channel::bounded(1);
        let done = Box::new(move |result| tell.send(result).unwrap());
        self.mount().write(ino, fh, at, text.as_bytes(), false, done);
        told.recv().unwrap().map(drop)
    }

    fn close(&self, ino: Ino, fh: Fh) {
        let (tell, told) = crossbeam_channel::bounded(1);
        self.mount().flush(ino, fh, Box::new(move |result| tell.send(result).unwrap()));
        told.recv().unwrap().unwrap();
        self.mount().release(ino, fh, Box::new(|_| ()));
    }

    fn mkdir(&self, path: &str) {
        let (dir, name) = self.parent(path);
        self.mount().mkdir(ME, dir, name, 0o755).unwrap();
    }

    fn unlink(&self, path: &str) {
        let (dir, name) = self.parent(path);
        self.mount().unlink(dir, name).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        let ((dir, name), (new_dir, new_name)) = (self.parent(from), self.parent(to));
        self.mount().rename(dir, name, new_dir, new_name, RenameMode::Replace).unwrap();
    }

    fn open(&self, path: &str, flags: OpenFlags) -> (Ino, Fh) {
        let ino = self.walk(path).unwrap();
        (ino, self.mount().open(ino, flags).unwrap())
    }

    fn read_from(&self, ino: Ino, fh: Fh) -> String {
        String::from_utf8(self.mount().read(ino, fh, 0, 1 << 20).unwrap()).unwrap()
    }

    /// Every path with its content, directories with a slash.
    fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![(String::new(), Ino::ROOT)];
        while let Some((path, ino)) = dirs.pop() {
            let fh = self.mount().opendir(ino).unwrap();
            let mut entries = Vec::new();
            self.mount()
                .readdir(ino, fh, 2, true, &mut |entry| {
                    entries.push(entry);
                    true
                })
                .unwrap();
            for entry in entries {
                let path = format!("{path}{}", String::from_utf8_lossy(&entry.name));
                if entry.kind == Kind::Dir {
                    found.push(format!("{path}/"));
                    dirs.push((format!("{path}/"), entry.ino));
                } else {
                    let fh = self.mount().open(entry.ino, READ).unwrap();
                    found.push(format!("{path}={}", self.read_from(entry.ino, fh)));
                    self.mount().release(entry.ino, fh, Box::new(|_| ()));
                }
            }
        }
        found.sort();
        found
    }

    /// The paths in the root that begin with `prefix`.
    fn names(&self, prefix: &str) -> Vec<String> {
        let tree = self.tree().into_iter();
        let names = tree.filter_map(|line| Some(line.split_once('=')?.0.to_owned()));
        names.filter(|name| name.starts_with(prefix)).collect()
    }
}

/// Pulls both ways until nobody learns anything.
fn sync(a: &Peer, b: &Peer) {
    for _ in 0..4 {
        let steps = (a.pull(b).unwrap(), b.pull(a).unwrap());
        if steps == (MergeStep::Nothing, MergeStep::Nothing) {
            assert_eq!(a.tree(), b.tree());
            return;
        }
    }
    panic!("no rest after four rounds");
}

fn two() -> (Peer, Peer) {
    let a = Peer::first();
    a.write("old", "0");
    let b = a.invite(Role::Writer);
    (a, b)
}

#[test]
fn two_files_of_one_name_both_stand_and_survive_restarts() {
    let (mut a, mut b) = two();
    a.write("test.txt", "local content");
    b.write("test.txt", "remote content");
    sync(&a, &b);
    let names = a.names("test.txt");
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].starts_with("test.txt@") && names[1].len() == "test.txt@".len() + 8);
    let before = a.tree();
    assert!(before.iter().any(|line| line.ends_with("=local content")));
    assert!(before.iter().any(|line| line.ends_with("=remote content")));
    a.restart(true);
    b.restart(false);
    assert_eq!((a.tree(), b.tree()), (before.clone(), before));
    assert_eq!(a.mount().conflicts(None).unwrap(), {
        let mut theirs = b.mount().conflicts(None).unwrap();
        theirs.iter_mut().flat_map(|it| &mut it.sides).for_each(|side| side.ours = !side.ours);
        theirs
    });
    sync(&a, &b);
}

#[test]
fn edits_moves_and_removals_meet() {
    let (a, b) = two();
    a.mkdir("d");
    a.write("d/f", "1");
    a.write("gone", "x");
    sync(&a, &b);
    a.rename("d", "e");
    a.unlink("gone");
    b.write("d/f", "2");
    b.write("d/new", "3");
    sync(&a, &b);
    assert_eq!(a.tree(), ["e/", "e/f=2", "e/new=3", "old=0"]);
}

#[test]
fn unsaved_bytes_in_an_open_file_are_merged_and_not_lost() {
    let (a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    a.write_to(ino, fh, 0, "mine").unwrap();
    b.write("old", "theirs");
    a.pull(&b).unwrap();
    a.write_to(ino, fh, 4, " and more").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    let tree = a.tree();
    assert!(tree.iter().any(|line| line.ends_with("=mine and more")), "{tree:?}");
    assert!(tree.iter().any(|line| line.ends_with("=theirs")), "{tree:?}");
}

#[test]
fn an_open_handle_keeps_the_bytes_it_was_opened_on() {
    let (a, b) = two();
    let heard = Arc::new(Heard::default());
    a.mount().observe(Arc::clone(&heard) as Arc<dyn Observer>);
    let (ino, fh) = a.open("old", READ);
    b.write("old", "changed elsewhere");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    assert_eq!(a.read_from(ino, fh), "0", "the handle");
    let name = Outdated::Name { dir: Ino::ROOT, name: b"old".to_vec() };
    assert!(heard.0.lock().contains(&name), "the kernel goes on showing what was opened");
    let (now, fresh) = a.open("old", READ);
    assert_eq!(a.read_from(now, fresh), "changed elsewhere", "the name");
    assert_ne!(ino, now, "pages of one must not be mixed with those of the other");
}

#[test]
fn a_write_through_a_handle_on_replaced_bytes_becomes_a_version_of_its_own() {
    let (mut a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    b.write("old", "theirs");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    a.write_to(ino, fh, 0, "from the past").unwrap();
    assert_eq!(a.read_from(ino, fh), "from the past");
    a.close(ino, fh);
    a.restart(false);
    sync(&a, &b);
    let tree = b.tree();
    assert_eq!(tree.len(), 2, "{tree:?}");
    assert!(tree.contains(&"old=from the past".to_owned()), "{tree:?}");
    assert!(tree[1].starts_with("old@") && tree[1].ends_with("=theirs"), "{tree:?}");
    assert_eq!(a.mount().conflicts(None).unwrap().len(), 1);
}

#[test]
fn a_write_through_a_handle_on_a_removed_file_brings_it_back() {
    let (a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    b.unlink("old");
    a.pull(&b).unwrap();
    assert_eq!(a.tree(), Vec::<String>::new());
    a.write_to(ino, fh, 1, " and on").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    assert_eq!(b.tree(), ["old=0 and on"]);
}

#[test]
fn a_handle_follows_its_bytes_to_the_conflict_copy() {
    let (a, b) = two();
    a.write("test", "a");
    let (ino, fh) = a.open("test", WRITE);
    // The later operation has the name.
    b.write("other", "1");
    b.mount().publish().unwrap();
    b.write("test", "b");
    a.pull(&b).unwrap();
    assert_eq!(a.read_from(ino, fh), "a");
    a.write_to(ino, fh, 1, "!").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    let tree = b.tree();
    assert!(tree.iter().any(|line| line == "test=b"), "{tree:?}");
    assert!(tree.iter().any(|line| line.starts_with("test@") && line.ends_with("=a!")), "{tree:?}");
}

#[test]
fn a_fetch_brings_only_what_is_lacking_and_goes_on_where_it_was_cut() {
    let (a, b) = two();
    for n in 0..300 {
        a.write(&format!("file-{n}"), &format!("{n:0>3000}"));
    }
    sync(&a, &b);
    a.write("file-7", "changed");
    a.mount().publish().unwrap();
    let head = a.mount().head().unwrap();
    let (fetch, blobs) = b.fetch(&a, head).unwrap();
    assert!(blobs < 20, "{blobs} blobs for one small change");
    drop(fetch);
    let (fetch, again) = b.fetch(&a, head).unwrap();
    assert_eq!(again, 0, "everything was kept");
    b.mount().merge_from(fetch).unwrap();
    assert_eq!(a.tree(), b.tree());
}

#[test]
fn many_versions_behind_is_one_fetch() {
    let (a, b) = two();
    for n in 0..20 {
        a.write("old", &format!("version {n}"));
        a.mount().publish().unwrap();
    }
    assert_eq!(b.pull(&a).unwrap(), MergeStep::FastForward);
    assert_eq!(a.tree(), b.tree());
}

#[test]
fn the_log_holds_the_versions_of_all_devices_each_once() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("y", "b");
    sync(&a, &b);
    a.write("z", "a");
    sync(&a, &b);
    let log = a.mount().log(None, 100, 100).unwrap();
    let ids: std::collections::BTreeSet<_> = log.iter().map(|version| version.id).collect();
    assert_eq!(ids.len(), log.len());
    let changed = |name: &str| {
        log.iter()
            .filter(|version| version.changes.iter().any(|change| change.path == name.as_bytes()))
            .count()
    };
    assert_eq!((changed("x"), changed("z")), (1, 1));
    assert_eq!(log.iter().filter(|version| version.parents.len() == 2).count(), 1);
    let authors: std::collections::BTreeSet<_> = log.iter().map(|it| it.author).collect();
    assert_eq!(authors.len(), 2);
    let mut damage = Vec::new();
    let mut found =
        |path: Option<&[u8]>, what: &str| damage.push((path.map(<[u8]>::to_vec), what.to_owned()));
    b.mount().check(&mut |_, _| (), &mut found).unwrap();
    assert!(damage.is_empty(), "{damage:?}");
}

#[test]
fn a_chain_of_devices_agrees() {
    let (a, b) = two();
    let c = a.invite(Role::Writer);
    b.pull(&a).unwrap();
    a.write("x", "a");
    c.write("x", "c");
    for _ in 0..3 {
        b.pull(&a).unwrap();
        c.pull(&b).unwrap();
        b.pull(&c).unwrap();
        a.pull(&b).unwrap();
    }
    assert_eq!((a.tree(), b.tree()), (b.tree(), c.tree()));
    assert_eq!(a.names("x").len(), 2);
}

#[test]
fn merging_the_same_from_both_sides_needs_no_third_version() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    a.mount().publish().unwrap();
    b.mount().publish().unwrap();
    let (head_a, head_b) = (a.mount().head().unwrap(), b.mount().head().unwrap());
    let (for_a, for_b) = (a.fetch(&b, head_b).unwrap().0, b.fetch(&a, head_a).unwrap().0);
    assert_eq!(a.mount().merge_from(for_a).unwrap().step, MergeStep::Merged);
    assert_eq!(b.mount().merge_from(for_b).unwrap().step, MergeStep::Merged);
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Nothing, "what both know is equal");
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Nothing);
    assert_eq!(a.tree(), b.tree());
}

/// Remembers what the kernel would be told.
#[derive(Default)]
struct Heard(Mutex<Vec<Outdated>>);

impl Observer for Heard {
    fn outdated(&self, what: Vec<Outdated>) {
        self.0.lock().extend(what);
    }
}

#[test]
fn the_kernel_is_told_of_every_name_and_inode_that_a_merge_changes() {
    let (a, b) = two();
    let heard = Arc::new(Heard::default());
    a.mount().observe(Arc::clone(&heard) as Arc<dyn Observer>);
    let old = a.walk("old").unwrap();
    b.write("old", "1");
    b.write("new", "2");
    a.pull(&b).unwrap();
    let told = heard.0.lock().clone();
    let name = |name: &str| Outdated::Name { dir: Ino::ROOT, name: name.into() };
    assert!(told.contains(&Outdated::Inode(old)), "{told:?}");
    assert!(told.contains(&name("new")), "{told:?}");
    heard.0.lock().clear();
    b.unlink("new");
    a.write("twice", "a");
    b.write("twice", "b");
    a.pull(&b).unwrap();
    let told = heard.0.lock().clone();
    let gone = |it: &Outdated| matches!(it, Outdated::Gone { name, .. } if name == b"new");
    assert!(told.iter().any(gone), "{told:?}");
    for copy in a.names("twice") {
        assert!(told.contains(&name(&copy)), "{copy} in {told:?}");
    }
}

#[test]
fn conflicts_are_settled_on_all_devices() {
    for (keep, expected) in
        [(Keep::Ours, vec!["x=a"]), (Keep::Theirs, vec!["x=b"]), (Keep::Shown, vec!["x=b"])]
    {
        let (a, b) = two();
        a.unlink("old");
        sync(&a, &b);
        a.write("x", "a");
        b.write("pad", "1");
        b.mount().publish().unwrap();
        b.unlink("pad");
        b.write("x", "b");
        sync(&a, &b);
        let found = a.mount().conflicts(Some(b"x")).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].sides.len(), 2, "{found:?}");
        assert_eq!(found[0].sides.iter().filter(|side| side.ours).count(), 1);
        a.mount().resolve(b"x", &keep).unwrap();
        sync(&a, &b);
        assert_eq!(b.tree(), expected, "{keep:?}");
        assert!(b.mount().conflicts(None).unwrap().is_empty());
    }
}

#[test]
fn keeping_both_makes_two_files_of_a_conflict() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    sync(&a, &b);
    let names = a.names("x");
    a.mount().resolve(names[1].as_bytes(), &Keep::Both).unwrap();
    sync(&a, &b);
    assert_eq!(b.names("x"), names);
    assert!(b.mount().conflicts(None).unwrap().is_empty());
    assert!(matches!(a.mount().resolve(b"x", &Keep::Both), Err(Error::NotFound)));
}

#[test]
fn the_strategy_travels_and_decides() {
    let (a, b) = two();
    let rules = vec![("*.txt".to_owned(), Strategy::MergeText)];
    let settings = Settings { strategy: Strategy::LastWriteWins, rules };
    assert!(matches!(b.mount().set_settings(settings.clone()), Err(Error::NotPermitted)));
    a.mount().set_settings(settings.clone()).unwrap();
    a.write("notes.txt", "one\ntwo\nthree\nfour\nfive\n");
    sync(&a, &b);
    assert_eq!(b.mount().settings(), settings);
    a.write("x", "a");
    a.write("notes.txt", "ONE\ntwo\nthree\nfour\nfive\n");
    b.write("x", "b");
    b.write("notes.txt", "one\ntwo\nthree\nfour\nFIVE\n");
    sync(&a, &b);
    let tree = a.tree();
    assert!(tree.contains(&"notes.txt=ONE\ntwo\nthree\nfour\nFIVE\n".to_owned()), "{tree:?}");
    assert_eq!(a.names("x").len(), 1, "{tree:?}");
    assert!(a.mount().conflicts(None).unwrap().is_empty());
}

#[test]
fn a_reader_reads_and_cannot_write() {
    let a = Peer::first();
    let b = a.invite(Role::Reader);
    assert!(matches!(b.mount().mkdir(ME, Ino::ROOT, b"d", 0o755), Err(Error::ReadOnly { .. })));
    a.write("x", "1");
    b.pull(&a).unwrap();
    assert_eq!(a.tree(), b.tree());
    a.mount().set_member(b.key.public(), "b", Some(Role::Writer)).unwrap();
    b.pull(&a).unwrap();
    b.mkdir("d");
}

#[test]
fn who_is_removed_cannot_read_what_is_new_and_the_others_learn_the_secret() {
    let (a, b) = two();
    let c = a.invite(Role::Writer);
    a.mount().set_member(b.key.public(), "", None).unwrap();
    a.write("new", "secret");
    a.mount().publish().unwrap();
    let head = a.mount().head().unwrap();
    assert!(matches!(b.fetch(&a, head), Err(Error::MissingSecret { .. })));
    assert!(matches!(c.fetch(&a, head), Err(Error::MissingSecret { .. })));
    c.mount().learn_secrets(a.mount().secrets(&c.mount().epochs())).unwrap();
    c.pull(&a).unwrap();
    assert_eq!(a.tree(), c.tree());
    assert_eq!(c.mount().members().len(), 2);
}

#[test]
fn what_strangers_and_readers_publish_is_rejected() {
    let (a, b) = two();
    // Removed here, and not knowing of it there.
    b.write("x", "1");
    let c = a.invite(Role::Reader);
    let mut charter = c.mount().members();
    charter.retain(|member| member.key == c.key.public());
    assert_eq!(charter[0].role, Role::Reader);
    let stranger = Peer::first();
    stranger.write("evil", "x");
    stranger.mount().publish().unwrap();
    let result = a.pull(&stranger);
    assert!(matches!(result, Err(Error::Rejected { .. })), "{result:?}");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
}

#[test]
fn a_device_put_back_to_an_older_state_loses_nothing() {
    let (a, mut b) = two();
    b.write("one", "1");
    b.mount().publish().unwrap();
    b.mount().stop().unwrap();
    let backup = b.disk.crash(1);
    b.start_on(b.disk.clone());
    b.write("two", "2");
    sync(&a, &b);
    b.mount().stop().unwrap();
    b.start_on(backup);
    b.write("three", "3");
    b.mkdir("d");
    b.write("d/four", "4");
    b.write("old", "changed here");
    a.write("old", "changed there");
    // Its peer knows more of it than it does itself, and waits for it to put that right.
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Nothing);
    sync(&b, &a);
    let tree = a.tree();
    for line in ["one=1", "two=2", "three=3", "d/four=4"] {
        assert!(tree.contains(&line.to_owned()), "{line} in {tree:?}");
    }
    assert_eq!(a.names("old").len(), 2, "{tree:?}");
    b.restart(false);
    b.write("five", "5");
    sync(&a, &b);
    assert_eq!(a.mount().conflicts(None).unwrap().len(), 1);
}

#[test]
fn changes_made_while_others_merge_are_kept() {
    let (a, b) = two();
    for n in 0..30 {
        b.write(&format!("b{n}"), "b");
    }
    b.mount().publish().unwrap();
    let head = b.mount().head().unwrap();
    let (fetch, _) = a.fetch(&b, head).unwrap();
    let writer = a.mount().clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200 {
                let name = format!("a{n}");
                writer.mkdir(ME, Ino::ROOT, name.as_bytes(), 0o755).unwrap();
            }
        });
        a.mount().merge_from(fetch).unwrap();
    });
    sync(&a, &b);
    assert_eq!(b.tree().len(), 231);
}

#[test]
fn a_power_cut_in_a_merge_loses_nothing_and_the_next_merge_completes() {
    let mut cut_in_merges = 0;
    for calls in 1..40 {
        let (mut a, b) = two();
        a.write("mine", "saved here");
        b.write("theirs", "made there");
        b.write("old", "changed there");
        a.write("both", "a");
        b.write("both", "b");
        b.mount().publish().unwrap();
        let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
        a.disk.inject(sim::Fault::PowerOff { after_calls: calls });
        let merged = a.mount().merge_from(fetch);
        cut_in_merges += u32::from(merged.is_err());
        a.restart(false);
        let tree = a.tree();
        assert!(tree.contains(&"mine=saved here".to_owned()), "cut after {calls}: {tree:?}");
        assert!(tree.iter().any(|line| line.starts_with("both") && line.ends_with("=a")));
        if merged.is_ok() {
            assert!(tree.contains(&"theirs=made there".to_owned()), "cut after {calls}: {tree:?}");
        }
        sync(&a, &b);
        let tree = b.tree();
        assert_eq!(tree.len(), 5, "cut after {calls}: {tree:?}");
        if merged.is_ok() {
            break;
        }
    }
    assert!(cut_in_merges >= 3, "{cut_in_merges} merges were cut");
}
