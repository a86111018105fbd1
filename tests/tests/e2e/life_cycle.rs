//! What the daemon begins and ends at the same moment: mounts, unmounts, its own start and end.

use std::{fs, path::Path, process::Command, time::Duration};

use cairnfs_tests::{Peer, Strace, mounts, need, peer::BUCKET, run};

const SOON: Duration = Duration::from_secs(30);

fn mount_over(dir: &Path) {
    run(Command::new("mount").args(["-t", "tmpfs", "other"]).arg(dir), SOON).ok();
}

#[test]
fn umount_takes_nothing_away_that_lies_over_its_mount() {
    need::root("mount(8)");
    let peer = Peer::new();
    peer.write("f", "below");
    let (home, dir) = (peer.home(), peer.dir());
    mount_over(&dir);
    fs::write(dir.join("x"), "precious").unwrap();
    home.umount(&dir).exits(6).says(&["something else is mounted over", "umount"]);
    assert_eq!(fs::read(dir.join("x")).unwrap(), b"precious");
    run(Command::new("umount").arg(&dir), SOON).ok();
    assert_eq!(peer.read("f"), b"below");
    // Nor does it take something for unmounted that only cannot be reached.
    let above = dir.parent().unwrap().to_owned();
    let (nested, under) = (home.dir("above/mnt"), home.dir("above"));
    home.umount(&dir).ok();
    home.mount(BUCKET, &nested, &[]);
    mount_over(&under);
    fs::create_dir(&nested).unwrap();
    home.umount(&nested).exits(6).says(&["something else is mounted over"]);
    run(Command::new("umount").arg(&under), SOON).ok();
    assert_eq!(fs::read(nested.join("f")).unwrap(), b"below");
    home.umount(&nested).ok();
    assert!(mounts::below(&above).is_empty());
}

#[test]
fn a_directory_is_mounted_on_once() {
    let peer = Peer::new();
    let home = peer.home();
    let place = home.dir("place");
    for name in ["one", "two"] {
        home.create(name);
    }
    let strace = Strace::attach(&peer, "mount", &["mount:delay_enter=300000"]);
    let verbs = ["one", "two"].map(|name| home.start(&["mount", name, place.to_str().unwrap()]));
    let mut outcomes = verbs.map(|verb| verb.wait(SOON));
    drop(strace);
    outcomes.sort_by_key(|outcome| outcome.code);
    let [first, second] = outcomes;
    first.ok();
    second.exits(6).says(&["mounted there"]);
    assert_eq!(mounts::below(&place).len(), 1);
}
