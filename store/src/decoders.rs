//! Every decoder of bytes that may come from anywhere, behind one door: for the fuzzer and for
//! the test below. None of them may panic, or take memory or time out of proportion.

use std::sync::Arc;

use crate::journal::header::PackHeader;
use crate::journal::record::Header;
use crate::journal::save;
use crate::keys::keyfile;
use crate::map::MapNode;
use crate::{DeviceKey, KeyRing, Result, SealedBlob, Secret, seal};

/// How many decoders there are.
pub const COUNT: u8 = 7;

/// Has the decoder with this number read `bytes`. True if it accepts them.
#[must_use]
pub fn decode(which: u8, bytes: &[u8]) -> bool {
    match which % COUNT {
        0 => PackHeader::decode(bytes).is_ok(),
        1 => Header::decode(bytes).is_some(),
        2 => save::decode_content(bytes).is_some(),
        3 => MapNode::decode(Arc::from(bytes)).is_ok(),
        // Without a passphrase, or deriving the key would be all that is measured.
        4 => keyfile::open(bytes, None).is_ok(),
        5 => DeviceKey::decode(bytes).is_ok(),
        _ => {
            let opened = keys().and_then(|keys| seal::open(&keys, &mut bytes.to_vec()));
            SealedBlob::from_bytes(bytes.to_vec()).is_ok() && matches!(opened, Ok(Some(_)))
        }
    }
}

/// Those of the samples, so that there is something that they open.
fn keys() -> Result<KeyRing> {
    let keys = [(0, [0x11; 32]), (1, [0x22; 32])];
    KeyRing::new(keys.map(|(epoch, key)| (epoch, Secret::new(key))))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// The seeds of the fuzzer: each sample behind the number of each decoder that accepts it.
    #[test]
    fn the_corpus_has_what_is_accepted_by_every_decoder() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/decoders");
        let bless = std::env::var_os("CAIRNFS_BLESS").is_some();
        let mut seeded = BTreeSet::new();
        let mut samples = crate::golden::samples();
        let (_, save) = samples.iter().find(|(name, _)| *name == "save.bin").unwrap();
        let save = seal::open(&keys().unwrap(), &mut save.clone()).unwrap().unwrap();
        samples.push(("save_content.bin", save.plain.to_vec()));
        for (name, bytes) in samples {
            for which in (0..COUNT).filter(|which| decode(*which, &bytes)) {
                seeded.insert(which);
                let seed = [&[which], &bytes[..]].concat();
                let path = corpus.join(format!("{which}-{name}"));
                if bless {
                    fs::create_dir_all(&corpus).unwrap();
                    fs::write(&path, &seed).unwrap();
                }
                assert_eq!(fs::read(&path).unwrap(), seed, "{}", path.display());
            }
        }
        assert!(seeded.into_iter().eq(0..COUNT), "a decoder that accepts no sample");
    }

    /// Bytes that are random, or a sample that was changed here and there.
    fn input(round: u64, samples: &[Vec<u8>]) -> Vec<u8> {
        let mut noise = [0; 600];
        blake3::Hasher::new().update(&round.to_le_bytes()).finalize_xof().fill(&mut noise);
        let len = usize::from(noise[0]) + usize::from(noise[1]);
        if round.is_multiple_of(2) {
            return noise[2..2 + len].to_vec();
        }
        let mut bytes = samples[usize::from(noise[0]) % samples.len()].clone();
        for edit in noise[8..8 + 4 * usize::from(noise[1] % 4)].chunks(4) {
            let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
            bytes[at] = edit[2];
        }
        if noise[2] % 3 == 0 {
            bytes.truncate(usize::from(noise[3]) % (bytes.len() + 1));
        }
        bytes
    }

    #[test]
    fn no_decoder_panics_at_random_or_broken_bytes() {
        let samples: Vec<Vec<u8>> = crate::golden::samples().into_iter().map(|(_, b)| b).collect();
        let mut accepted = 0;
        for round in 0..30_000 {
            let bytes = input(round, &samples);
            for which in 0..COUNT {
                accepted += u32::from(decode(which, &bytes));
            }
        }
        assert!(accepted > 1000, "the samples themselves are accepted at times: {accepted}");
    }
}
