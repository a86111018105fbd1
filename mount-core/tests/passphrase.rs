//! Another passphrase for a bucket's key file, and what is written into that file afterwards.
#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{fs, path::Path, sync::Arc};

use cairnfs_mount_core::{
    Bucket, Error, Mount, Options, Passphrase, Protection, Result, Role, Unlock,
};
use cairnfs_store::{DeviceKey, DevicePublicKey};

const OLD: Passphrase<'_> = Passphrase(b"the old passphrase");
const NEW: Passphrase<'_> = Passphrase(b"the new passphrase");

/// A bucket under [`OLD`] in a directory of its own.
struct Made {
    root: tempfile::TempDir,
    key: Arc<DeviceKey>,
}

impl Made {
    fn new() -> Self {
        let made = Self {
            root: tempfile::tempdir().unwrap(),
            key: Arc::new(DeviceKey::generate().unwrap()),
        };
        Bucket::create(&made.dir(), &made.key, Protection::Passphrase(OLD)).unwrap();
        made
    }

    fn dir(&self) -> std::path::PathBuf {
        self.root.path().join("bucket")
    }

    fn key_file(&self) -> Vec<u8> {
        fs::read(self.dir().join("key")).unwrap()
    }

    fn start(&self, unlock: Unlock<'_>) -> Mount {
        let bucket = Bucket::open(&self.dir(), Arc::clone(&self.key), unlock).unwrap();
        Mount::start(bucket, Options::default()).unwrap()
    }

    fn opens(&self, passphrase: Passphrase<'_>) -> bool {
        match Bucket::try_key(&self.dir(), Unlock::Passphrase(passphrase)) {
            Ok(()) => true,
            Err(Error::WrongPassphrase) => false,
            Err(err) => panic!("{err}"),
        }
    }
}

/// Removes a member, so that there is a secret more.
fn change_secret(mount: &Mount) {
    let before = mount.epochs().len();
    for role in [Some(Role::Reader), None] {
        mount.set_member(DevicePublicKey([7; 32]), "", role).unwrap();
    }
    assert_eq!(mount.epochs().len(), before + 1);
}

fn change(mount: &Mount, dir: &Path, present: Passphrase<'_>, new: Protection<'_>) -> Result<()> {
    mount.change_passphrase(dir, Unlock::Passphrase(present), new)
}

#[test]
fn a_secret_that_is_learnt_before_or_after_the_change_is_under_the_new_passphrase() {
    let made = Made::new();
    let mount = made.start(Unlock::Passphrase(OLD));
    change_secret(&mount);
    change(&mount, &made.dir(), OLD, Protection::Passphrase(NEW)).unwrap();
    change_secret(&mount);
    mount.stop().unwrap();
    drop(mount);
    assert!(made.opens(NEW) && !made.opens(OLD));
    let mount = made.start(Unlock::Passphrase(NEW));
    assert_eq!(mount.epochs().len(), 3);
    change(&mount, &made.dir(), NEW, Protection::KeyFile).unwrap();
    change_secret(&mount);
    mount.stop().unwrap();
    drop(mount);
    assert_eq!(made.start(Unlock::KeyFile).epochs().len(), 4);
}

#[test]
fn a_wrong_passphrase_changes_nothing() {
    let made = Made::new();
    let before = made.key_file();
    for present in [Unlock::Passphrase(NEW), Unlock::KeyFile] {
        let changed = Bucket::change_passphrase(&made.dir(), present, Protection::KeyFile);
        assert!(matches!(changed, Err(Error::WrongPassphrase | Error::NeedsPassphrase)));
    }
    let mount = made.start(Unlock::Passphrase(OLD));
    let changed = change(&mount, &made.dir(), NEW, Protection::KeyFile);
    assert!(matches!(changed, Err(Error::WrongPassphrase)), "{changed:?}");
    assert_eq!(made.key_file(), before);
}

#[test]
fn of_a_bucket_that_is_open_only_its_mount_changes_the_passphrase() {
    let made = Made::new();
    let mount = made.start(Unlock::Passphrase(OLD));
    let present = Unlock::Passphrase(OLD);
    let changed = Bucket::change_passphrase(&made.dir(), present, Protection::Passphrase(NEW));
    assert!(matches!(changed, Err(Error::Locked { .. })), "{changed:?}");
    mount.stop().unwrap();
    let changed = change(&mount, &made.dir(), OLD, Protection::Passphrase(NEW));
    assert!(matches!(changed, Err(Error::Stopped)), "{changed:?}");
    drop(mount);
    assert!(made.opens(OLD));
    Bucket::change_passphrase(&made.dir(), present, Protection::Passphrase(NEW)).unwrap();
    assert!(made.opens(NEW));
}

/// The one who comes second has tried a passphrase that is the present one no more.
#[test]
fn a_key_file_that_the_bucket_was_not_opened_with_is_not_taken_for_its_own() {
    let made = Made::new();
    let old = made.key_file();
    let mount = made.start(Unlock::Passphrase(OLD));
    change(&mount, &made.dir(), OLD, Protection::Passphrase(NEW)).unwrap();
    fs::write(made.dir().join("key"), &old).unwrap();
    let changed = change(&mount, &made.dir(), OLD, Protection::KeyFile);
    assert!(matches!(changed, Err(Error::KeyFileReplaced)), "{changed:?}");
    assert_eq!(made.key_file(), old);
    change_secret(&mount);
    assert!(made.opens(NEW), "what the bucket was opened with, and changed since, counts");
}

#[test]
fn where_there_is_no_bucket_none_is_begun() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("nowhere");
    for _ in 0..2 {
        let changed = Bucket::change_passphrase(&dir, Unlock::KeyFile, Protection::KeyFile);
        assert!(matches!(changed, Err(Error::NoBucket(_))), "{changed:?}");
        fs::create_dir_all(&dir).unwrap();
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
