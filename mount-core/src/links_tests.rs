//! Files with very many names or attributes: as many as are promised, and no more than a version
//! can hold.

use std::time::Duration;

use cairnfs_merge::{AttrKey, AttrValue, LinkId, Name, Node, NodeEdits, NodeId, Place, Reg, Tree};
use cairnfs_store::sim::SimDisk;
use crossbeam_channel::bounded;

use crate::{
    Caller, ChangedPath, Error, Ino, Kind, Mount, RenameMode, SetAttr, SetXattr, Version,
    random_load::{fresh, mount_publishing},
    tree::{Data, limits},
};

const HOUR: Duration = Duration::from_secs(3600);
const ME: Caller = Caller { uid: 0, gid: 0 };

/// A mount, the disk it is on, a file in it, and how it is mounted again.
fn with_file() -> (SimDisk, Mount, Ino, impl Fn(&SimDisk) -> Mount) {
    let (disk, device, _) = fresh(1);
    let mount = move |disk: &SimDisk| mount_publishing(disk, &device, HOUR, HOUR).unwrap();
    let mounted = mount(&disk);
    let file = mounted.mknod(ME, Ino::ROOT, b"f", Kind::File, 0o644, 0).unwrap();
    (disk, mounted, file.ino, mount)
}

/// Gives `node` so many more names in the root, each `len` bytes long.
fn add_names(node: &mut Node<Data>, count: u32, len: usize) {
    let (&op, _) = node.live.last().unwrap();
    for n in 0..count {
        let name = Name::new(format!("{n:0>len$}").as_bytes()).unwrap();
        let link = LinkId::Later { op, n: 1_000 + n };
        node.places.insert(link, Reg::one(op, Place::new(NodeId::Root, name)));
    }
}

/// The only file.
fn file_of(mount: &Mount) -> (NodeId, Node<Data>) {
    let core = mount.shared().core.read();
    let children = core.tree.children(&NodeId::Root, None, 1).unwrap();
    let id = children[0].1;
    (id, Node::clone(&core.tree.node(&id).unwrap().unwrap()))
}

#[test]
fn a_file_has_65000_names_and_no_more() {
    let (disk, mount, file, again) = with_file();
    // As that many calls would leave it.
    let (id, mut node) = file_of(&mount);
    add_names(&mut node, 64_998, 6);
    {
        let mut core = mount.shared().core.write();
        core.tree.replay(NodeEdits::from([(id, Some(node.into()))])).unwrap();
        core.unsaved.insert(id);
        core.next_n = 70_000;
    }
    assert_eq!(mount.link(file, Ino::ROOT, b"last").unwrap().nlink, 65_000);
    let refused = mount.link(file, Ino::ROOT, b"more");
    assert!(matches!(refused, Err(Error::TooManyLinks)), "{refused:?}");
    mount.unlink(Ino::ROOT, b"000077").unwrap();
    assert_eq!(mount.link(file, Ino::ROOT, b"more").unwrap().nlink, 65_000);
    mount.stop().unwrap();
    drop(mount);
    let mount = again(&disk);
    for name in [b"f".as_slice(), b"000000", b"064997", b"last", b"more"] {
        let attr = mount.lookup(Ino::ROOT, name).unwrap();
        assert_eq!((attr.ino, attr.nlink), (file, 65_000));
    }
    assert!(matches!(mount.lookup(Ino::ROOT, b"000077"), Err(Error::NotFound)));
    mount.stop().unwrap();
}

/// The operation goes on after a crash, and what it numbers must not begin anew.
#[test]
fn a_name_made_after_a_crash_replaces_none_made_before_it() {
    let (disk, mount, file, again) = with_file();
    mount.link(file, Ino::ROOT, b"before").unwrap();
    let (tell, told) = bounded(1);
    mount.save(Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap().unwrap();
    let crashed = disk.crash(7);
    drop(mount);
    let mount = again(&crashed);
    let file = mount.lookup(Ino::ROOT, b"f").unwrap().ino;
    mount.link(file, Ino::ROOT, b"after").unwrap();
    for name in [b"f".as_slice(), b"before", b"after"] {
        let attr = mount.lookup(Ino::ROOT, name).unwrap();
        assert_eq!((attr.ino, attr.nlink), (file, 3));
    }
    mount.stop().unwrap();
}

#[test]
fn a_file_whose_names_or_attributes_no_blob_can_hold_is_refused() {
    let (_disk, mount, ..) = with_file();
    let (_, file) = file_of(&mount);
    let named = |count, len| {
        let mut node = file.clone();
        add_names(&mut node, count, len);
        limits::fits(&node)
    };
    assert!(named(64_999, 20));
    assert!(named(40_000, 255));
    assert!(!named(64_999, 255));
    let (&op, _) = file.live.last().unwrap();
    let attributed = |count: u32, len| {
        let mut node = file.clone();
        for n in 0..count {
            let value = AttrValue::new(&vec![7; len]).unwrap();
            let key = AttrKey::new(format!("user.{n}").as_bytes()).unwrap();
            node.attrs.insert(key, Reg::one(op, Some(value)));
        }
        limits::fits(&node)
    };
    assert!(attributed(1_000, 4_000));
    assert!(!attributed(1_025, 1));
    assert!(!attributed(300, 65_536));
    mount.stop().unwrap();
}

#[test]
fn attributes_that_no_version_could_hold_are_refused_and_what_is_there_is_published() {
    let (disk, mount, file, again) = with_file();
    let value = vec![7; 65_536];
    let set =
        |n: u32| mount.setxattr(file, format!("user.{n}").as_bytes(), &value, SetXattr::Create);
    let refused = (0..300).find_map(|n| set(n).err().map(|err| (n, err)));
    let Some((count, Error::NoSpace)) = refused else { panic!("{refused:?}") };
    assert!(count > 200, "{count} are few");
    mount.publish().unwrap();
    mount.stop().unwrap();
    drop(mount);
    let mount = again(&disk);
    let name = format!("user.{}", count - 1);
    assert_eq!(mount.getxattr(file, name.as_bytes()).unwrap(), value);
    mount.stop().unwrap();
}

#[test]
fn the_log_tells_of_each_name_that_a_file_gets_or_loses() {
    let (_, mount, file, _) = with_file();
    mount.publish().unwrap();
    mount.link(file, Ino::ROOT, b"g").unwrap();
    mount.link(file, Ino::ROOT, b"h").unwrap();
    mount.publish().unwrap();
    mount.rename(Ino::ROOT, b"f", Ino::ROOT, b"i", RenameMode::Replace).unwrap();
    mount.publish().unwrap();
    let changes = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    mount.setattr(file, None, changes).unwrap();
    mount.unlink(Ino::ROOT, b"g").unwrap();
    mount.publish().unwrap();
    let told = |path: Option<&[u8]>| -> Vec<Vec<String>> {
        let of = |version: &Version| {
            let line = |it: &ChangedPath| format!("{:?} {}", it.change, it.path.escape_ascii());
            let mut lines: Vec<_> = version.changes.iter().map(line).collect();
            lines.sort();
            lines
        };
        mount.log(path, 4, 9).unwrap().iter().map(of).collect()
    };
    let all = [
        vec!["Changed i", "Removed g"],
        vec!["Added i", "Removed f"],
        vec!["Added g", "Added h"],
        vec!["Added f"],
    ];
    assert_eq!(told(None), all);
    assert_eq!(told(Some(b"h")), all, "all of them are of that file");
    mount.stop().unwrap();
}
