//! Where a program could notice that this is not ext4: each difference is what SEMANTICS.md says.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    process::Command,
    time::Duration,
};

use cairnfs_tests::{
    Pair, Peer, Running, Save, Strace, data, eventually, need, peer::UNASKED_NOTHING, run,
};
use rustix::{
    fs::{
        CWD, FallocateFlags, Mode, OFlags, RenameFlags, copy_file_range, fallocate, inotify,
        ioctl_ficlone, ioctl_getflags, open, renameat_with, syncfs,
    },
    io::Errno,
};

const UNSAVED: Save = Save::Interval(Duration::from_secs(3_600));

#[test]
fn reading_changes_no_atime() {
    let peer = Peer::new();
    peer.write("f", data::bytes(1, 10_000));
    fs::create_dir(peer.path("d")).unwrap();
    let atime = |name| fs::metadata(peer.path(name)).map(|meta| (meta.atime(), meta.atime_nsec()));
    let before = (atime("f").unwrap(), atime("d").unwrap());
    // Relative atime would be set now: it is not later than mtime.
    assert_eq!(peer.read("f").len(), 10_000);
    assert!(peer.names("d").is_empty());
    assert_eq!((atime("f").unwrap(), atime("d").unwrap()), before);
    peer.remount();
    assert_eq!(peer.read("f").len(), 10_000);
    assert_eq!((atime("f").unwrap(), atime("d").unwrap()), before);
}

#[test]
fn syncfs_saves_nothing_and_wait_safe_does() {
    let peer = Peer::with(&UNASKED_NOTHING);
    peer.write("waited", "x");
    peer.wait_safe();
    peer.write("synced", "x");
    syncfs(File::open(peer.dir()).unwrap()).unwrap();
    peer.kill_and_remount();
    assert_eq!(peer.names(""), ["waited"]);
}

#[test]
fn a_file_without_a_name_cannot_be_made() {
    let peer = Peer::new();
    let made = open(peer.dir(), OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o600));
    assert_eq!(made.err(), Some(Errno::OPNOTSUPP));
    // Nor does one that lost its name get one again.
    let file = File::create(peer.path("f")).unwrap();
    fs::remove_file(peer.path("f")).unwrap();
    let way = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let flags = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    let linked = rustix::fs::linkat(CWD, way, CWD, peer.path("again"), flags);
    assert_eq!(linked, Err(Errno::NOENT));
}

#[test]
fn flags_and_reflinks_are_refused_and_cp_copies_all_the_same() {
    let peer = Peer::new();
    peer.write("f", data::bytes(1, 200_000));
    let from = File::open(peer.path("f")).unwrap();
    let to = File::create(peer.path("g")).unwrap();
    assert_eq!(ioctl_getflags(&from), Err(Errno::NOTTY));
    assert!(matches!(ioctl_ficlone(&to, &from), Err(Errno::NOTTY | Errno::OPNOTSUPP)));
    let mut cp = Command::new("cp");
    cp.arg("--reflink=auto").arg(peer.path("f")).arg(peer.path("copy"));
    run(&mut cp, Duration::from_secs(20)).succeeds();
    assert!(peer.read("copy") == data::bytes(1, 200_000));
}

#[test]
fn a_rename_leaves_no_whiteout() {
    let peer = Peer::new();
    peer.write("a", "x");
    let renamed = renameat_with(CWD, peer.path("a"), CWD, peer.path("b"), RenameFlags::WHITEOUT);
    assert_eq!(renamed, Err(Errno::INVAL));
    assert_eq!(peer.names(""), ["a"]);
}

#[test]
fn allocating_lengthens_and_reserves_nothing() {
    let peer = Peer::new();
    let file = File::create(peer.path("f")).unwrap();
    file.write_all_at(&data::bytes(1, 8_192), 0).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 100 << 20).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!((meta.len(), meta.blocks()), (100 << 20, 16));
    // More than there is: refused now rather than at some later write.
    let space = rustix::fs::statvfs(peer.dir()).unwrap();
    let all = space.f_blocks * space.f_frsize;
    assert_eq!(fallocate(&file, FallocateFlags::empty(), 0, all), Err(Errno::NOSPC));
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(fallocate(&file, mode, 0, 4_096), Err(Errno::OPNOTSUPP));
    }
}

