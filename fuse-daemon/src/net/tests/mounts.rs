//! Real buckets, over real sockets, in one process.

use cairnfs_mount_core::{
    Bucket, Caller, Ino, Kind, Mount, OpenFlags, Options, Protection, SavePolicy, Unlock,
};
use crossbeam_channel::bounded;

use super::{
    forger::{Forger, Hold},
    *,
};
use crate::net::JoinProgress;

const ME: Caller = Caller { uid: 0, gid: 0 };
const WRITE: OpenFlags = OpenFlags { sync: false, truncate: true, write: true, exclusive: false };
const READ: OpenFlags = OpenFlags { truncate: false, write: false, ..WRITE };

/// A device with a bucket that is open and offered.
pub(super) struct Device {
    pub(super) peer: Peer,
    pub(super) mount: Mount,
}

impl Device {
    /// A device that made the bucket.
    pub(super) fn owner() -> Self {
        let peer = Peer::new();
        let dir = home(&peer).bucket_dir(&name());
        Bucket::create(&dir, &peer.device, Protection::KeyFile).unwrap();
        Self::open(peer)
    }

    /// A device that joins what `inviter` has.
    pub(super) fn invited_by(inviter: &Self, role: Role) -> Self {
        let ticket = inviter.ticket(role);
        let peer = Peer::new();
        let go_on = &mut |_: JoinProgress| true;
        let joining = peer.net.join(&ticket, go_on).unwrap();
        let dir = home(&peer).bucket_dir(&name());
        peer.net.finish_join(joining, (&name(), &dir), Protection::KeyFile, go_on).unwrap();
        Self::open(peer)
    }

    /// A ticket for one device.
    fn ticket(&self, role: Role) -> String {
        let hour = Duration::from_secs(3600);
        self.peer.net.invite(&name(), role, hour, 1).unwrap().ticket
    }

    pub(super) fn open(peer: Peer) -> Self {
        let dir = home(&peer).bucket_dir(&name());
        let bucket = Bucket::open(&dir, Arc::clone(&peer.device), Unlock::KeyFile).unwrap();
        let options = Options {
            policy: SavePolicy::Flush,
            publish_quiet: Duration::from_millis(20),
            ..Options::default()
        };
        let mount = Mount::start(bucket, options).unwrap();
        peer.net.serve(&name(), &mount);
        Self { peer, mount }
    }

    /// As when it is unmounted and mounted again.
    pub(super) fn close(self) -> Peer {
        self.peer.net.withdraw(&name());
        self.mount.stop().unwrap();
        self.peer
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        let (attr, fh) = self.mount.create(ME, Ino::ROOT, name.as_bytes(), 0o644, WRITE).unwrap();
        for (index, part) in bytes.chunks(1 << 20).enumerate() {
            let (tell, told) = bounded(1);
            let done = Box::new(move |result| tell.send(result).unwrap());
            self.mount.write(attr.ino, fh, (index as u64) << 20, part, false, done);
            told.recv().unwrap().unwrap();
        }
        let (tell, told) = bounded(1);
        self.mount.flush(attr.ino, fh, Box::new(move |result| tell.send(result).unwrap()));
        told.recv().unwrap().unwrap();
        self.mount.release(attr.ino, fh, Box::new(|_| ()));
    }

    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let attr = self.mount.lookup(Ino::ROOT, name.as_bytes()).ok()?;
        let fh = self.mount.open(attr.ino, READ).ok()?;
        let mut bytes = Vec::new();
        loop {
            let part = self.mount.read(fh, bytes.len() as u64, 1 << 20).unwrap();
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
        self.mount.release(attr.ino, fh, Box::new(|_| ()));
        Some(bytes)
    }

    pub(super) fn names(&self) -> Vec<String> {
        let fh = self.mount.opendir(Ino::ROOT).unwrap();
        let mut names = Vec::new();
        let mut take = |entry: cairnfs_mount_core::DirEntry| {
            if entry.kind != Kind::Dir {
                names.push(String::from_utf8(entry.name).unwrap());
            }
            true
        };
        self.mount.readdir(Ino::ROOT, fh, 0, false, &mut take).unwrap();
        self.mount.releasedir(fh);
        names.sort();
        names
    }

    #[track_caller]
    pub(super) fn gets(&self, name: &str, bytes: &[u8]) {
        eventually(name, || self.read(name).as_deref() == Some(bytes));
    }
}

fn home(peer: &Peer) -> Home {
    Home::locate(Some(peer.dir.path())).unwrap()
}

