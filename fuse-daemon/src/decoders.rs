//! Every decoder of bytes that a peer, another process or a person may bring, behind one door: for
//! the fuzzer in `fuzz/` and the tests in `tests/decoders.rs`. None of them may panic, or take
//! memory or time out of proportion.

use std::path::Path;

use crate::{at_start, control, durable, net, place, settings::Settings};

/// A name, and what says whether bytes are accepted.
pub type Decoder = (&'static str, fn(&[u8]) -> bool);

/// Those of this machine: the daemon's socket, files of the home, the kernel's table of mounts.
const LOCAL: [Decoder; 6] = [
    ("hello", |bytes| {
        <[u8; _]>::try_from(bytes).is_ok_and(|it| control::Hello::decode(it).is_some())
    }),
    ("request", |bytes| control::decode::<control::Request>(bytes).is_ok()),
    ("event", |bytes| control::decode::<control::Event>(bytes).is_ok()),
    ("config", |bytes| {
        let file = |text| Settings::default().read_file(Path::new("config.toml"), text).is_ok();
        str::from_utf8(bytes).is_ok_and(file)
    }),
    ("at-start", |bytes| {
        let file = |text| durable::parse::<at_start::AtStart>(Path::new("file"), text).is_ok();
        str::from_utf8(bytes).is_ok_and(file)
    }),
    ("mounts", |bytes| !place::parse(bytes).is_empty()),
];

/// All of them. The number of one is its place in the list.
pub fn all() -> impl Iterator<Item = Decoder> {
    net::decoders::ALL.into_iter().chain(LOCAL)
}

/// Has the decoder with this number read `bytes`. True if it accepts them.
#[must_use]
pub fn decode(which: u8, bytes: &[u8]) -> bool {
    let nth = usize::from(which) % all().count();
    all().nth(nth).is_some_and(|(_, accepts)| accepts(bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use cairnfs_mount_core::Time;
    use cairnfs_store::DevicePublicKey;

    use super::*;
    use crate::{
        control::{
            Answer, Event, Hello, How, MountRequest, Opening, Progress, Request, VersionReport,
        },
        secret::Secret,
    };

    fn samples() -> Vec<(&'static str, Vec<u8>)> {
        let opening =
            Opening { bucket: "photos".parse().unwrap(), secret: Some(Secret::new(vec![b'x'; 8])) };
        let how = How::new(&cairnfs_mount_core::Options::default(), true, vec!["noatime".into()]);
        let mount = MountRequest { opening: opening.clone(), dir: "/mnt".into(), how };
        let version = VersionReport {
            id: [1; 32],
            time: Time { seconds: 1_800_000_000, nanos: 0 },
            author: DevicePublicKey([2; 32]),
            author_name: "laptop".into(),
            parents: vec![[3; 32]],
            is_whole: true,
            changes: vec![('+', b"a/b".to_vec())],
            more_changes: false,
        };
        let bytes = |it: postcard::Result<Vec<u8>>| it.unwrap();
        let mut samples = net::decoders::samples();
        samples.extend([
            ("hello", Hello { protocol: Hello::PROTOCOL, pid: 9 }.encode().to_vec()),
            ("request", bytes(postcard::to_stdvec(&Request::Mount(mount)))),
            ("request", bytes(postcard::to_stdvec(&Request::Publish(opening)))),
            ("event", bytes(postcard::to_stdvec(&Event::Version(version)))),
            (
                "event",
                bytes(postcard::to_stdvec(&Event::Progress(Progress::Checking {
                    done: 1,
                    total: 2,
                }))),
            ),
            ("event", bytes(postcard::to_stdvec(&Event::End(Ok(Answer::Published([4; 32])))))),
            ("config", "save = \"flush\"\n[bucket.photos]\nsave = \"interval:10s\"\n".into()),
            (
                "at-start",
                "[[mount]]\nbucket = \"photos\"\ndir = \"/mnt\"\nsave = \"flush\"\n\
                 cache = \"1MiB\"\ndirty = \"1MiB\"\npublish_quiet = \"1s\"\npublish_max = \"9s\"\n\
                 uid = 1026\n[mount.passphrase]\npassphrase_file = \"/p\"\n"
                    .into(),
            ),
            (
                "mounts",
                "36 35 0:52 / /mnt/a\\040b rw,nosuid - fuse.cairnfs cairnfs:photos rw\n".into(),
            ),
        ]);
        samples
    }

    /// The seeds of the fuzzer and of `tests/decoders.rs` are what today's code writes.
    #[test]
    fn the_corpus_is_what_is_written_and_accepted() {
        let corpus = PathBuf::from_iter([env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", "daemon"]);
        let bless = std::env::var_os("CAIRNFS_BLESS").is_some();
        for (nth, (name, bytes)) in samples().into_iter().enumerate() {
            let which = all().position(|(known, _)| known == name).unwrap();
            let seed = [&[u8::try_from(which).unwrap()], &bytes[..]].concat();
            assert!(decode(seed[0], &bytes), "{name}: refused");
            let path = corpus.join(format!("{nth:02}-{name}.bin"));
            if bless {
                fs::write(&path, &seed).unwrap();
            }
            assert_eq!(fs::read(&path).unwrap(), seed, "{}", path.display());
        }
    }
}
