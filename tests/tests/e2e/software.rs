//! Programs that people use, each with the daemon killed by -9 and mounted again in between.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cairnfs_tests::{
    Outcome, Peer, Rng, Running, Tree, eventually, need, peer::write, poll::let_pass, run,
};

/// Only ends what hangs: thousands of files are thousands of barriers.
const LONG: Duration = Duration::from_secs(600);

/// Unpacks a few thousand source files from a tar file: what cargo unpacked to build this very
/// project.
fn unpack(peer: &Peer, into: &Path) {
    let tar = peer.scratch().join("source.tar");
    if !tar.exists() {
        let home = env::var_os("CARGO_HOME").map_or_else(
            || PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cargo"),
            PathBuf::from,
        );
        let script = "cd \"$0\"/registry/src/*/ && find . -type f -size -200k | LC_ALL=C sort \
                      | head -n 3000 | tar -cf \"$1\" -T -";
        let mut command = Command::new("bash");
        command.args(["-c", script]).arg(home).arg(&tar);
        run(&mut command, LONG).succeeds();
    }
    let mut command = Command::new("tar");
    run(command.arg("-xf").arg(&tar).arg("-C").arg(into), LONG).succeeds();
}

#[track_caller]
fn sh(dir: &Path, script: &str) -> Outcome {
    shell(dir, script).succeeds()
}

fn shell(dir: &Path, script: &str) -> Outcome {
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env_remove("GIT_DIR");
    for name in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{name}_NAME"), "Test")
            .env(format!("GIT_{name}_EMAIL"), "t@example.org");
    }
    run(&mut command, LONG)
}

#[test]
fn a_source_tree_of_thousands_of_files_is_unpacked() {
    let peer = Peer::within(LONG * 3, &[]);
    let outside = peer.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    unpack(&peer, &outside);
    let wanted = Tree::of(&outside);
    assert!(wanted.len() >= 2_000, "only {} entries", wanted.len());
    let inside = peer.path("tree");
    fs::create_dir(&inside).unwrap();
    unpack(&peer, &inside);
    wanted.same_as(&Tree::of(&inside));
    peer.wait_safe();
    peer.kill_and_remount();
    wanted.same_as(&Tree::of(&inside));
    // A second time, killed on the way: the first one is as it was, and unpacking again completes.
    let second = peer.path("second");
    fs::create_dir(&second).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(peer.scratch().join("source.tar")).arg("-C").arg(&second);
    let tar = Running::start(&mut tar);
    eventually("some of it is there", LONG, || fs::read_dir(&second).unwrap().count() > 2);
    peer.kill_and_remount();
    drop(tar);
    wanted.same_as(&Tree::of(&inside));
    fs::create_dir_all(&second).unwrap();
    unpack(&peer, &second);
    peer.remount();
    wanted.same_as(&Tree::of(&second));
    if !peer.is_plain() {
        peer.check().succeeds();
    }
    fs::remove_dir_all(&second).unwrap();
    fs::remove_dir_all(&inside).unwrap();
    assert!(peer.names("").is_empty());
}