#[test]
fn of_two_that_join_a_bucket_at_one_moment_one_does_and_the_other_uses_up_no_ticket() {
    let inviter = Device::owner();
    let [first, second] = [(); 2].map(|()| inviter.ticket(Role::Writer));
    let peer = Peer::new();
    let go_on = &mut |_: JoinProgress| true;
    let joining = peer.net.join(&first, go_on).unwrap();
    thread::scope(|scope| {
        let (tell, told) = bounded(64);
        let late = scope.spawn(|| {
            peer.net.join(&second, &mut move |progress| {
                // Nobody listens any more once it has begun.
                tell.send(progress).ok();
                true
            })
        });
        assert_eq!(told.recv(), Ok(JoinProgress::Waiting));
        drop(told);
        let dir = home(&peer).bucket_dir(&name());
        peer.net.finish_join(joining, (&name(), &dir), Protection::KeyFile, go_on).unwrap();
        let failure = late.join().unwrap().unwrap_err();
        assert_eq!(failure.message, "the ticket's bucket is here already, as 'shared'");
    });
    let other = Peer::new();
    drop(other.net.join(&second, go_on).unwrap());
    // One that comes to nothing is in nobody's way.
    let again = other.net.join(&second, &mut |progress| progress != JoinProgress::Waiting);
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn what_is_damaged_is_fetched_from_who_has_it() {
    let one = Device::owner();
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    one.write("large", &bytes);
    let other = Device::invited_by(&one, Role::Writer);
    other.gets("large", &bytes);
    let peer = other.close();
    let pack = home(&peer).bucket_dir(&name()).join("packs/00000001.pack");
    let mut rotten = std::fs::read(&pack).unwrap();
    let at = rotten.len() / 2;
    rotten[at] ^= 0x10;
    std::fs::write(&pack, rotten).unwrap();
    let other = Device::open(peer);
    let damages = || {
        let mut damages = 0;
        other.mount.check(&mut |_, _| true, &mut |_, _| damages += 1).unwrap();
        damages
    };
    assert_eq!(damages(), 1);
    let mend = || other.peer.net.mend(&name(), &mut |_| true).unwrap();
    eventually("a peer", || mend().peers > 0);
    assert_eq!((damages(), mend().blobs), (0, 0));
    assert_eq!(other.read("large").unwrap(), bytes);
}

#[test]
fn a_bucket_is_joined_and_changes_go_both_ways() {
    let one = Device::owner();
    one.write("before", b"written before anybody joined");
    let other = Device::invited_by(&one, Role::Writer);
    other.gets("before", b"written before anybody joined");
    other.write("reply", b"from the other");
    one.gets("reply", b"from the other");
    let large: Vec<u8> =
        (0..8_u32 << 20).map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()[0]).collect();
    one.write("large", &large);
    other.gets("large", &large);
    assert_eq!(one.peer.sync().unwrap().peers, 1);
    assert_eq!(other.peer.sync().unwrap().peers, 1);
    assert_eq!(one.names(), other.names());
}

#[test]
fn what_both_wrote_apart_is_kept_on_both() {
    let one = Device::owner();
    let other = Device::invited_by(&one, Role::Writer);
    let peer = other.close();
    one.write("test.txt", b"local content");
    // It is served only after it was written to.
    let dir = home(&peer).bucket_dir(&name());
    let bucket = Bucket::open(&dir, Arc::clone(&peer.device), Unlock::KeyFile).unwrap();
    let mount = Mount::start(bucket, Options::default()).unwrap();
    let other = Device { peer, mount };
    other.write("test.txt", b"remote content");
    other.peer.net.serve(&name(), &other.mount);
    for device in [&one, &other] {
        eventually("both versions are there", || device.names().len() == 2);
    }
    assert_eq!(one.peer.sync().unwrap().peers, 1);
    let names = one.names();
    assert_eq!(names, other.names());
    assert_eq!(names[0], "test.txt");
    assert!(names[1].starts_with("test.txt@") && names[1].len() == 17, "{names:?}");
    for device in [&one, &other] {
        let mut contents = [&names[0], &names[1]].map(|name| device.read(name).unwrap());
        contents.sort();
        assert_eq!(contents, [b"local content".to_vec(), b"remote content".to_vec()]);
    }
}

#[test]
fn a_third_device_gets_all_from_the_second_alone() {
    let one = Device::owner();
    let other = Device::invited_by(&one, Role::Owner);
    one.write("first", b"1");
    other.gets("first", b"1");
    let peer = one.close();
    let third = Device::invited_by(&other, Role::Writer);
    third.write("third", b"3");
    other.gets("third", b"3");
    // Those two have never met.
    let one = Device::open(peer);
    one.gets("third", b"3");
    third.gets("first", b"1");
}

#[test]
fn of_many_versions_as_many_lists_are_asked_for_as_they_fill() {
    let one = Device::owner();
    let other = Device::invited_by(&one, Role::Writer);
    one.write("before", b"x");
    other.gets("before", b"x");
    one.peer.net.withdraw(&name());
    for n in 0..60 {
        one.write(&n.to_string(), b"x");
        one.mount.publish().unwrap();
    }
    // More than sixty, if one was made just as something was written.
    let (head, have) = [&one, &other].map(|it| it.mount.head().unwrap()).into();
    let versions = one.mount.ancestry(&head, &[have], usize::MAX).unwrap().len();
    assert!(versions >= 60);
    // Of two connections that cross one is cut, and the fetch on it begun anew.
    other.peer.net.listener.stop();
    let (lister, lists) = Forger::of(&one.mount).listing(10);
    lister.serve(&one.peer);
    eventually("all arrives", || other.mount.head() == one.mount.head());
    assert_eq!(lists.load(Ordering::Relaxed), versions.div_ceil(10));
}

