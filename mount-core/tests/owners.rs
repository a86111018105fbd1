//! As whom owners are shown.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Arc};

use cairnfs_mount_core::{
    Attr, Bucket, Caller, Ino, Kind, Mount, Options, Owner, PastItem, PastView, Protection,
    SetAttr, Unlock, Wanted,
};
use cairnfs_store::DeviceKey;

fn start(dir: &Path, key: &Arc<DeviceKey>, owner: Owner) -> Mount {
    let bucket = Bucket::open(dir, Arc::clone(key), Unlock::KeyFile).unwrap();
    Mount::start(bucket, Options { owner, ..Options::default() }).unwrap()
}

fn owners(attr: &Attr) -> (u32, u32) {
    (attr.uid, attr.gid)
}

fn make(mount: &Mount, (uid, gid): (u32, u32), name: &[u8]) -> Attr {
    mount.mknod(Caller { uid, gid }, Ino::ROOT, name, Kind::File, 0o644, 0).unwrap()
}

#[test]
fn who_has_another_number_here_is_the_owner_everywhere() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("bucket");
    let key = Arc::new(DeviceKey::generate().unwrap());
    Bucket::create(&dir, &key, Protection::KeyFile).unwrap();
    let as_it_is = Owner::default();
    let mount = start(&dir, &key, as_it_is);
    let there = (1000, 100);
    let chown = |uid| SetAttr { uid: Some(uid), ..SetAttr::default() };
    let top = SetAttr { gid: Some(there.1), ..chown(there.0) };
    mount.setattr(Ino::ROOT, None, top).unwrap();
    make(&mount, there, b"theirs");
    make(&mount, (1026, 7), b"another's");
    mount.stop().unwrap();
    drop(mount);

    // The same person, on a machine where the number is another one, and the group is not.
    let here = (1026, 100);
    let mount = start(&dir, &key, Owner { user: Some(here.0), group: None });
    assert_eq!(owners(&mount.getattr(Ino::ROOT).unwrap()), here);
    let shown = |name: &[u8]| owners(&mount.lookup(Ino::ROOT, name).unwrap());
    assert_eq!((shown(b"theirs"), shown(b"another's")), (here, (1000, 7)));
    assert_eq!(owners(&make(&mount, here, b"mine")), here);
    let given = make(&mount, (0, 0), b"given").ino;
    assert_eq!(mount.setattr(given, None, chown(here.0)).unwrap().uid, here.0);
    // Also once nobody has a name for it.
    let open = mount.open(given, cairnfs_mount_core::OpenFlags::default()).unwrap();
    mount.unlink(Ino::ROOT, b"given").unwrap();
    assert_eq!(mount.setattr(given, Some(open), chown(1000)).unwrap().uid, 1000);
    assert_eq!(mount.setattr(given, Some(open), chown(here.0)).unwrap().uid, here.0);
    mount.release(given, open, Box::new(|_| ()));
    // Older versions are shown, and restored, as what is there now.
    mount.publish().unwrap();
    let view = PastView::new(mount.newest().unwrap());
    assert_eq!(owners(&view.lookup(Ino::ROOT, b"mine").unwrap()), here);
    let mut restored = None;
    let mut take = |item: PastItem<'_>| {
        if let PastItem::Entry(entry) = item {
            restored = Some((entry.uid, entry.gid));
        }
        true
    };
    mount.newest().unwrap().walk(b"mine", Wanted::default(), &mut take).unwrap();
    assert_eq!(restored, Some(here));
    view.end();
    let other = Owner { user: Some(7), group: Some(7) };
    let past = mount.newest().unwrap().shown_as(&other).unwrap();
    let otherwise = PastView::new(past);
    assert_eq!(owners(&otherwise.lookup(Ino::ROOT, b"mine").unwrap()), (7, 7));
    otherwise.end();
    mount.stop().unwrap();
    drop((view, otherwise, mount));

    let mount = start(&dir, &key, as_it_is);
    let kept = |name: &[u8]| owners(&mount.lookup(Ino::ROOT, name).unwrap());
    let names: [&[u8]; 3] = [b"theirs", b"mine", b"another's"];
    assert_eq!(names.map(kept), [there, there, (1026, 7)]);
    mount.stop().unwrap();
}
