//! Nothing to read: no plaintext, no name, no key in the open.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
};

use cairnfs_tests::{Home, Peer, peer::BUCKET};

#[test]
fn stored_bytes_hold_no_content_and_no_name() {
    let peer = Peer::new();
    let marks = [
        "needle-in-content-4711",
        "needle-in-name-4712",
        "needle-in-target-4713",
        "needle-in-xattr-4714",
        "needle-in-dir-4715",
    ];
    fs::create_dir(peer.path(marks[4])).unwrap();
    for n in 0..20 {
        peer.write(format!("{}/{}-{n}", marks[4], marks[1]), marks[0].repeat(1 + n * n * 10));
    }
    std::os::unix::fs::symlink(marks[2], peer.path("link")).unwrap();
    let attribute = rustix::fs::setxattr(
        peer.path(marks[4]),
        "user.mark",
        marks[3].as_bytes(),
        rustix::fs::XattrFlags::empty(),
    );
    attribute.unwrap();
    fs::File::open(peer.dir()).unwrap().sync_all().unwrap();
    for round in ["saved", "published"] {
        for (path, _) in peer.home().files() {
            let bytes = fs::read(&path).unwrap();
            for mark in marks {
                let found = bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
                assert!(!found, "{mark} stands in {}, {round}", path.display());
                assert!(!path.to_string_lossy().contains(mark), "{mark} is a file name, {round}");
            }
        }
        peer.remount();
    }
}

#[test]
fn keys_and_sockets_are_for_the_owner_only() {
    let peer = Peer::new();
    peer.write("f", "x");
    assert!(!peer.home().files().is_empty());
    let mut dirs = vec![peer.home().path().to_owned()];
    let mut sockets = 0;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let mode = meta.permissions().mode() & 0o777;
            if meta.is_dir() {
                dirs.push(path);
            } else if meta.file_type().is_socket() {
                sockets += 1;
                assert_eq!(mode, 0o600, "{}", path.display());
            } else {
                let name = path.file_name().unwrap().to_string_lossy().to_lowercase();
                let secret =
                    ["key", "secret", "identity", "device"].iter().any(|word| name.contains(word));
                assert!(!secret || mode == 0o600, "{mode:o} {}", path.display());
                assert_eq!(mode & 0o022, 0, "{mode:o} {}", path.display());
            }
        }
    }
    assert_eq!(sockets, 1, "the daemon listens on one socket");
}

#[test]
fn a_careless_umask_opens_nothing() {
    let home = Home::new();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "umask 000; exec \"$0\" create photos --no-passphrase"])
        .arg(cairnfs_tests::binary::path());
    cairnfs_tests::run(home.settle(&mut command), std::time::Duration::from_secs(30)).succeeds();
    for (path, _) in home.files() {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{mode:o} {}", path.display());
    }
    let key = home
        .files()
        .into_iter()
        .filter(|(path, _)| fs::metadata(path).unwrap().permissions().mode() & 0o777 == 0o600);
    assert!(key.count() > 0);
}

#[test]
fn a_passphrase_is_in_no_file_and_in_no_process_list() {
    let home = Home::new();
    let passphrase = "swordfish-8472-swordfish";
    let file = home.beside("passphrase");
    fs::write(&file, passphrase).unwrap();
    let file = file.to_str().unwrap().to_owned();
    home.cairnfs(&["create", BUCKET, "--passphrase-file", &file]).succeeds();
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &["--passphrase-file", &file]);
    fs::write(dir.join("f"), "x").unwrap();
    for (path, _) in home.files() {
        let bytes = fs::read(&path).unwrap();
        assert!(
            !bytes.windows(passphrase.len()).any(|window| window == passphrase.as_bytes()),
            "{}",
            path.display()
        );
    }
    for pid in cairnfs_tests::process::of_home(home.path()) {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(
                !text.windows(passphrase.len()).any(|window| window == passphrase.as_bytes()),
                "{file}"
            );
        }
    }
}