/// As when two have each removed a device, without knowing of the other's doing so.
#[test]
fn two_secrets_of_one_epoch_are_both_learnt() {
    let one = Device::owner();
    let others = [2, 1].map(|n| (Device::invited_by(&one, Role::Writer), n));
    one.write("before", b"x");
    for (other, _) in &others {
        other.gets("before", b"x");
    }
    for (count, (Device { peer, mount }, n)) in (2..).zip(&others) {
        let head = mount.head().unwrap();
        let sealing = Forger::of(mount).giving(vec![(9, [*n; 32])]).sealing_under(9, [*n; 32]);
        let version = sealing.version(&peer.device, |body| body.follow(&peer.device, head));
        peer.net.withdraw(&name());
        version.serve(peer);
        eventually("the secret is learnt", || one.mount.epochs().len() == count);
    }
    // The key file has both.
    let one = Device::open(one.close());
    assert_eq!(one.mount.epochs(), [0, 9, 9]);
    assert_eq!(one.read("before").unwrap(), b"x");
}

#[test]
fn a_tree_whose_giver_goes_away_midway_comes_from_another_from_there_on() {
    const FILES: u32 = 60;
    const FILE_BYTES: u32 = 400_000;
    let one = Device::owner();
    let other = Device::invited_by(&one, Role::Writer);
    let mut peer = Device::invited_by(&one, Role::Writer).close();
    // Nobody has to make way for another, and so be asked for the same.
    peer.timing.turn = LIMIT;
    peer.restart();
    // It finds both by itself, and neither finds it: of two connections that cross one is cut.
    peer.net.listener.stop();
    peer.knows(&one.peer);
    peer.knows(&other.peer);
    let file = |n: u32| -> Vec<u8> {
        let mut chance = blake3::Hasher::new();
        let mut bytes = vec![0; FILE_BYTES as usize];
        chance.update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    for n in 0..FILES {
        one.write(&n.to_string(), &file(n));
    }
    let has_all = |device: &Device| device.names().len() == FILES as usize;
    eventually("all is there twice", || has_all(&other));
    let once = u64::from(FILES * FILE_BYTES);
    let half = Hold::after(once / 2);
    for device in [&one, &other] {
        device.peer.net.withdraw(&name());
        Forger::of(&device.mount).held_by(&half).serve(&device.peer);
    }
    let third = Device::open(peer);
    let session = |to: PeerKey| third.peer.net.roster.lock().sessions.get(&to).cloned();
    let giver = || {
        let report = third.peer.net.peers().into_iter().find(|it| it.transfer.is_some())?;
        session(report.key)
    };
    let mut first = None;
    eventually("some has come", || {
        first = giver().filter(|giver| giver.received_bytes() > once / 4);
        first.is_some()
    });
    let first = first.unwrap();
    let (gone, stays) = if first.key == one.peer.key() { (&one, &other) } else { (&other, &one) };
    eventually("it has the other one too", || session(stays.peer.key()).is_some());
    // What it still gives nobody gets, nor does it come back before it has ended.
    gone.peer.net.listener.stop();
    gone.peer.net.roster.lock().sessions.values().for_each(|it| it.end(crate::net::Ended::Gone));
    half.release();
    gone.peer.net.stop();
    let midway = first.received_bytes();
    assert!(midway < once * 3 / 4, "it was not midway: {midway} of {once}");
    eventually("all arrives", || has_all(&third));
    for n in 0..FILES {
        assert!(third.read(&n.to_string()).unwrap() == file(n), "file {n}");
    }
    // The names of 60 files, and a message of which a part had come.
    let second = session(stays.peer.key()).unwrap();
    let received = first.received_bytes() + second.received_bytes();
    assert!(received < once + 1_500_000, "{received} bytes came, {once} are needed");
}

#[test]
fn a_removed_device_gets_nothing_new_and_others_go_on() {
    let one = Device::owner();
    let other = Device::invited_by(&one, Role::Writer);
    let third = Device::invited_by(&one, Role::Writer);
    one.write("for all", b"x");
    other.gets("for all", b"x");
    third.gets("for all", b"x");
    one.mount.set_member(other.peer.key(), "", None).unwrap();
    one.write("for two", b"y");
    third.gets("for two", b"y");
    assert_eq!(other.read("for two"), None);
    eventually("it is left alone", || !other.peer.is_connected());
    let told = || other.peer.net.peers().iter().any(|peer| !peer.removed_from.is_empty());
    eventually("it is told", told);
    // What it publishes nobody takes.
    other.write("of the removed", b"z");
    let published = other.mount.publish().unwrap();
    let tries = || {
        let roster = other.peer.net.roster.lock();
        roster.contacts[&one.peer.key()].tries
    };
    let before = tries();
    eventually("it tries again", || tries() > before + 2);
    third.write("still", b"1");
    one.gets("still", b"1");
    for device in [&one, &third] {
        assert_eq!(device.names(), ["for all", "for two", "still"]);
        assert!(!device.mount.covers(&published).unwrap());
    }
}