#[test]
fn git_commits_packs_and_verifies() {
    need::program("git", "git");
    let peer = Peer::within(LONG * 2, &[]);
    let repo = peer.path("repo");
    sh(&peer.dir(), "git init -q -b main repo");
    sh(
        &repo,
        "for n in $(seq 60); do mkdir -p d$((n % 7)); seq $n $((n * 40)) > d$((n % 7))/f$n; done
               git add -A && git commit -qm first",
    );
    for round in 1..=8 {
        sh(
            &repo,
            &format!(
                "seq {round} 500 > d1/f1; echo {round} >> log; git add -A; git commit -qm 'round {round}'"
            ),
        );
        if round % 2 == 0 {
            peer.wait_safe();
            peer.kill_and_remount();
            let log = sh(&repo, "git fsck --full --strict && git log --oneline | wc -l").stdout;
            assert_eq!(log.lines().last().unwrap().trim(), (round + 1).to_string());
            assert_eq!(sh(&repo, "git status --porcelain").stdout, "");
        }
    }
    sh(&repo, "git branch side HEAD~4; git tag -a -m note v1; git gc -q --prune=now");
    peer.wait_safe();
    peer.kill_and_remount();
    sh(
        &repo,
        "git fsck --full --strict; git checkout -q side; git checkout -q main; git stash list",
    );
    sh(
        &peer.dir(),
        "git clone -q repo clone && cd clone && git fsck --full && git worktree add -q ../tree side",
    );
    assert_eq!(sh(&peer.path("tree"), "git log --oneline | wc -l").stdout.trim(), "5");
    let before = sh(&repo, "git rev-parse HEAD").stdout;
    peer.remount();
    assert_eq!(sh(&peer.path("clone"), "git rev-parse HEAD").stdout, before);
    sh(&peer.path("clone"), "git fsck --full --strict");
    // A worktree of its own branch, packed and cleaned from the other side, over a kill.
    let tree = peer.path("tree");
    sh(&tree, "echo there > in-tree; git add in-tree; git commit -qm there; git repack -qad");
    sh(&peer.path("clone"), "git gc -q --prune=now; git worktree list | grep -c tree");
    peer.wait_safe();
    peer.kill_and_remount();
    sh(
        &tree,
        "git fsck --full --strict; git status --porcelain | wc -l | grep -x 0; git log -1 --format=%s | grep -x there",
    );
    sh(
        &peer.path("clone"),
        "git worktree remove --force ../tree; git worktree prune; git fsck --full",
    );
    assert!(!tree.exists());
}

#[test]
fn git_killed_in_the_middle_of_commits_stays_consistent() {
    need::program("git", "git");
    let peer = Peer::within(LONG * 2, &[]);
    let repo = peer.path("repo");
    sh(&peer.dir(), "git init -q -b main repo; cd repo; echo 0 > f; git add f; git commit -qm 0");
    peer.wait_safe();
    let mut rng = Rng::new(5);
    for round in 0..6 {
        if peer.is_plain() {
            break;
        }
        let mut commits = Command::new("bash");
        commits
            .args(["-c", "for n in $(seq 200); do echo $n >> f; seq $n 99 > g$n; git add -A && git -c user.name=T -c user.email=t@e commit -qm $n || exit 1; done"])
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .current_dir(&repo);
        let commits = Running::start(&mut commits);
        let_pass(Duration::from_millis(200 + rng.below(900)));
        peer.kill();
        drop(commits);
        peer.mount_again();
        // As git itself advises after a crash.
        sh(&repo, "find .git -name '*.lock' -delete");
        let fsck = shell(&repo, "git fsck --full 2>&1");
        assert_eq!(fsck.code, Some(0), "round {round}: {fsck}");
        sh(&repo, "git reset -q --hard && git add -A && git commit -q --allow-empty -m after");
        peer.wait_safe();
    }
}

/// Inserts rows, one transaction each, and notes each commit outside, with an fsync.
const SQLITE_LOAD: &str = "
import sqlite3, sys, os, hashlib
path, record, mode, sync = sys.argv[1:5]
db = sqlite3.connect(path, timeout=30, isolation_level=None)
assert db.execute('pragma journal_mode=' + mode).fetchone()[0] == mode
db.execute('pragma synchronous=' + sync)
db.execute('create table if not exists t(n integer primary key, body blob, hash text)')
out = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
n = db.execute('select coalesce(max(n),-1) from t').fetchone()[0] + 1
while True:
    db.execute('begin immediate')
    for k in range(3):
        body = os.urandom(100 + n * 911 % 9000)
        db.execute('insert into t values(?,?,?)', (n, body, hashlib.sha256(body).hexdigest()))
        n += 1
    if n % 5 == 0:
        db.execute('update t set hash=upper(hash) where n % 7 = ?', (n % 7,))
    db.execute('commit')
    # sqlite takes a directory that cannot be opened, as its daemon has just been killed, for synced.
    os.close(os.open(os.path.dirname(path), os.O_RDONLY))
    os.write(out, b'%d\\n' % (n - 1))
    os.fsync(out)
