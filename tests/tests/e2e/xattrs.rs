//! Extended attributes.

use std::fs;

use cairnfs_tests::{Peer, data, need};
use rustix::{
    fs::{XattrFlags, getxattr, lgetxattr, listxattr, lsetxattr, removexattr, setxattr},
    io::Errno,
};

fn get(path: &std::path::Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 70_000];
    let len = getxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

fn list(path: &std::path::Path) -> Vec<String> {
    let mut names = vec![0; 70_000];
    let len = listxattr(path, &mut names[..]).unwrap();
    let mut names: Vec<_> = String::from_utf8(names[..len].to_vec())
        .unwrap()
        .split_terminator('\0')
        .filter(|name| name.starts_with("user."))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

#[test]
fn attributes_are_set_listed_read_replaced_and_removed() {
    let peer = Peer::new();
    let path = peer.path("f");
    fs::write(&path, "x").unwrap();
    fs::create_dir(peer.path("d")).unwrap();
    setxattr(&path, "user.one", b"1", XattrFlags::empty()).unwrap();
    setxattr(&path, "user.bytes", b"\0\xff\n", XattrFlags::CREATE).unwrap();
    setxattr(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
    setxattr(peer.path("d"), "user.dir", b"d", XattrFlags::empty()).unwrap();
    setxattr(&path, "user.one", b"11", XattrFlags::REPLACE).unwrap();
    assert_eq!(setxattr(&path, "user.one", b"x", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(setxattr(&path, "user.no", b"x", XattrFlags::REPLACE), Err(Errno::NODATA));
    fs::File::open(&path).unwrap().sync_all().unwrap();
    fs::File::open(peer.path("d")).unwrap().sync_all().unwrap();
    for round in ["fresh", "killed"] {
        assert_eq!(list(&path), ["user.bytes", "user.empty", "user.one"], "{round}");
        assert_eq!(get(&path, "user.one").unwrap(), b"11", "{round}");
        assert_eq!(get(&path, "user.bytes").unwrap(), b"\0\xff\n", "{round}");
        assert_eq!(get(&path, "user.empty").unwrap(), b"", "{round}");
        assert_eq!(get(&peer.path("d"), "user.dir").unwrap(), b"d", "{round}");
        peer.kill_and_remount();
    }
    removexattr(&path, "user.one").unwrap();
    assert_eq!(removexattr(&path, "user.one"), Err(Errno::NODATA));
    assert_eq!(get(&path, "user.one"), Err(Errno::NODATA));
    assert_eq!(getxattr(&path, "user.bytes", &mut [0; 1][..]), Err(Errno::RANGE));
    assert_eq!(list(&path), ["user.bytes", "user.empty"]);
}

#[test]
fn values_of_64_kib_are_kept() {
    let peer = Peer::new();
    let path = peer.path("f");
    fs::write(&path, "x").unwrap();
    let large = data::bytes(1, 3_000);
    let largest = data::bytes(2, 64 << 10);
    setxattr(&path, "user.large", &large, XattrFlags::empty()).unwrap();
    setxattr(&path, "user.largest", &largest, XattrFlags::empty()).unwrap();
    fs::File::open(&path).unwrap().sync_all().unwrap();
    for round in ["fresh", "killed"] {
        assert!(get(&path, "user.large").unwrap() == large, "{round}");
        assert!(get(&path, "user.largest").unwrap() == largest, "{round}");
        peer.kill_and_remount();
    }
}

#[test]
fn trusted_attributes_and_those_of_links_are_kept() {
    need::root("a trusted attribute");
    let peer = Peer::new();
    std::os::unix::fs::symlink("nowhere", peer.path("l")).unwrap();
    lsetxattr(peer.path("l"), "trusted.note", b"of the link", XattrFlags::empty()).unwrap();
    let mut value = [0; 50];
    let len = lgetxattr(peer.path("l"), "trusted.note", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"of the link");
}
