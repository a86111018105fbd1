//! What a member forges is not merged into a real bucket, over real sockets: tree and version stay,
//! the reason is told, and an honest peer is served meanwhile.

use cairnfs_merge::{DeviceId, OpId};
use cairnfs_mount_core::BucketId;
use cairnfs_store::{BlobId, BlobRef, Kind, map::Root};

use super::{
    forger::{Body, Forger, device_id},
    mounts::Device,
    *,
};

/// Three devices that share a bucket and have all that is in it.
struct Scene {
    victim: Device,
    honest: Device,
    hostile: Device,
}

impl Scene {
    fn new(hostile: Role) -> Self {
        let victim = Device::owner();
        let honest = Device::invited_by(&victim, Role::Writer);
        let hostile = Device::invited_by(&victim, hostile);
        victim.write("before", b"of all three");
        let scene = Self { victim, honest, hostile };
        scene.all_have("before");
        scene
    }

    fn all_have(&self, name: &str) {
        let all = [&self.victim, &self.honest, &self.hostile];
        eventually("all stand on one version", || {
            let head = self.victim.mount.head();
            all.iter().all(|it| it.names().iter().any(|it| it == name) && it.mount.head() == head)
        });
    }

    /// The hostile device writes a file that nobody gets, and lies from there on.
    fn forger(&self) -> Forger {
        self.hostile.peer.net.withdraw(&name());
        let nth = self.hostile.names().len();
        let noise = blake3::Hasher::new().update(&nth.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; 100_000];
        { noise }.fill(&mut bytes);
        self.hostile.write(&format!("evil {nth}"), &bytes);
        self.hostile.mount.publish().unwrap();
        Forger::of(&self.hostile.mount)
    }

    /// As [`Self::forger`], with a version that says something else.
    fn version(&self, change: impl FnOnce(&mut Body)) -> Forger {
        self.forger().version(&self.hostile.peer.device, change)
    }

    fn error_of_hostile(&self) -> Option<(String, cairnfs_mount_core::Time)> {
        let peers = self.victim.peer.net.peers();
        let it = peers.into_iter().find(|peer| peer.key == self.hostile.peer.key());
        it.and_then(|it| it.last_error)
    }

    #[track_caller]
    fn rejects(&self, forger: Forger, says: &str) {
        let seen = || (self.victim.mount.head(), self.victim.names());
        let (before, error) = (seen(), self.error_of_hostile());
        forger.serve(&self.hostile.peer);
        let is_told = |now: &Option<(String, _)>| {
            *now != error && now.as_ref().is_some_and(|(why, _)| why.contains("was rejected"))
        };
        eventually("the reason is told", || is_told(&self.error_of_hostile()));
        let (why, _) = self.error_of_hostile().unwrap();
        assert!(why.contains(says), "{why}");
        assert_eq!(seen(), before);
        // While the liar is still there.
        let count = before.1.len();
        let (here, there) = (format!("here {count}"), format!("there {count}"));
        self.victim.write(&here, b"x");
        self.honest.gets(&here, b"x");
        self.honest.write(&there, b"y");
        self.victim.gets(&there, b"y");
        for device in [&self.victim, &self.honest] {
            assert_eq!(device.read("before").unwrap(), b"of all three");
            assert!(device.names().iter().all(|it| !it.starts_with("evil")));
        }
    }
}

#[test]
fn a_version_that_its_author_did_not_sign_is_rejected() {
    let scene = Scene::new(Role::Writer);
    let victim = scene.victim.peer.key();
    let forger = scene.version(|body| body.author = victim);
    scene.rejects(forger, "not signed by its author");
}

#[test]
fn a_version_that_knows_what_its_author_cannot_know_is_rejected() {
    let scene = Scene::new(Role::Owner);
    let (victim, hostile) = (scene.victim.peer.key(), scene.hostile.peer.key());
    // What the victim does next would look as if it had been removed.
    let of_device = |device: DeviceId, ahead: u64| {
        move |body: &mut Body| {
            let lamport = body.vv.get(&device) + ahead;
            body.vv.learn(&OpId { lamport, device });
        }
    };
    let forger = scene.version(of_device(device_id(&victim), 100));
    scene.rejects(forger, &format!("knowledge of device {} is forged", device_id(&victim)));
    let nobody = DeviceId([9; 16]);
    let forger = scene.version(of_device(nobody, 1));
    scene.rejects(forger, &format!("knowledge of device {nobody} is forged"));
    let forger = scene.version(of_device(device_id(&hostile), 1000));
    scene.rejects(forger, "does not follow from its parents");
}

#[test]
fn a_version_that_knows_it_from_what_is_not_there_is_rejected() {
    let scene = Scene::new(Role::Writer);
    let device = device_id(&scene.victim.peer.key());
    let forger = scene.version(|body| {
        body.parents = vec![BlobId([7; 32])];
        let lamport = body.vv.get(&device) + 100;
        body.vv.learn(&OpId { lamport, device });
    });
    scene.rejects(forger, "neither that nor what it follows from is here");
}