";

const SQLITE_CHECK: &str = "
import sqlite3, sys, hashlib
path, record = sys.argv[1:3]
db = sqlite3.connect(path, timeout=30)
found = db.execute('pragma integrity_check').fetchall()
assert found == [('ok',)], found
acknowledged = [int(line) for line in open(record)]
last = max(acknowledged, default=-1)
rows = db.execute('select n, body, hash from t order by n').fetchall()
assert [row[0] for row in rows] == list(range(len(rows))), 'a row is missing'
assert len(rows) > last, f'row {last} was committed, {len(rows)} rows are there'
assert len(rows) % 3 == 0, 'half a transaction'
for n, body, digest in rows:
    assert hashlib.sha256(body).hexdigest() == digest.lower(), f'row {n}'
print(len(rows))
";

fn sqlite_under_load(mode: &str, sync: &str, policy: &str) {
    need::program("python3", "python3");
    let peer = Peer::within(LONG * 2, &["--save", policy]);
    let (db, record) = (peer.path("test.db"), peer.scratch().join("record"));
    let mut rng = Rng::new(3);
    let mut rows = 0;
    for round in 0..6 {
        let mut load = Command::new("python3");
        load.args(["-c", SQLITE_LOAD]).arg(&db).arg(&record).args([mode, sync]);
        let mut load = Running::start(&mut load);
        let lines = || fs::read_to_string(&record).unwrap_or_default().lines().count();
        let goal = lines() + 5 + rng.index(40);
        eventually("transactions are committed", LONG, || {
            assert!(!load.ended(), "{mode}: it ended: {}", load.stderr_so_far());
            lines() >= goal
        });
        let_pass(Duration::from_millis(rng.below(20)));
        if peer.is_plain() {
            drop(load);
        } else {
            peer.kill();
            load.wait(Duration::from_secs(60));
            peer.mount_again();
        }
        let mut check = Command::new("python3");
        check.args(["-c", SQLITE_CHECK]).arg(&db).arg(&record);
        let outcome = run(&mut check, LONG);
        assert_eq!(outcome.code, Some(0), "{mode}, round {round}: {outcome}");
        rows = outcome.stdout.trim().parse().unwrap();
    }
    assert!(rows > 60, "{rows} rows");
    let mut command = Command::new("sqlite3");
    need::program("sqlite3", "sqlite3");
    let outcome =
        run(command.arg(&db).arg("pragma integrity_check; vacuum; select count(*) from t"), LONG)
            .succeeds();
    assert_eq!(outcome.stdout, format!("ok\n{rows}\n"));
}

#[test]
fn sqlite_with_a_journal_keeps_every_commit() {
    // `extra` also asks for the journal's removal to be durable, which is the commit.
    sqlite_under_load("delete", "extra", "flush");
}

#[test]
fn sqlite_with_a_wal_keeps_every_commit() {
    sqlite_under_load("wal", "full", "flush");
}

#[test]
fn sqlite_keeps_every_commit_when_only_fsync_saves() {
    sqlite_under_load("wal", "full", "interval:1h");
    sqlite_under_load("truncate", "full", "interval:1h");
}

#[test]
fn two_processes_share_one_sqlite_database() {
    need::program("python3", "python3");
    let peer = Peer::within(LONG * 3, &[]);
    let db = peer.path("shared.db");
    // Not by all three at once: who changes the mode does not wait for the others.
    let mut command = Command::new("sqlite3");
    need::program("sqlite3", "sqlite3");
    run(command.arg(&db).arg("pragma journal_mode=wal"), LONG).succeeds();
    let script = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=300, isolation_level=None)
db.execute('create table if not exists t(who, n)')
for n in range(100):
    db.execute('insert into t values(?,?)', (sys.argv[2], n))
