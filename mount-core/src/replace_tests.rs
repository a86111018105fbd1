//! Files that are replaced by a rename, as editors save: what a crash, a version and those who have
//! them open find in their place.

use std::{
    collections::VecDeque,
    io::ErrorKind::StorageFull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use cairnfs_store::{
    DeviceKey,
    sim::{Call, Fault, SimDisk},
};
use parking_lot::Mutex;

use crate::{
    Error, Fh, Ino, Kind, Mount, Observer, OpenFlags, Outdated, PastView, RenameMode, Result,
    SetAttr, SetXattr, Time, TimeOrNow, Which,
    file::{Data, File},
    peers::hex,
    random_load::{ME, fresh, mount_on, mount_publishing, save, write_all},
    slow_disk::SlowDisk,
};

const HOUR: Duration = Duration::from_secs(3600);
const WRITE: OpenFlags = OpenFlags { sync: false, truncate: false, write: true, exclusive: false };

fn mount(disk: &SimDisk, device: &Arc<DeviceKey>) -> Mount {
    mount_publishing(disk, device, HOUR, HOUR).unwrap()
}

fn make(mount: &Mount, name: &str) -> Ino {
    mount.mknod(ME, Ino::ROOT, name.as_bytes(), Kind::File, 0o644, 0).unwrap().ino
}

fn write(mount: &Mount, name: &str, content: &[u8]) {
    let ino = make(mount, name);
    write_all(mount, ino, 0, content).unwrap();
}

fn rename(mount: &Mount, from: &str, to: &str) {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    mount.rename(Ino::ROOT, from, Ino::ROOT, to, RenameMode::Replace).unwrap();
}

fn replace(mount: &Mount, name: &str, content: &[u8]) {
    write(mount, "temp", content);
    rename(mount, "temp", name);
}

fn read(mount: &Mount, name: &str) -> Vec<u8> {
    let attr = mount.lookup(Ino::ROOT, name.as_bytes()).unwrap();
    let fh = mount.open(attr.ino, OpenFlags::default()).unwrap();
    let bytes = mount.read(fh, 0, u32::try_from(attr.size).unwrap()).unwrap();
    mount.release(attr.ino, fh, Box::new(|_| ()));
    bytes
}

/// What the version `id` has as `name`, if anything.
fn read_at(mount: &Mount, id: &[u8; 32], name: &str) -> Option<Vec<u8>> {
    let view = PastView::new(mount.past(&Which::Id(hex(id))).unwrap().unwrap());
    let attr = view.lookup(Ino::ROOT, name.as_bytes()).ok()?;
    let fh = view.open(attr.ino).unwrap();
    Some(view.read(fh, 0, u32::try_from(attr.size).unwrap()).unwrap())
}

#[test]
fn a_file_that_was_never_written_to_replaces_one_for_good() {
    let (disk, device, _) = fresh(1);
    let mounted = mount(&disk, &device);
    let set_mode = |ino, mode| {
        let changes = SetAttr { mode: Some(mode), ..SetAttr::default() };
        mounted.setattr(ino, None, changes).unwrap();
    };
    write(&mounted, "f", b"secret");
    set_mode(mounted.lookup(Ino::ROOT, b"f").unwrap().ino, 0o600);
    save(&mounted).unwrap();
    make(&mounted, "t");
    rename(&mounted, "t", "f");
    save(&mounted).unwrap();
    let again = mount(&disk.kill(), &device);
    assert_eq!(read(&again, "f"), b"");
    assert_eq!(again.lookup(Ino::ROOT, b"f").unwrap().mode, 0o644);
    // And what is written to it then is all that it holds.
    replace(&again, "f", b"more");
    assert_eq!(read_at(&again, &again.publish().unwrap(), "f").unwrap(), b"more");
    again.stop().unwrap();
    mounted.stop().unwrap();
}

/// What is to be done on the writer's thread, once it seals what this file held.
type Then = (Arc<File>, Box<dyn FnOnce() + Send>);

/// A bucket in which three files, each changed a little, have to be read from the disk to be sealed:
/// there other things are done meanwhile, one in each round of sealing.
struct Sealing {
    mount: Mount,
    disk: SimDisk,
    device: Arc<DeviceKey>,
    then: Arc<Mutex<VecDeque<Then>>>,
    cold: [(Ino, Fh); 3],
}

impl Sealing {
    fn new() -> Self {
        let (disk, device, mut rng) = fresh(1);
        let mounted = mount(&disk, &device);
        let names = ["cold 0", "cold 1", "cold 2"];
        for name in names {
            write(&mounted, name, &rng.bytes(10_000));
        }
        write(&mounted, "f", b"old");
        mounted.publish().unwrap();
        mounted.stop().unwrap();
        drop(mounted);

        let then = Arc::<Mutex<VecDeque<Then>>>::default();
        let next = Arc::clone(&then);
        let slow = SlowDisk::new(&disk, "writer", Call::Read, move || {
            let mut waiting = next.lock();
            let is_sealed = |(file, _): &Then| !file.lock().is_unsaved();
            let act =
                if waiting.front().is_some_and(is_sealed) { waiting.pop_front() } else { None };
            drop(waiting);
            act.into_iter().for_each(|(_, act)| act());
        });
        let mount = mount_on(slow, &device, HOUR, HOUR).unwrap();
        let cold = names.map(|name| {
            let ino = mount.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
            (ino, mount.open(ino, WRITE).unwrap())
        });
        Self { mount, disk, device, then, cold }
    }

    /// Publishes, while each of `acts` is done in a round of sealing of its own.
    fn publish(&self, acts: [impl FnOnce(&Mount) + Send + 'static; 3]) -> Result<[u8; 32]> {
        let change = |mount: &Mount, (ino, fh): (Ino, Fh)| {
            mount.write(ino, fh, 5_000, b"warm", false, Box::new(|_| ()));
        };
        change(&self.mount, self.cold[0]);
        for (index, act) in acts.into_iter().enumerate() {
            let handle = self.mount.shared().handles.file(self.cold[index].1).unwrap();
            let (mount, next) = (self.mount.clone(), self.cold.get(index + 1).copied());
            let act = move || {
                // So that there is another round.
                next.into_iter().for_each(|next| change(&mount, next));
                act(&mount);
            };
            self.then.lock().push_back((Arc::clone(&handle.file), Box::new(act)));
        }
        let version = self.mount.publish();
        assert!(self.then.lock().is_empty(), "there were fewer rounds");
        version
    }

    /// The live file is `content`, after a kill and in the next version too.
    #[track_caller]
    fn ends_with(self, content: &[u8]) {
        assert!(read(&self.mount, "f") == content);
        let again = mount(&self.disk.kill(), &self.device);
        assert!(read(&again, "f") == content, "after a kill");
        again.stop().unwrap();
        let next = self.mount.publish().unwrap();
        assert_eq!(read_at(&self.mount, &next, "f").unwrap(), content, "in the next version");
        self.mount.stop().unwrap();
    }
}

/// The order in which contents are sealed is another each time.
const ORDERS: usize = 16;

#[test]
fn a_version_made_while_a_file_is_replaced_has_the_old_or_the_new_one() {
    let mut found = Vec::new();
    for _ in 0..ORDERS {
        let sealing = Sealing::new();
        let acts = [b"first", b"again", b"third"];
        let version =
            sealing.publish(acts.map(|content| move |mount: &Mount| replace(mount, "f", content)));
        found.push(read_at(&sealing.mount, &version.unwrap(), "f").unwrap());
        sealing.ends_with(b"third");
    }
    assert!(
        found.iter().all(|it| [&b"old"[..], b"first", b"again"].contains(&&it[..])),
        "{found:?}"
    );
    assert!(found.iter().any(|it| it != b"old"), "what is replaced all the time is kept back");
}

#[test]
fn a_version_has_no_half_of_the_file_that_replaces_another() {
    for _ in 0..ORDERS {
        let sealing = Sealing::new();
        let acts: [fn(&Mount); 3] = [
            |_| (),
            |mount| write(mount, "temp", b"ha"),
            |mount| {
                let ino = mount.lookup(Ino::ROOT, b"temp").unwrap().ino;
                write_all(mount, ino, 2, b"lf").unwrap();
                rename(mount, "temp", "f");
            },
        ];
        let version = sealing.publish(acts).unwrap();
        let found = read_at(&sealing.mount, &version, "f").unwrap();
        assert!([&b"old"[..], b"half"].contains(&&found[..]), "{found:?}");
        sealing.ends_with(b"half");
    }
}

/// One alone is met from the reserve.
const WRITES_FAIL: u64 = 6;

/// What was sealed for a version that fails is not in the log, and must not be named by the tree.
#[test]
fn a_version_that_fails_while_a_file_is_replaced_is_named_nowhere() {
    for _ in 0..ORDERS {
        let sealing = Sealing::new();
        let long = |n: u8| vec![n; 10_000];
        replace(&sealing.mount, "f", &long(0));
        let acts = [1, 2, 3].map(|n| {
            let disk = sealing.disk.clone();
            move |mount: &Mount| {
                replace(mount, "f", &long(n));
                for nth in (1..=WRITES_FAIL).filter(|_| n == 3) {
                    disk.inject(Fault::Fail { call: Call::Write, nth, kind: StorageFull });
                }
            }
        });
        let published = sealing.publish(acts);
        assert!(matches!(published, Err(Error::NoSpace)), "{published:?}");
        {
            let core = sealing.mount.shared().core.read();
            let contents = core.tree.changed_nodes().flat_map(|node| node.contents());
            for (_, content) in contents {
                let Data::Chunk(blob) = &content.body else { continue };
                assert!(sealing.mount.shared().vault.blobs().contains(&blob.id).unwrap());
            }
        }
        let saves = (0..WRITES_FAIL).map(|_| save(&sealing.mount));
        assert!(saves.into_iter().any(|saved| saved.is_ok()), "there is room again");
        sealing.ends_with(&long(3));
    }
}

/// As the `n`th content there is; how long it is says what it holds.
fn numbered(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(usize::try_from(1 + n * 37 % 500).unwrap())
}

fn is_whole(content: &[u8]) -> bool {
    content.first_chunk().is_some_and(|n| numbered(u64::from_le_bytes(*n)) == content)
}

#[test]
fn a_file_that_is_replaced_all_the_time_is_whole_in_every_version() {
    let (disk, device, _) = fresh(1);
    let mounted = mount(&disk, &device);
    let ends = AtomicBool::new(false);
    replace(&mounted, "f", &numbered(0));
    let versions = thread::scope(|scope| {
        let replaces = || {
            for n in (1..).take_while(|_| !ends.load(Ordering::Relaxed)) {
                replace(&mounted, "f", &numbered(n));
            }
        };
        thread::Builder::new().name("replaces".into()).spawn_scoped(scope, replaces).unwrap();
        let versions = (0..40).map(|_| mounted.publish()).collect::<Result<Vec<_>, _>>();
        ends.store(true, Ordering::Relaxed);
        versions
    });
    let versions = versions.unwrap();
    let mut had_temp = false;
    for (index, id) in versions.iter().enumerate() {
        let found = read_at(&mounted, id, "f").unwrap();
        // What a version has seen half of is a file of its own, and is renamed as such.
        assert!(is_whole(&found) || had_temp, "version {index}: {found:?}");
        had_temp = read_at(&mounted, id, "temp").is_some();
    }
    mounted.stop().unwrap();
}

#[test]
fn who_opened_a_replaced_file_by_its_number_keeps_it_when_it_is_replaced_again() {
    let (disk, device, _) = fresh(1);
    let mounted = mount(&disk, &device);
    write(&mounted, "f", b"first");
    let old = mounted.lookup(Ino::ROOT, b"f").unwrap().ino;
    replace(&mounted, "f", b"second");
    // The kernel had looked the name up before that.
    let fh = mounted.open(old, OpenFlags::default()).unwrap();
    replace(&mounted, "f", b"the third of them");
    assert_eq!(mounted.read(fh, 0, 100).unwrap(), b"second");
    assert_eq!(mounted.getattr(old).unwrap().size, 6);
    let changes = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    assert_eq!(mounted.setattr(old, Some(fh), changes).unwrap().mode, 0o600);
    assert_eq!(mounted.lookup(Ino::ROOT, b"f").unwrap().mode, 0o644);
    assert_eq!(mounted.shared().inodes.lock().orphans().len(), 1);
    mounted.release(old, fh, Box::new(|_| ()));
    assert_eq!(mounted.shared().inodes.lock().orphans().len(), 0, "it is let go");
    mounted.stop().unwrap();
}

#[test]
fn a_file_that_replaces_another_has_its_own_attributes_and_time() {
    for published in [true, false] {
        let (disk, device, _) = fresh(1);
        let mounted = mount(&disk, &device);
        write(&mounted, "f", b"old");
        let old = mounted.lookup(Ino::ROOT, b"f").unwrap().ino;
        mounted.setxattr(old, b"user.origin", b"old", SetXattr::Any).unwrap();
        let long_ago = TimeOrNow::At(Time { seconds: 1, nanos: 0 });
        let set = SetAttr { mtime: Some(long_ago), ..SetAttr::default() };
        mounted.setattr(old, None, set).unwrap();
        mounted.publish().unwrap();
        write(&mounted, "temp", b"new");
        if published {
            mounted.publish().unwrap();
        }
        let temp = mounted.lookup(Ino::ROOT, b"temp").unwrap();
        let touch = SetAttr { mtime: Some(TimeOrNow::Now), ..SetAttr::default() };
        mounted.setattr(temp.ino, None, touch).unwrap();
        rename(&mounted, "temp", "f");
        let new = mounted.lookup(Ino::ROOT, b"f").unwrap();
        assert!(mounted.listxattr(new.ino).unwrap().is_empty());
        assert!(new.mtime >= temp.mtime, "{new:?}");
        mounted.stop().unwrap();
    }
}

/// Remembers the inodes that the kernel would be told of.
#[derive(Default)]
struct Heard(Mutex<Vec<Ino>>);

impl Observer for Heard {
    fn outdated(&self, what: Vec<Outdated>) {
        self.0.lock().extend(what.into_iter().filter_map(|it| match it {
            Outdated::Inode(ino) => Some(ino),
            _ => None,
        }));
    }
}

#[test]
fn what_is_changed_by_the_number_of_a_replaced_file_is_told_of_the_one_that_its_name_has() {
    let (disk, device, _) = fresh(1);
    let mounted = mount(&disk, &device);
    write(&mounted, "f", b"old");
    let old = mounted.lookup(Ino::ROOT, b"f").unwrap().ino;
    replace(&mounted, "f", b"new");
    let now = mounted.lookup(Ino::ROOT, b"f").unwrap().ino;
    assert_ne!(old, now);
    let heard = Arc::new(Heard::default());
    mounted.observe(Arc::clone(&heard) as Arc<dyn Observer>);
    let is_told = || std::mem::take(&mut *heard.0.lock()).contains(&now);
    write_all(&mounted, now, 0, b"NEW").unwrap();
    assert!(!is_told(), "the kernel made this change itself");
    write_all(&mounted, old, 3, b"er").unwrap();
    assert!(is_told());
    assert_eq!(read(&mounted, "f"), b"NEWer");
    let set = |set: SetAttr| mounted.setattr(old, None, set).map(drop);
    set(SetAttr { size: Some(2), ..SetAttr::default() }).unwrap();
    assert!(is_told());
    set(SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    assert!(is_told());
    mounted.setxattr(old, b"user.k", b"v", SetXattr::Any).unwrap();
    assert!(is_told());
    mounted.stop().unwrap();
}
