//! zstd at level 1, where it gains at least a twentieth.
//!
//! Level 1 of 64 KiB blocks of Rust source: 413 MB/s, ratio 0.185; level 3: 258 MB/s, 0.177.
//! What cannot be compressed passes at over 2 GB/s.

use std::cell::RefCell;
use std::sync::Arc;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::find_frame_compressed_size;

const LEVEL: i32 = 1;
/// Below this the frame costs as much as it saves.
const WORTH_BYTES: usize = 64;
/// Bytes that are looked at to see whether it is worth trying.
const SAMPLE_BYTES_MIN: usize = 1 << 10;
const SAMPLE_BYTES_MAX: usize = 4 << 10;
/// How many places of the content they come from.
const SAMPLE_PLACES: usize = 32;
/// So many words of the sample that were seen before are worth a try. Fewer are the frame of a save
/// record, which names devices again and again, and say nothing of what stands in it: up to 5 were
/// counted where a file of noise had been written to, up to 9 where one had been made.
const REPEATED_MIN: u32 = 16;

thread_local! {
    // The contexts are worth keeping: making one costs more than compressing 4 KiB.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends `plain`, compressed, to `out` if it gets at least 5 % smaller; else changes nothing.
pub(super) fn append_if_smaller(out: &mut Vec<u8>, plain: &[u8]) -> bool {
    if plain.len() < WORTH_BYTES || is_noise(plain) {
        return false;
    }
    let start = out.len();
    let room = plain.len() - plain.len() / 20;
    out.resize(start + room, 0);
    // It fails when the result does not fit, and then it was not worth it. A failure to allocate
    // the context has the same answer: the blob is stored as it is.
    let written = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Compressor::new(LEVEL).ok();
        }
        slot.as_mut()?.compress_to_buffer(plain, &mut out[start..]).ok()
    });
    out.truncate(start + written.unwrap_or(0));
    written.is_some()
}

/// Whether `plain` looks like noise: it was compressed or encrypted before, and trying again costs
/// more than sealing it.
///
/// It does if a sample is spread over the values of a byte as chance would spread it, and hardly
/// anything in it repeats. Of n bytes drawn evenly, n^2 / 256 pairs are equal on average, give or take
/// sqrt(2 n^2 / 256); of content that Huffman codes make 5 % smaller a fifth more are, so that it
/// is tried. Of content that repeats itself, m words of the sample show some m^2 / 2p repetitions
/// where p is the period.
fn is_noise(plain: &[u8]) -> bool {
    if plain.len() < SAMPLE_BYTES_MIN {
        return false;
    }
    let len = (plain.len() / 16).clamp(SAMPLE_BYTES_MIN, SAMPLE_BYTES_MAX) / SAMPLE_PLACES / 4 * 4;
    let stride = (plain.len() - len) / (SAMPLE_PLACES - 1);
    // Four tables, so that equal bytes in a row need not wait for each other.
    let mut counts = [[0_u16; 256]; 4];
    let mut seen = [0_u32; 1024];
    let mut repeated = 0;
    for place in 0..SAMPLE_PLACES {
        for word in plain[place * stride..][..len].as_chunks::<4>().0 {
            for (table, &byte) in counts.iter_mut().zip(word) {
                table[usize::from(byte)] += 1;
            }
            let word = u32::from_le_bytes(*word);
            // Fibonacci hashing: the highest ten bits.
            let slot = &mut seen[(word.wrapping_mul(0x9e37_79b9) >> 22) as usize];
            repeated += u32::from(std::mem::replace(slot, word) == word);
        }
    }
    let pairs: u64 = (0..256)
        .map(|value| counts.iter().map(|table| u64::from(table[value])).sum::<u64>().pow(2))
        .sum();
    let n = (len * SAMPLE_PLACES) as u64;
    // A sixteenth, and five times the standard deviation. As much below is no chance either.
    let even = pairs.abs_diff(n + n * n / 256) <= n * n / 4096 + n * 7 / 16;
    even && repeated < REPEATED_MIN
}

/// The `len` bytes that `body`, a single frame, decompresses to; `None` if it does not.
pub(super) fn decompress(body: &[u8], len: usize) -> Option<Arc<[u8]>> {
    // The decompressor would take several, and pass over frames that say nothing.
    if find_frame_compressed_size(body) != Ok(body.len()) {
        return None;
    }
    let mut plain: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
    let out = Arc::get_mut(&mut plain)?;
    let written = DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Decompressor::new().ok();
        }
        slot.as_mut()?.decompress_to_buffer(body, out).ok()
    });
    (written == Some(len)).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn noise_of_any_length_is_not_tried() {
        let lens = [1024, 1025, 4096, 4097, 40_000, 65_536, 1 << 20];
        let tries = lens.iter().flat_map(|len| (0..200).map(|seed| noise(seed, *len)));
        assert_eq!(tries.filter(|plain| !is_noise(plain)).count(), 0);
    }

    #[test]
    fn noise_in_the_frame_of_a_save_record_is_not_tried() {
        for seed in 0..200 {
            // As mount-core writes it: five registers of a new node, each under its operation.
            let register = [&noise(seed, 16)[..], &[1, 0, 0, 0]].concat();
            let record = [register.repeat(5), noise(seed + 1000, 4096), vec![0; 16]].concat();
            assert!(is_noise(&record), "{seed}");
        }
    }

    #[test]
    fn whatever_gets_a_twentieth_smaller_is_tried() {
        let text = include_bytes!("compress.rs");
        let hex: Vec<u8> = noise(1, 8192).iter().map(|byte| b'a' + byte % 16).collect();
        let base64: Vec<u8> = noise(2, 8192).iter().map(|byte| b'0' + byte % 64).collect();
        let seven_bits: Vec<u8> = noise(3, 8192).iter().map(|byte| byte & 127).collect();
        let every_value: Vec<u8> = (0..=255).cycle().take(65_536).collect();
        let repeated = noise(4, 512).repeat(16);
        // A tenth of text in noise.
        let mut mixed = noise(5, 65_536);
        for (at, byte) in mixed.iter_mut().enumerate().filter(|(at, _)| at % 8192 < 1000) {
            *byte = text[at % text.len()];
        }
        let mut floats = noise(6, 65_536);
        floats.iter_mut().skip(3).step_by(4).for_each(|byte| *byte = 0x3f);
        for plain in
            [&text[..], &hex, &base64, &seven_bits, &every_value, &repeated, &mixed, &floats]
        {
            assert!(!is_noise(plain), "{:?}", &plain[..20]);
            assert!(append_if_smaller(&mut Vec::new(), plain), "{:?}", &plain[..20]);
        }
    }

    #[test]
    fn a_body_is_one_frame_and_nothing_besides() {
        let text = include_bytes!("compress.rs");
        let frame = |plain: &[u8]| {
            let mut out = Vec::new();
            assert!(append_if_smaller(&mut out, plain));
            out
        };
        let whole = frame(text);
        assert_eq!(decompress(&whole, text.len()).unwrap()[..], text[..]);
        let (one, other) = text.split_at(text.len() / 2);
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7];
        for body in [
            [frame(one), frame(other)].concat(),
            [&skippable[..], &whole].concat(),
            [&whole[..], &skippable].concat(),
            whole[..whole.len() - 1].to_vec(),
        ] {
            assert!(decompress(&body, text.len()).is_none());
        }
    }
}