#[test]
fn a_version_of_another_bucket_is_rejected() {
    let scene = Scene::new(Role::Writer);
    let forger = scene.version(|body| body.bucket = BucketId([7; 16]));
    scene.rejects(forger, "a version of another bucket");
}

#[test]
fn a_version_of_a_reader_is_rejected() {
    let scene = Scene::new(Role::Reader);
    let Device { peer, mount } = &scene.hostile;
    let head = mount.head().unwrap();
    let forger =
        Forger::of(mount).version(&peer.device, |body| body.remove_all(&peer.device, head));
    scene.rejects(forger, "its author may only read");
}

/// What is kept of secrets goes into the key file, whoever published what is sealed under them.
#[test]
fn a_reader_that_makes_secrets_up_has_only_the_one_kept_that_opens_what_it_gives() {
    const EPOCH: u16 = u16::MAX;
    let many: Vec<_> = (1..=EPOCH).map(|epoch| (epoch, [7; 32])).collect();
    let with_true_one = [&many[..], &[(EPOCH, [8; 32])]].concat();
    let cases = [
        (many, "a secret that the peer does not give", 0),
        (with_true_one, "its author may only read", 1),
    ];
    for (given, says, kept) in cases {
        let scene = Scene::new(Role::Reader);
        let Device { peer, mount } = &scene.hostile;
        let (head, known) = (mount.head().unwrap(), scene.victim.mount.epochs());
        let forger = Forger::of(mount).giving(given).sealing_under(EPOCH, [8; 32]);
        let forger = forger.version(&peer.device, |body| body.follow(&peer.device, head));
        scene.rejects(forger, says);
        assert_eq!(scene.victim.mount.epochs().len(), known.len() + kept);
        let victim = Device::open(scene.victim.close());
        assert_eq!(victim.read("before").unwrap(), b"of all three");
    }
}

#[test]
fn a_version_of_a_removed_member_or_a_stranger_is_rejected_whoever_brings_it() {
    let scene = Scene::new(Role::Writer);
    let removed = DeviceKey::generate().unwrap();
    for role in [Some(Role::Owner), None] {
        scene.victim.mount.set_member(removed.public(), "removed", role).unwrap();
    }
    scene.victim.write("after it was removed", b"");
    scene.all_have("after it was removed");
    for author in [&removed, &DeviceKey::generate().unwrap()] {
        // What the others wrote is not merged meanwhile.
        scene.hostile.peer.net.withdraw(&name());
        let head = scene.hostile.mount.head().unwrap();
        let forger = Forger::of(&scene.hostile.mount);
        let forger = forger.version(author, |body| body.remove_all(author, head));
        scene.rejects(forger, "its author is no member");
    }
}

/// One byte of the ciphertext is another one.
fn spoil(mut record: Vec<u8>) -> Vec<u8> {
    let at = record.len() - 20;
    record[at] ^= 1;
    record
}

/// The record ends early.
fn truncate(mut record: Vec<u8>) -> Vec<u8> {
    record.truncate(record.len() - 1);
    record
}

/// A record whose header agrees with itself, of a content that is longer by a byte than the one that
/// is referred to.
fn lengthen(mut record: Vec<u8>) -> Vec<u8> {
    let is_compressed = record[9] & 2 != 0;
    let mut add_one = |at: usize| {
        let field: &mut [u8; 4] = (&mut record[at..at + 4]).try_into().unwrap();
        *field = (u32::from_le_bytes(*field) + 1).to_le_bytes();
    };
    add_one(12);
    if !is_compressed {
        add_one(4);
        record.push(0);
    }
    let check = blake3::hash(&record[..60]);
    record[60..68].copy_from_slice(&check.as_bytes()[..8]);
    record
}

/// The name of something else.
fn rename(mut record: Vec<u8>) -> Vec<u8> {
    record[16] ^= 1;
    let check = blake3::hash(&record[..60]);
    record[60..68].copy_from_slice(&check.as_bytes()[..8]);
    record
}

#[test]
fn blobs_that_are_not_what_was_asked_for_are_rejected() {
    let scene = Scene::new(Role::Writer);
    for kind in [Kind::Manifest, Kind::Node, Kind::Chunk] {
        let forger = || scene.forger();
        scene.rejects(forger().altering(kind, spoil), "is not what its name says");
        scene.rejects(forger().altering(kind, truncate), "no intact record");
        scene.rejects(forger().altering(kind, rename), "was not asked for");
    }
}

#[test]
fn blobs_of_another_length_than_the_one_referred_to_are_rejected() {
    let scene = Scene::new(Role::Writer);
    for kind in [Kind::Node, Kind::Chunk] {
        scene.rejects(scene.forger().altering(kind, lengthen), "of another length");
    }
    // The reference is the lie, and the blob is what it is.
    let forger = scene.version(|body| {
        let root = body.root.0.unwrap();
        body.root = Root(Some(BlobRef { len: root.len + 1, ..root }));
    });
    scene.rejects(forger, "of another length");
}
