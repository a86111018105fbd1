//! Times, when a version holds them and the file has gone from memory.

use std::{thread, time::Duration};

use crate::{
    Caller, Ino, Kind, OpenFlags, SetAttr,
    random_load::{fresh, mount_publishing},
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_version_puts_no_time_of_change_back() {
    let (disk, device, _) = fresh(1);
    let mount = mount_publishing(&disk, &device, HOUR, HOUR).unwrap();
    let me = Caller { uid: 0, gid: 0 };
    let file = mount.mknod(me, Ino::ROOT, b"f", Kind::File, 0o644, 0).unwrap().ino;
    let fh = mount.open(file, OpenFlags { write: true, ..OpenFlags::default() }).unwrap();
    mount.write(file, fh, 0, b"x", false, Box::new(|_| ()));
    // So that the clock has gone on.
    thread::sleep(Duration::from_millis(2));
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let before = mount.setattr(file, None, mode).unwrap();
    assert!(before.ctime > before.mtime);
    mount.release(file, fh, Box::new(|_| ()));
    mount.stop().unwrap();
    drop(mount);
    let mount = mount_publishing(&disk, &device, HOUR, HOUR).unwrap();
    let after = mount.lookup(Ino::ROOT, b"f").unwrap();
    assert_eq!((after.mtime, after.ctime), (before.mtime, before.ctime));
    mount.stop().unwrap();
}