";
    let mut children = Vec::new();
    for who in ["a", "b", "c"] {
        let mut command = Command::new("python3");
        children.push(Running::start(command.args(["-c", script]).arg(&db).arg(who)));
    }
    for child in children {
        child.wait(LONG).succeeds();
    }
    peer.wait_safe();
    peer.kill_and_remount();
    let mut command = Command::new("sqlite3");
    let query = "pragma integrity_check; select who, count(distinct n) from t group by who";
    let outcome = run(command.arg(&db).arg(query), LONG).succeeds();
    assert_eq!(outcome.stdout, "ok\na|100\nb|100\nc|100\n");
}

#[test]
fn rsync_finds_no_difference_in_and_out() {
    need::program("rsync", "rsync");
    let peer = Peer::within(LONG * 3, &[]);
    let source = peer.scratch().join("source");
    fs::create_dir(&source).unwrap();
    unpack(&peer, &source);
    // Fewer, and everything that rsync can carry besides.
    sh(&source, "ls -d */* | tail -n +60 | xargs -d '\\n' rm -rf
                 mkdir special; cd special; echo x > file; ln file hard; ln -s file soft; ln -s /nowhere broken
                 mkfifo pipe; truncate -s 30M sparse; touch -h -d '2001-02-03 04:05:06.7' soft broken pipe; touch -d '1969-07-20 20:17:40.123456789 UTC' old
                 chmod 4711 file; mkdir -m 1777 sticky; printf 'a\\nb' > $'new\\nline'
                 setfattr -n user.note -v value file");
    let wanted = Tree::of(&source);
    let rsync = |args: &str, from: &Path, to: &Path| {
        sh(Path::new("/"), &format!("rsync -aHXS {args} '{}/' '{}/'", from.display(), to.display()))
            .stdout
    };
    let inside = peer.path("inside");
    fs::create_dir(&inside).unwrap();
    // Killed on the way, and run again, as one would.
    if !peer.is_plain() {
        let mut first = Command::new("rsync");
        first.arg("-aHXS").arg(format!("{}/", source.display())).arg(&inside);
        let first = Running::start(&mut first);
        eventually("rsync has begun", LONG, || {
            fs::read_dir(&inside).is_ok_and(|dir| dir.count() > 1)
        });
        peer.kill();
        drop(first);
        peer.mount_again();
        fs::create_dir_all(&inside).unwrap();
    }
    rsync("--delete", &source, &inside);
    wanted.same_as(&Tree::of(&inside));
    peer.wait_safe();
    peer.kill_and_remount();
    wanted.same_as(&Tree::of(&inside));
    assert_eq!(rsync("-n -c -i --delete", &source, &inside), "", "rsync sees a difference");
    let back = peer.scratch().join("back");
    fs::create_dir(&back).unwrap();
    rsync("", &inside, &back);
    wanted.same_as(&Tree::of(&back));
    assert_eq!(rsync("-n -c -i --delete", &back, &source), "", "rsync sees a difference");
}

#[test]
fn tar_carries_links_attributes_and_holes() {
    need::program("tar", "tar");
    need::program("getfattr", "attr");
    let peer = Peer::new();
    let source = peer.scratch().join("source");
    fs::create_dir(&source).unwrap();
    sh(&source, "mkdir -p a/b; seq 50000 > a/f; ln a/f a/b/hard; ln a/f hard; ln -s a/f soft; mkfifo pipe
                 truncate -s 40M sparse; printf end >> sparse; printf mid | dd of=sparse bs=1M seek=20 conv=notrunc status=none
                 setfattr -n user.one -v 1 a/f; setfattr -n user.dir -v d a; setfattr -n trusted.t -v t hard
                 printf x > $'odd\\xff\nname'; chmod 2750 a; touch -d '1931-01-02 03:04:05.678901234 UTC' a/f
                 touch -d '2109-12-31 23:59:59.999999999 UTC' sparse");
    let wanted = Tree::of(&source);
    let told = |dir: &Path| {
        sh(dir, "getfattr -R -h -d -m '^(user|trusted)\\.' . 2>/dev/null | LC_ALL=C sort
                 find . -type f -printf '%n %s %T@ %U:%G %m %P\\0' | LC_ALL=C sort -z | tr '\\0' '\\n'
                 [[ a/f -ef hard && a/f -ef a/b/hard ]] && echo linked").stdout
    };
    let before = told(&source);
    assert!(before.contains("user.one=\"1\"") && before.ends_with("linked\n"), "{before}");
    let tar = "tar --xattrs --xattrs-include='*' -S";
    let copy = |from: &Path, to: &Path| {
        fs::create_dir(to).unwrap();
        sh(to, &format!("{tar} -C '{}' -cf - . | {tar} -xpf -", from.display()));
    };
    let inside = peer.path("inside");
    copy(&source, &inside);
    peer.wait_safe();
    for round in ["fresh", "killed"] {
        wanted.same_as(&Tree::of(&inside));
        assert_eq!(told(&inside), before, "{round}");
        let blocks = sh(&inside, "stat -c %b sparse").stdout;
        assert!(blocks.trim().parse::<u64>().unwrap() < 2_048, "{round}: {blocks} blocks");
        if !peer.is_plain() {
            peer.kill_and_remount();
        }
    }
    let back = peer.scratch().join("back");
    copy(&inside, &back);
    wanted.same_as(&Tree::of(&back));
    assert_eq!(told(&back), before);
}

#[test]
fn cargo_builds_with_its_target_directory_in_the_bucket() {
    let peer = Peer::within(LONG * 3, &[]);
    let project = peer.path("hello");
    fs::create_dir_all(project.join("src")).unwrap();
    fs::create_dir_all(project.join("dep/src")).unwrap();
    let file = |name: &str, text: &str| write(&project.join(name), text.as_bytes()).unwrap();
    file(
        "Cargo.toml",
        "[package]\nname='hello'\nversion='0.1.0'\nedition='2024'\n[dependencies]\ndep={path='dep'}\n[workspace]\n",
    );
    file("dep/Cargo.toml", "[package]\nname='dep'\nversion='0.1.0'\nedition='2024'\n");
    file("dep/src/lib.rs", "pub fn greet() -> &'static str { \"hello\" }\n");
    file("src/main.rs", "fn main() { println!(\"{} from the bucket\", dep::greet()) }\n");
    let build =
        || sh(&project, "env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo build --offline 2>&1").stdout;
    assert!(build().contains("Compiling hello"));
    let says = || sh(&project, "target/debug/hello").stdout;
    assert_eq!(says(), "hello from the bucket\n");
    peer.wait_safe();
    let before = Tree::of(&project);
    peer.kill_and_remount();
    before.same_as(&Tree::of(&project));
    assert!(!build().contains("Compiling"), "cargo takes what it built for stale");
    file("dep/src/lib.rs", "pub fn greet() -> &'static str { \"good day\" }\n");
    assert!(build().contains("Compiling dep"));
    assert_eq!(says(), "good day from the bucket\n");
    peer.remount();
    assert_eq!(says(), "good day from the bucket\n");
}

#[test]
fn editors_save_atomically() {
    let peer = Peer::new();
    peer.write("notes.txt", "one\n");
    // As vim does with backups, as sed -i does, as gedit does.
    sh(&peer.dir(), "cp -p notes.txt notes.txt~ && echo two >> notes.txt~ && mv notes.txt~ notes.txt
                     sed -i s/one/ONE/ notes.txt
                     cat notes.txt > .goutputstream-X && echo three >> .goutputstream-X && sync .goutputstream-X && mv .goutputstream-X notes.txt
                     sync .");
    peer.kill_and_remount();
    assert_eq!(peer.read("notes.txt"), b"ONE\ntwo\nthree\n");
    assert_eq!(peer.names(""), ["notes.txt"]);
}
