//! When `close()` (policy `flush`) or `fsync()` (any policy) has returned 0, the bytes survive.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    process::Command,
    thread,
    time::Duration,
};

use cairnfs_tests::{
    Home, Peer, Save, data, eventually, mounts, peer::BUCKET, poll::let_pass, process,
};
use rustix::{fs::OFlags, process::Signal};

/// A change of metadata: its name, how it is made, and whether it was kept.
type Act = (&'static str, fn(&Peer), fn(&Peer) -> bool);

/// Room for a loaded machine on top of a promised time.
const SLACK: Duration = Duration::from_secs(1);

#[test]
fn close_then_kill_keeps_the_bytes_under_flush() {
    let peer = Peer::saving(Save::Flush);
    for round in 0..10 {
        let name = format!("f{round}");
        peer.write(&name, data::bytes(round, 1 + 40_000 * usize::try_from(round).unwrap()));
        peer.kill_and_remount();
        for n in 0..=round {
            let wanted = data::bytes(n, 1 + 40_000 * usize::try_from(n).unwrap());
            assert!(peer.read(format!("f{n}")) == wanted, "f{n} after round {round}");
        }
    }
}

#[test]
fn fsync_then_kill_keeps_the_bytes_under_every_policy() {
    for save in [Save::Flush, Save::Release, Save::Interval(Duration::from_secs(3_600))] {
        let peer = Peer::saving(save);
        fs::create_dir(peer.path("d")).unwrap();
        let mut open = Vec::new();
        for round in 0..4_u64 {
            let mut file = File::create(peer.path(format!("d/f{round}"))).unwrap();
            file.write_all(&data::bytes(round, 150_000)).unwrap();
            if round % 2 == 0 {
                file.sync_all().unwrap();
            } else {
                file.sync_data().unwrap();
            }
            open.push(file);
            peer.kill();
            open.clear();
            peer.mount_again();
            for n in 0..=round {
                let found = peer.read(format!("d/f{n}"));
                assert!(found == data::bytes(n, 150_000), "d/f{n}, round {round}, {save:?}");
            }
        }
    }
}

#[test]
fn fsync_of_a_directory_keeps_its_names_under_every_policy() {
    for save in [Save::Flush, Save::Release, Save::Interval(Duration::from_secs(3_600))] {
        let peer = Peer::saving(save);
        fs::create_dir(peer.path("d")).unwrap();
        for name in ["a", "b", "c"] {
            File::create(peer.path("d").join(name)).unwrap();
        }
        fs::rename(peer.path("d/a"), peer.path("d/z")).unwrap();
        fs::remove_file(peer.path("d/b")).unwrap();
        File::open(peer.path("d")).unwrap().sync_all().unwrap();
        peer.kill_and_remount();
        assert_eq!(peer.names("d"), ["c", "z"], "{save:?}");
    }
}

#[test]
fn a_write_through_o_sync_is_kept_under_every_policy() {
    for (flag, save) in
        [(OFlags::SYNC, Save::Interval(Duration::from_secs(3_600))), (OFlags::DSYNC, Save::Release)]
    {
        let peer = Peer::saving(save);
        peer.write("source", data::bytes(2, 50_000));
        peer.wait_safe();
        let flag = i32::try_from(flag.bits()).unwrap();
        let path = peer.path("f");
        let mut file =
            OpenOptions::new().write(true).create(true).custom_flags(flag).open(path).unwrap();
        file.write_all(&data::bytes(1, 100_000)).unwrap();
        // By copy_file_range(2).
        io::copy(&mut File::open(peer.path("source")).unwrap(), &mut file).unwrap();
        peer.kill();
        drop(file);
        peer.mount_again();
        let wanted = [data::bytes(1, 100_000), data::bytes(2, 50_000)].concat();
        assert!(peer.read("f") == wanted, "{save:?}");
    }
}

#[test]
fn what_is_reported_safe_is_kept_under_release() {
    let peer = Peer::saving(Save::Release);
    for round in 0..6 {
        peer.write(format!("f{round}"), data::bytes(round, 300_000));
        peer.wait_safe();
        peer.kill_and_remount();
        for n in 0..=round {
            assert!(peer.read(format!("f{n}")) == data::bytes(n, 300_000), "f{n}, {round}");
        }
    }
}

/// A bucket of which is tried when it is saved.
fn timely(save: Save) -> Peer {
    Peer::in_memory(Duration::from_secs(240), &["--save", &save.text()])
}

#[test]
fn a_closed_file_is_saved_soon_under_release_and_within_the_interval() {
    for save in [Save::Release, Save::Interval(Duration::from_millis(300))] {
        let peer = timely(save);
        peer.write("f", data::bytes(1, 300_000));
        let_pass(save.max_age() + SLACK);
        peer.kill_and_remount();
        assert!(peer.read("f") == data::bytes(1, 300_000), "{save:?}");
    }
}

#[test]
fn a_file_that_stays_open_is_saved_within_the_interval() {
    let save = Save::Interval(Duration::from_millis(300));
    let peer = timely(save);
    let file = File::create(peer.path("f")).unwrap();
    file.write_all_at(&data::bytes(1, 300_000), 0).unwrap();
    let_pass(save.max_age() + SLACK);
    peer.kill();
    drop(file);
    peer.mount_again();
    assert!(peer.read("f") == data::bytes(1, 300_000));
}

#[test]
fn changes_of_metadata_alone_are_saved_in_time_under_every_policy() {
    for save in [Save::Flush, Save::Release, Save::Interval(Duration::from_millis(400))] {
        // Each alone: nothing else may carry it along.
        let acts: [Act; 9] = [
            ("mkdir", |p| fs::create_dir(p.path("n")).unwrap(), |p| p.path("n").is_dir()),
            ("rm", |p| fs::remove_file(p.path("f")).unwrap(), |p| !p.path("f").exists()),
            (
                "mv",
                |p| fs::rename(p.path("f"), p.path("g")).unwrap(),
                |p| p.path("g").exists() && !p.path("f").exists(),
            ),
            ("touch", touch, |p| p.path("n").is_file()),
            ("rmdir", |p| fs::remove_dir(p.path("d")).unwrap(), |p| !p.path("d").exists()),
            ("chmod", |p| chmod(p, 0o600), |p| mode(p) == 0o600),
            ("ln", |p| fs::hard_link(p.path("f"), p.path("l")).unwrap(), |p| p.path("l").exists()),
            (
                "ln -s",
                |p| std::os::unix::fs::symlink("f", p.path("l")).unwrap(),
                |p| fs::read_link(p.path("l")).is_ok(),
            ),
            ("truncate", |p| truncate(p, 1), |p| fs::metadata(p.path("f")).unwrap().len() == 1),
        ];
        let peers: Vec<_> = acts
            .iter()
            .map(|_| {
                let peer = timely(save);
                fs::create_dir(peer.path("d")).unwrap();
                peer.write("f", "xyz");
                chmod(&peer, 0o644);
                peer.wait_safe();
                peer
            })
            .collect();
        for ((_, act, _), peer) in acts.iter().zip(&peers) {
            act(peer);
        }
        let_pass(save.max_age() + SLACK);
        for ((what, _, kept), peer) in acts.iter().zip(&peers) {
            peer.kill_and_remount();
            assert!(kept(peer), "{what} alone was not saved within {save:?}");
        }
    }
}

fn touch(peer: &Peer) {
    let mut command = Command::new("touch");
    cairnfs_tests::run(command.arg(peer.path("n")), Duration::from_secs(20)).succeeds();
}

fn chmod(peer: &Peer, mode: u32) {
    fs::set_permissions(peer.path("f"), fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(peer: &Peer) -> u32 {
    fs::metadata(peer.path("f")).unwrap().permissions().mode() & 0o777
}

fn truncate(peer: &Peer, len: u64) {
    let mut command = Command::new("truncate");
    command.args(["-s", &len.to_string()]).arg(peer.path("f"));
    cairnfs_tests::run(&mut command, Duration::from_secs(20)).succeeds();
}

#[test]
fn replacing_a_saved_file_by_rename_leaves_the_old_or_the_new_after_a_kill() {
    let mut rng = data::Rng::new(21);
    for save in [Save::Flush, Save::Release, Save::Interval(Duration::from_millis(100))] {
        let peer = Peer::saving(save);
        peer.write("f", vec![b'a'; 20_000]);
        peer.wait_safe();
        for round in 0..12 {
            let delay = Duration::from_millis(rng.below(120));
            thread::scope(|scope| {
                let peer = &peer;
                thread::Builder::new()
                    .name("editor".into())
                    .spawn_scoped(scope, move || {
                        // As editors save: until the daemon is gone.
                        for byte in (b'a'..=b'z').cycle() {
                            let tmp = peer.path("f.tmp");
                            let saved = cairnfs_tests::peer::write(&tmp, &vec![byte; 20_000])
                                .and_then(|()| fs::rename(&tmp, peer.path("f")));
                            if saved.is_err() {
                                return;
                            }
                        }
                    })
                    .unwrap();
                let_pass(delay);
                peer.kill();
            });
            peer.mount_again();
            let found = peer.read("f");
            assert_eq!(found.len(), 20_000, "round {round}, {save:?}");
            assert!(found.iter().all(|&byte| byte == found[0]), "a mixture: {round}, {save:?}");
        }
    }
}

#[test]
fn unmounting_saves_everything_under_every_policy() {
    for save in [Save::Flush, Save::Release, Save::Interval(Duration::from_secs(3_600))] {
        let peer = Peer::saving(save);
        peer.write("f", data::bytes(1, 500_000));
        fs::create_dir(peer.path("d")).unwrap();
        peer.umount();
        peer.home().kill();
        peer.mount();
        assert!(peer.read("f") == data::bytes(1, 500_000), "{save:?}");
        assert!(peer.path("d").is_dir(), "{save:?}");
    }
}

#[test]
fn sigterm_while_files_are_open_saves_them_and_ends_the_daemon_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let peer = Peer::saving(Save::Interval(Duration::from_secs(3_600)));
        let file = File::create(peer.path("f")).unwrap();
        file.write_all_at(&data::bytes(1, 400_000), 0).unwrap();
        let pid = peer.pid();
        process::signal(pid, signal);
        eventually("the daemon ends", Duration::from_secs(20), || !process::is_alive(pid));
        eventually("the mount is gone", Duration::from_secs(5), || {
            !mounts::is_mounted(&peer.dir())
        });
        drop(file);
        peer.mount();
        assert!(peer.read("f") == data::bytes(1, 400_000), "{signal:?}");
    }
}

#[test]
fn a_mount_in_the_foreground_stops_cleanly_on_a_signal() {
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    let dir_text = dir.to_str().unwrap();
    let args = ["mount", BUCKET, dir_text, "--foreground", "--save", "interval:1h"];
    let mut mount = home.start(&args);
    eventually("it is mounted", Duration::from_secs(20), || {
        assert!(!mount.ended(), "it ended: {}", mount.stderr_so_far());
        mounts::is_mounted(&dir)
    });
    fs::write(dir.join("f"), data::bytes(1, 200_000)).unwrap();
    mount.signal(Signal::TERM);
    mount.wait(Duration::from_secs(20)).succeeds();
    assert!(!mounts::is_mounted(&dir));
    home.mount(BUCKET, &dir, &[]);
    assert!(fs::read(dir.join("f")).unwrap() == data::bytes(1, 200_000));
}
