//! Several users on one mount: who may do what, as on any Unix.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::Command,
    time::Duration,
};

use cairnfs_tests::{Outcome, Peer, need, run};

/// Two users and a group of both.
const ANN: u32 = 41_001;
const BOB: u32 = 41_002;
const BOTH: u32 = 41_100;

/// A mount that all may enter, and may reach.
fn shared_mount() -> Peer {
    need::root("acting as other users");
    need::program("setpriv", "util-linux");
    let peer = Peer::with(&["--allow-other"]);
    let mut at = peer.dir();
    // Temporary directories are of mode 0700.
    while at.parent().is_some_and(|up| up.starts_with(std::env::temp_dir())) && at.pop() {
        if at != std::env::temp_dir() {
            mode(&at, 0o755);
        }
    }
    mode(&peer.dir(), 0o777);
    peer
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Runs a script as `user` in the mount.
fn as_user(peer: &Peer, user: u32, groups: &str, script: &str) -> Outcome {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .arg(if groups.is_empty() { "--clear-groups".into() } else { format!("--groups={groups}") })
        .args(["sh", "-euc", script])
        .current_dir(peer.dir());
    run(&mut command, Duration::from_secs(30))
}

#[track_caller]
fn may(peer: &Peer, user: u32, script: &str) {
    as_user(peer, user, "", script).succeeds();
}

#[track_caller]
fn may_not(peer: &Peer, user: u32, script: &str) {
    let outcome = as_user(peer, user, "", script);
    assert_ne!(outcome.code, Some(0), "allowed: {outcome}");
    let why = outcome.stderr.to_lowercase();
    assert!(why.contains("permission denied") || why.contains("not permitted"), "{outcome}");
}

#[test]
fn without_allow_other_nobody_else_comes_in() {
    let peer = shared_mount();
    peer.umount();
    let home = peer.home();
    home.mount(cairnfs_tests::peer::BUCKET, &peer.dir(), &[]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=41001", "--regid=41001", "--clear-groups", "ls"]).arg(peer.dir());
    run(&mut command, Duration::from_secs(30)).exits(2).says(&["permission denied"]);
}

#[test]
fn set_id_bits_and_devices_have_no_effect_unless_root_asks_for_it() {
    let peer = shared_mount();
    let id = String::from_utf8(Command::new("which").arg("id").output().unwrap().stdout).unwrap();
    fs::copy(id.trim(), peer.path("id")).unwrap();
    mode(&peer.path("id"), 0o4755);
    let mut null = Command::new("mknod");
    null.arg("-m666").arg(peer.path("null")).args(["c", "1", "3"]);
    run(&mut null, Duration::from_secs(30)).succeeds();
    let whoever = as_user(&peer, ANN, "", "./id -u").succeeds();
    assert_eq!(whoever.stdout, format!("{ANN}\n"));
    may_not(&peer, ANN, "cat null");
    peer.umount();
    let asked = ["--allow-other", "-o", "suid,dev"];
    peer.home().mount(cairnfs_tests::peer::BUCKET, &peer.dir(), &asked);
    assert_eq!(as_user(&peer, ANN, "", "./id -u").succeeds().stdout, "0\n");
    may(&peer, ANN, "cat null");
}

#[test]
fn owner_group_and_others_have_what_the_mode_gives_them() {
    let peer = shared_mount();
    may(&peer, ANN, "umask 077; echo secret > f; mkdir d; echo x > d/inner");
    may_not(&peer, BOB, "cat f");
    may_not(&peer, BOB, "cat d/inner");
    may_not(&peer, BOB, "chmod 666 f");
    may_not(&peer, BOB, "touch -d 2001-01-01 f");
    may(&peer, ANN, "chmod 640 f");
    chown(peer.path("f"), None, Some(BOTH)).unwrap();
    may_not(&peer, BOB, "cat f");
    // A supplementary group counts.
    let both = BOTH.to_string();
    assert_eq!(as_user(&peer, BOB, &both, "cat f").succeeds().stdout, "secret\n");
    assert_ne!(as_user(&peer, BOB, &both, "echo more >> f").code, Some(0));
    may(&peer, ANN, "chmod 660 f");
    as_user(&peer, BOB, &both, "echo more >> f").succeeds();
    may_not(&peer, ANN, "chown 41002 f");
    for round in ["fresh", "remounted"] {
        let meta = fs::metadata(peer.path("f")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (ANN, BOTH, 0o660), "{round}");
        peer.remount();
    }
}

#[test]
fn who_has_another_number_here_is_the_owner_everywhere() {
    let peer = shared_mount();
    mode(&peer.dir(), 0o755);
    may_not(&peer, ANN, "touch f");
    peer.umount();
    let mount = |options: &[&str]| {
        let options = [&["--allow-other"], options].concat();
        peer.home().mount(cairnfs_tests::peer::BUCKET, &peer.dir(), &options);
    };
    mount(&["-o", "uid=41001", "--gid=41001"]);
    may(&peer, ANN, "echo mine > f; mkdir d; chmod 700 d; touch -d 2001-01-01 f");
    may_not(&peer, BOB, "touch g");
    let owners = |name: &str| {
        let meta = fs::metadata(peer.path(name)).unwrap();
        (meta.uid(), meta.gid())
    };
    assert_eq!((owners(""), owners("f")), ((ANN, ANN), (ANN, ANN)));
    chown(peer.path("d"), Some(BOB), Some(BOTH)).unwrap();
    assert_eq!(owners("d"), (BOB, BOTH));
    peer.umount();
    mount(&[]);
    assert_eq!((owners(""), owners("f"), owners("d")), ((0, 0), (0, 0), (BOB, BOTH)));
}

#[test]
fn a_sticky_directory_keeps_each_users_files() {
    let peer = shared_mount();
    fs::create_dir(peer.path("tmp")).unwrap();
    mode(&peer.path("tmp"), 0o1777);
    may(&peer, ANN, "echo ann > tmp/a; mkdir tmp/dir; chmod 666 tmp/a");
    may(&peer, BOB, "echo bob > tmp/b");
    may_not(&peer, BOB, "rm -f tmp/a");
    may_not(&peer, BOB, "mv tmp/a tmp/mine");
    may_not(&peer, BOB, "mv tmp/a ./mine");
    may_not(&peer, BOB, "mv -f tmp/b tmp/a");
    may_not(&peer, BOB, "rmdir tmp/dir");
    // Writing is the file's own matter; links and names of one's own are free.
    may(&peer, BOB, "echo bob >> tmp/a; mv tmp/b tmp/c; rm tmp/c");
    may(&peer, ANN, "mv tmp/a tmp/b; rmdir tmp/dir; rm tmp/b");
    // The owner of the directory may.
    may(&peer, ANN, "echo ann > tmp/a");
    chown(peer.path("tmp"), Some(BOB), None).unwrap();
    may(&peer, BOB, "rm -f tmp/a");
}

#[test]
fn a_setgid_directory_hands_down_its_group_and_itself() {
    let peer = shared_mount();
    fs::create_dir(peer.path("team")).unwrap();
    chown(peer.path("team"), Some(ANN), Some(BOTH)).unwrap();
    mode(&peer.path("team"), 0o2777);
    may(&peer, BOB, "umask 022; cd team; echo x > f; mkdir d; touch d/inner; ln -s f l; mkfifo p");
    for round in ["fresh", "remounted"] {
        for name in ["team/f", "team/d", "team/d/inner", "team/l", "team/p"] {
            let meta = fs::symlink_metadata(peer.path(name)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (BOB, BOTH), "{name}, {round}");
        }
        assert_eq!(mode_of(&peer.path("team/d")), 0o2755, "{round}");
        assert_eq!(mode_of(&peer.path("team/f")), 0o644, "{round}");
        peer.remount();
    }
    // Who is not of the group cannot give its rights away.
    may(&peer, BOB, "chmod 2755 team/f");
    assert_eq!(mode_of(&peer.path("team/f")), 0o755);
    let both = BOTH.to_string();
    as_user(&peer, BOB, &both, "chmod 2755 team/f").succeeds();
    assert_eq!(mode_of(&peer.path("team/f")), 0o2755);
}

#[test]
fn set_id_bits_end_when_another_writes() {
    need::program("python3", "python3");
    let peer = shared_mount();
    let path = peer.path("f");
    let acts = [
        ("write", "echo more >> f"),
        ("truncate", "truncate -s 1 f"),
        ("overwrite", "echo x > f"),
        ("fallocate", "fallocate -l 100000 f"),
        // Writing through the map alone would not end them; nor does it on ext4.
        (
            "write, then through a map",
            "exec python3 -c \"import mmap
f=open('f','r+b')
m=mmap.mmap(f.fileno(),0)
f.write(b'y'); f.flush()
m[0:1]=b'x'; m.flush()\"",
        ),
    ];
    for (what, script) in acts {
        fs::write(&path, "content").unwrap();
        chown(&path, Some(ANN), Some(BOTH)).unwrap();
        mode(&path, 0o6777);
        may(&peer, BOB, "cat f > /dev/null");
        assert_eq!(mode_of(&path), 0o6777, "reading ends them");
        may(&peer, BOB, script);
        assert_eq!(mode_of(&path), 0o777, "{what}");
        fs::File::open(&path).unwrap().sync_all().unwrap();
        peer.kill_and_remount();
        assert_eq!(mode_of(&path), 0o777, "{what}, after kill -9");
    }
    mode(&path, 0o6777);
    fs::write(&path, "by root").unwrap();
    assert_eq!(mode_of(&path), 0o6777, "root keeps them");
    chown(&path, Some(BOB), None).unwrap();
    assert_eq!(mode_of(&path), 0o777, "a new owner");
}

#[test]
fn access_control_lists_are_refused_plainly_and_copying_goes_on_without() {
    for (program, package) in [("setfacl", "acl"), ("rsync", "rsync"), ("tar", "tar")] {
        need::program(program, package);
    }
    let peer = shared_mount();
    peer.write("f", "x");
    let outside = peer.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    let sh = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script, "sh"]).arg(&outside);
        run(command.current_dir(peer.dir()), Duration::from_secs(60))
    };
    sh("setfacl -m u:41001:rwx f").exits(1).says(&["not supported"]);
    sh("mkdir d; setfacl -d -m u:41001:rwx d").exits(1).says(&["not supported"]);
    assert!(sh("getfacl -c f").succeeds().stdout.starts_with("user::rw-\ngroup::r--\nother::r--"));
    // What has no list goes in and out with all of the switches that ask for lists.
    sh("cd $1; echo a > plain; ln plain hard; mkdir sub; setfattr -n user.x -v y plain").succeeds();
    sh("rsync -aHAX $1/ in/; rsync -aHAX in/ $1/back/; cp -a $1/plain copied").succeeds();
    sh("tar --acls --xattrs -C $1 -cf - plain sub | tar --acls --xattrs -xf - -C d").succeeds();
    assert_eq!(
        sh("getfattr --only-values -n user.x in/plain d/plain copied").succeeds().stdout,
        "yyy"
    );
    assert_eq!(fs::metadata(peer.path("in/hard")).unwrap().nlink(), 2);
    // Losing a list in silence would be a lie about who may read.
    sh("setfacl -m u:41001:rwx $1/plain").succeeds();
    assert_ne!(sh("rsync -aHAX $1/plain in/listed").code, Some(0));
    assert_ne!(sh("cp --preserve=all $1/plain listed").code, Some(0));
}