#[test]
fn blocks_are_those_of_the_plaintext_and_a_directory_has_none() {
    let peer = Peer::new();
    peer.write("zeros", vec![0; 1 << 20]);
    peer.write("same", data::bytes(1, 1 << 20));
    peer.write("again", data::bytes(1, 1 << 20));
    fs::create_dir(peer.path("d")).unwrap();
    for round in ["dirty", "sealed"] {
        for name in ["zeros", "same", "again"] {
            let blocks = fs::metadata(peer.path(name)).unwrap().blocks();
            assert_eq!(blocks, 2_048, "{name}, {round}");
        }
        let dir = fs::metadata(peer.path("d")).unwrap();
        assert_eq!((dir.len(), dir.blocks()), (0, 0));
        peer.remount();
    }
}

#[test]
fn a_replaced_file_has_the_new_files_number_until_it_is_mounted_again() {
    let peer = Peer::new();
    let ino = |name| fs::metadata(peer.path(name)).unwrap().ino();
    peer.write("f", "old");
    let old = ino("f");
    peer.write("tmp", "new");
    let new = ino("tmp");
    fs::rename(peer.path("tmp"), peer.path("f")).unwrap();
    assert_eq!(ino("f"), new);
    peer.remount();
    assert_eq!((ino("f"), peer.read("f")), (old, b"new".to_vec()));
}

#[test]
fn a_synced_map_is_kept_under_every_policy() {
    need::program("python3", "python3");
    for save in [Save::Flush, Save::Release, UNSAVED] {
        let peer = Peer::saving(save);
        peer.write("f", vec![0; 300_000]);
        peer.wait_safe();
        let ready = peer.scratch().join("ready");
        let mut mapper = Command::new("python3");
        mapper.args([
            "-c",
            "import mmap,sys,signal
f=open(sys.argv[1],'r+b')
m=mmap.mmap(f.fileno(),0)
for n in range(0,300_000,1000): m[n:n+4]=b'mark'
m.flush()
open(sys.argv[2],'w').close()
signal.pause()",
        ]);
        let mut mapper = Running::start(mapper.arg(peer.path("f")).arg(&ready));
        eventually("the map is synced", Duration::from_secs(30), || {
            ready.exists() || mapper.ended()
        });
        peer.kill();
        drop(mapper);
        peer.mount_again();
        let found = peer.read("f");
        assert!((0..300_000).step_by(1_000).all(|n| &found[n..n + 4] == b"mark"), "{save:?}");
    }
}

#[test]
fn close_of_an_unchanged_file_does_not_wait() {
    let peer = Peer::saving(Save::Flush);
    peer.write("f", data::bytes(1, 1_000));
    peer.remount();
    let strace = Strace::attach(&peer, Strace::BARRIERS, &[]);
    for _ in 0..50 {
        let file = OpenOptions::new().read(true).write(true).open(peer.path("f")).unwrap();
        file.read_exact_at(&mut [0; 100], 0).unwrap();
        cairnfs_tests::peer::close(file).unwrap();
    }
    assert_eq!(strace.succeeded_in("writer"), 0, "{}", strace.text());
    strace.detach();
}

