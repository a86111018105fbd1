//! Memory maps are files.

use std::{process::Command, time::Duration};

use cairnfs_tests::{Peer, data, need, run};

/// Runs a Python program on the file `f` of the mount.
fn python(peer: &Peer, program: &str) {
    need::program("python3", "python3");
    let mut command = Command::new("python3");
    command.args(["-c", program]).arg(peer.path("f")).arg(peer.path("g"));
    run(&mut command, Duration::from_secs(60)).succeeds();
}

#[test]
fn a_shared_map_reads_and_writes_the_file() {
    let peer = Peer::new();
    let mut wanted = data::bytes(1, 1_000_003);
    peer.write("f", &wanted);
    python(
        &peer,
        "import mmap,sys,os
fd=os.open(sys.argv[1],os.O_RDWR)
m=mmap.mmap(fd,0)
assert len(m)==1000003
m[10:15]=b'hello'
m[999_999:1_000_003]=b'tail'
# What is written by write() is seen in the map, and the other way round.
os.pwrite(fd,b'by write',500_000)
assert m[500_000:500_008]==b'by write'
assert os.pread(fd,5,10)==b'hello'
m.flush()
os.fsync(fd)
m.close()
os.close(fd)",
    );
    wanted[10..15].copy_from_slice(b"hello");
    wanted[999_999..].copy_from_slice(b"tail");
    wanted[500_000..500_008].copy_from_slice(b"by write");
    assert!(peer.read("f") == wanted);
    peer.kill_and_remount();
    assert!(peer.read("f") == wanted, "after kill -9");
}

#[test]
fn a_map_written_by_a_process_that_ends_is_saved() {
    let peer = Peer::new();
    peer.write("f", vec![0; 300_000]);
    python(
        &peer,
        "import mmap,sys,os
fd=os.open(sys.argv[1],os.O_RDWR)
m=mmap.mmap(fd,0)
os.close(fd)
for n in range(0,300_000,1000): m[n:n+4]=b'mark'",
    );
    let check = |round| {
        let found = peer.read("f");
        assert!((0..300_000).step_by(1_000).all(|n| &found[n..n + 4] == b"mark"), "{round}");
    };
    check("at once");
    peer.remount();
    check("remounted");
}

#[test]
fn a_private_map_leaves_the_file_alone_and_programs_run_from_the_mount() {
    let peer = Peer::new();
    peer.write("f", "unchanged");
    python(
        &peer,
        "import mmap,sys
with open(sys.argv[1],'rb') as f:
    m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_COPY)
    m[0:2]=b'XX'",
    );
    assert_eq!(peer.read("f"), b"unchanged");
    // Not open for writing here: a process that another test is just starting would keep it so.
    run(Command::new("cp").arg("/bin/true").arg(peer.dir()), Duration::from_secs(20)).succeeds();
    let mut program = Command::new(peer.path("true"));
    run(&mut program, Duration::from_secs(20)).succeeds();
}

#[test]
fn a_map_shows_what_another_file_was_copied_from() {
    let peer = Peer::new();
    peer.write("f", data::bytes(3, 3_000_000));
    python(
        &peer,
        "import mmap,sys
with open(sys.argv[1],'rb') as f, open(sys.argv[2],'wb') as g:
    m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ)
    for n in range(0,3_000_000,12_345): g.write(m[n:n+12_345])",
    );
    assert!(peer.read("g") == data::bytes(3, 3_000_000));
}
