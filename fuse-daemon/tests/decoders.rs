//! Every decoder of foreign bytes, of all crates: whatever it is given it does not panic, and takes no
//! more memory and time than the bytes are worth. One test, as memory is counted for all threads.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What any decoder may take, however short the bytes. Argon2 is not among them: a key file is opened
/// without a passphrase.
const TAKES_BYTES: usize = 256 << 10;
/// And besides, for each byte: TOML takes 100 for one, in tokens and tables.
const TAKES_PER_BYTE: usize = 200;
/// Far more than any takes, far less than one of quadratic cost.
const LASTS: Duration = Duration::from_secs(10);

struct Door {
    name: &'static str,
    count: u8,
    decode: fn(u8, &[u8]) -> bool,
    /// Seeds of the fuzzer: a byte for the decoder, and bytes that it accepts.
    corpus: &'static str,
}

fn doors() -> [Door; 3] {
    let count = |count: usize| u8::try_from(count).unwrap();
    [
        Door {
            name: "daemon",
            count: count(cairnfs::decoders::all().count()),
            decode: cairnfs::decoders::decode,
            corpus: "fuzz/corpus/daemon",
        },
        Door {
            name: "mount",
            count: count(cairnfs_mount_core::decoders::ALL.len()),
            decode: cairnfs_mount_core::decoders::decode,
            corpus: "../mount-core/fuzz/corpus/mount",
        },
        Door {
            name: "store",
            count: cairnfs_store::decoders::COUNT,
            decode: cairnfs_store::decoders::decode,
            corpus: "../store/tests/format",
        },
    ]
}

impl Door {
    /// Reads and says whether the bytes were accepted.
    fn read(&self, which: u8, bytes: &[u8]) -> bool {
        let (before, began) = (MEMORY.current_usage(), Instant::now());
        MEMORY.reset_peak_usage();
        let accepted = (self.decode)(which, bytes);
        let (took, lasted) = (MEMORY.peak_usage().saturating_sub(before), began.elapsed());
        let what = format!("decoder {which} of {}, {} bytes", self.name, bytes.len());
        assert!(took <= TAKES_BYTES + TAKES_PER_BYTE * bytes.len(), "{what}: took {took} bytes");
        assert!(lasted < LASTS, "{what}: took {lasted:?}");
        accepted
    }

    fn samples(&self) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.corpus);
        let seeds = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        // What a run of the fuzzer adds has no extension.
        let mut seeds: Vec<_> = seeds.filter(|path| path.extension().is_some()).collect();
        seeds.sort();
        let coded = self.corpus.contains("corpus");
        seeds.iter().map(|path| fs::read(path).unwrap()[usize::from(coded)..].to_vec()).collect()
    }
}

/// So much noise, the same for the same round.
fn noise(round: u64, len: usize) -> Vec<u8> {
    let mut noise = vec![0; len];
    blake3::Hasher::new().update(&round.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// `bytes` with some of them others, doubled, or gone.
fn damaged(round: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    let noise = noise(round, 32);
    let place = |at: usize, len: usize| {
        usize::from(u16::from_le_bytes([noise[at], noise[at + 1]])) % (len + 1)
    };
    for edit in 0..usize::from(noise[0] % 4) {
        let at = 2 + 4 * edit;
        let here = place(at, bytes.len());
        match noise[at + 2] % 4 {
            // A length that claims all there can be.
            0 if here < bytes.len() => drop(bytes.splice(here..=here, [0xff; 5])),
            1 => {
                let some = bytes[here..].iter().take(40).copied().collect::<Vec<_>>();
                drop(bytes.splice(here..here, some));
            }
            _ if here < bytes.len() => bytes[here] = noise[at + 3],
            _ => bytes.push(noise[at + 3]),
        }
    }
    if noise[1].is_multiple_of(3) {
        bytes.truncate(place(24, bytes.len()));
    }
    bytes
}

/// The same over and over: what nests, lists and text formats are slow at.
fn long() -> impl Iterator<Item = Vec<u8>> {
    let pieces: [&[u8]; 16] = [
        b"\0",
        b"\x01",
        b"\xff",
        b"\x80",
        b"[",
        b"{a=",
        b"a.",
        b"[[a]]\n",
        b"[a.a]\n",
        b"\"\\",
        b"'''",
        b"a=1\n",
        b"\\040",
        b" - ",
        b"\x01\0\0\0",
        b"aaaaaaa-",
    ];
    let long = move |piece: &[u8], head: &[u8]| {
        let body = piece.iter().copied().cycle().take(200_000);
        head.iter().copied().chain(body).collect()
    };
    let heads: [&[u8]; 4] = [b"", b"a = ", b"[[peer]]\naddresses = ", b"cairnfs1-"];
    pieces.into_iter().flat_map(move |piece| heads.map(|head| long(piece, head)))
}

#[test]
fn foreign_bytes_cost_what_they_are_worth_and_never_panic() {
    let more = std::env::var("CAIRNFS_TEST_DECODES").ok().and_then(|text| text.parse().ok());
    let rounds: u64 = more.unwrap_or(20_000);
    for door in doors() {
        let samples = door.samples();
        let every = |bytes: &[u8]| (0..door.count).filter(|which| door.read(*which, bytes)).count();
        // At the first time tables are made that stay.
        let _tables: Vec<bool> = samples.iter().map(|bytes| (door.decode)(0, bytes)).collect();
        let mut accepted = 0;
        for round in 0..rounds {
            let sample = &samples[usize::try_from(round).unwrap() % samples.len()];
            accepted += every(&damaged(round, sample.clone()));
            if round.is_multiple_of(4) {
                every(&noise(round, usize::try_from(round % 700).unwrap()));
            }
        }
        assert!(accepted > 1000, "{}: {accepted} accepted", door.name);
        let _refused: Vec<usize> = long().map(|bytes| every(&bytes)).collect();
    }
}