#[test]
fn inotify_sees_what_goes_through_the_mount() {
    let peer = Peer::new();
    fs::create_dir(peer.path("d")).unwrap();
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let what = inotify::WatchFlags::CREATE | inotify::WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&watch, peer.path("d"), what).unwrap();
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(peer.path("d/f")).unwrap();
    file.write_all(b"x").unwrap();
    drop(file);
    let mut room = [std::mem::MaybeUninit::uninit(); 1_024];
    let mut events = inotify::Reader::new(&watch, &mut room);
    let mut next = || {
        let mut seen = None;
        // A file is closed once no process that another test is just starting has it open any more.
        eventually("something is seen", Duration::from_secs(30), || {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes().to_vec());
                    seen = Some((event.events(), name));
                }
                Err(err) => assert_eq!(err, Errno::AGAIN),
            }
            seen.is_some()
        });
        seen.unwrap()
    };
    assert_eq!(next(), (inotify::ReadFlags::CREATE, Some(b"f".to_vec())));
    assert_eq!(next(), (inotify::ReadFlags::CLOSE_WRITE, Some(b"f".to_vec())));
}

#[test]
fn inotify_hears_of_a_merge_only_that_a_watched_file_has_gone() {
    let pair = Pair::new();
    let (here, there) = (&pair.one, &pair.other);
    fs::create_dir(here.path("d")).unwrap();
    for name in ["gone", "moved", "changed"] {
        here.write(format!("d/{name}"), "x");
    }
    // After this the kernel knows all of it.
    pair.meet();
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let all = inotify::WatchFlags::ALL_EVENTS - inotify::WatchFlags::ACCESS;
    let what = all - inotify::WatchFlags::OPEN - inotify::WatchFlags::CLOSE_NOWRITE;
    let dir = inotify::add_watch(&watch, here.path("d"), what).unwrap();
    let gone = inotify::WatchFlags::DELETE_SELF;
    let gone = inotify::add_watch(&watch, here.path("d/gone"), gone).unwrap();
    fs::remove_file(there.path("d/gone")).unwrap();
    fs::rename(there.path("d/moved"), there.path("d/elsewhere")).unwrap();
    there.write("d/changed", "y");
    there.write("d/new", "x");
    pair.meet();
    let mut room = [std::mem::MaybeUninit::uninit(); 1_024];
    let mut events = inotify::Reader::new(&watch, &mut room);
    let mut seen = Vec::new();
    let mut read = |until: inotify::ReadFlags| {
        eventually("it is heard of", Duration::from_secs(30), || {
            while let Ok(event) = events.next() {
                let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                seen.push((event.wd(), event.events(), name));
            }
            seen.iter().any(|(_, event, _)| event.contains(until))
        });
    };
    read(inotify::ReadFlags::DELETE_SELF);
    // Events come in the order in which things happened, and this comes last.
    fs::create_dir(here.path("d/last")).unwrap();
    read(inotify::ReadFlags::CREATE);
    let last = (dir, inotify::ReadFlags::CREATE | inotify::ReadFlags::ISDIR, Some("last".into()));
    seen.retain(|(_, event, _)| *event != inotify::ReadFlags::IGNORED);
    assert_eq!(seen, [(gone, inotify::ReadFlags::DELETE_SELF, None), last]);
}

#[test]
fn other_namespaces_of_attributes_are_refused() {
    let peer = Peer::new();
    peer.write("f", "x");
    let flags = rustix::fs::XattrFlags::empty();
    for name in ["system.nfs4_acl", "other.x"] {
        let refused = rustix::fs::setxattr(peer.path("f"), name, b"x", flags);
        assert_eq!(refused, Err(Errno::OPNOTSUPP), "{name}");
    }
    let file = File::open(peer.path("f")).unwrap();
    fs::remove_file(peer.path("f")).unwrap();
    assert!(rustix::fs::fsetxattr(&file, "user.new", b"x", flags).is_err());
}

#[test]
fn one_copy_file_range_copies_four_mebibytes_at_most() {
    let peer = Peer::new();
    peer.write("from", data::bytes(3, 5 << 20));
    let (from, to) = (File::open(peer.path("from")), File::create(peer.path("to")));
    let copied = copy_file_range(from.unwrap(), Some(&mut 0), to.unwrap(), Some(&mut 0), 5 << 20);
    assert_eq!(copied, Ok(4 << 20));
    assert!(peer.read("to") == data::bytes(3, 5 << 20)[..4 << 20]);
}
