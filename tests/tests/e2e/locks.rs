//! Locks work between processes.

use std::{fs::File, process::Command, time::Duration};

use cairnfs_tests::{Peer, Running, eventually, need, run};
use rustix::{
    fs::{FlockOperation, fcntl_lock, flock},
    process::Signal,
};

/// Tries for a lock from another process: `flock` or `lockf`.
fn free(peer: &Peer, call: &str) -> bool {
    let script = format!(
        "import fcntl,sys\nf=open(sys.argv[1],'r+')\ntry:\n fcntl.{call}(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\nexcept BlockingIOError:\n sys.exit(9)"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &script]).arg(peer.path("f"));
    match run(&mut command, Duration::from_secs(20)) {
        outcome if outcome.code == Some(9) => false,
        outcome => {
            outcome.succeeds();
            true
        }
    }
}

#[test]
fn flock_and_fcntl_locks_keep_other_processes_out() {
    need::program("python3", "python3");
    let peer = Peer::new();
    peer.write("f", "x");
    let file = File::options().read(true).write(true).open(peer.path("f")).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    assert!(!free(&peer, "flock"));
    flock(&file, FlockOperation::Unlock).unwrap();
    assert!(free(&peer, "flock"));
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    assert!(!free(&peer, "lockf"));
    fcntl_lock(&file, FlockOperation::Unlock).unwrap();
    assert!(free(&peer, "lockf"));
}

#[test]
fn the_lock_of_a_killed_process_is_free() {
    need::program("python3", "python3");
    let peer = Peer::new();
    peer.write("f", "x");
    let mut holder = Command::new("python3");
    holder.args(["-c", "import fcntl,sys,signal\nf=open(sys.argv[1],'r+')\nfcntl.flock(f,fcntl.LOCK_EX)\nopen(sys.argv[2],'w').close()\nsignal.pause()"]);
    let ready = peer.scratch().join("ready");
    holder.arg(peer.path("f")).arg(&ready);
    let mut holder = Running::start(&mut holder);
    eventually("the lock is taken", Duration::from_secs(20), || ready.exists() || holder.ended());
    assert!(!free(&peer, "flock"));
    holder.signal(Signal::KILL);
    eventually("the lock is free", Duration::from_secs(10), || free(&peer, "flock"));
}
