//! A content against an array of bytes: whatever was written, sealed, saved and brought back, it
//! reads the same, and equal content lies in equal chunks.

use std::{path::Path, sync::Arc};

use cairnfs_store::{Appender, KeyRing, Options, create, sim::SimDisk};
use proptest::prelude::*;

use super::{
    Base, Content, Data, File, Tail,
    pieces::to_usize,
    view::{block_end, block_start},
};
use crate::{
    Fallocate, Time, Whence,
    vault::{Sealer, Vault},
};

const LEN_MAX: u64 = 800_000;

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: u64,
        len: u64,
        seed: u8,
    },
    SetLen(u64),
    Punch {
        at: u64,
        len: u64,
    },
    /// Seals in part or whole, as a save or a version does.
    Fold(bool),
    /// Loses the memory and reads the save records again.
    Reopen,
    Seek(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..LEN_MAX;
    let len = prop_oneof![1..5000_u64, 1..200_000_u64];
    prop_oneof![
        5 => (at.clone(), len.clone(), any::<u8>())
            .prop_map(|(at, len, seed)| Step::Write { at, len, seed }),
        1 => at.clone().prop_map(Step::SetLen),
        1 => (at.clone(), len).prop_map(|(at, len)| Step::Punch { at, len }),
        2 => any::<bool>().prop_map(Step::Fold),
        2 => Just(Step::Reopen),
        1 => at.prop_map(Step::Seek),
    ]
}

/// `None` is a byte in a hole.
struct Model(Vec<Option<u8>>);

impl Model {
    fn bytes(&self) -> Vec<u8> {
        self.0.iter().map(|byte| byte.unwrap_or(0)).collect()
    }

    fn is_data(&self, at: usize) -> bool {
        let block = to_usize(block_start(at as u64))..to_usize(block_end(at as u64 + 1));
        self.0[block.start..block.end.min(self.0.len())].iter().any(Option::is_some)
    }

    /// Sealing makes data of whole blocks.
    fn seal(&mut self) {
        let mut at = 0;
        while at < self.0.len() {
            let end = to_usize(block_end(at as u64 + 1)).min(self.0.len());
            if self.is_data(at) || self.0.len() <= 2048 {
                self.0[at..end].iter_mut().for_each(|byte| *byte = Some(byte.unwrap_or(0)));
            }
            at = end;
        }
    }
}

fn noise(seed: u8, len: u64) -> Vec<u8> {
    let mut state = u64::from(seed) + 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// A store that forgets nothing, and a content in it.
struct Bench {
    vault: Vault,
    appender: Appender,
    file: File,
    /// The content that the tree would hold, and the records since.
    published: Base,
    records: Vec<super::FileRecord>,
}

impl Bench {
    fn new() -> Self {
        let disk = Arc::new(SimDisk::new(1));
        let keys = KeyRing::new([(0, cairnfs_store::Secret::new([7; 32]))]).unwrap();
        let options = Options { index_thread: false, ..Options::default() };
        let (appender, blobs) = create(disk, Path::new("/bucket"), keys, options).unwrap();
        let vault = Vault::new(blobs, 1 << 20);
        let (file, published) = (File::new(Base::empty()), Base::empty());
        Self { vault, appender, file, published, records: Vec::new() }
    }

    /// As a save or a version does it.
    fn fold(&mut self, tail: Tail) {
        let snapshot = self.file.lock().snapshot();
        let mut sealer = Sealer::new(&mut self.appender, &self.vault);
        let base = snapshot.fold(&self.vault, &mut sealer, tail).unwrap();
        let mut live = self.file.lock();
        let _ = live.saved(&snapshot, Some(base.clone()));
        if tail == Tail::Seal {
            assert_eq!(base.visible, snapshot.len());
            live.published(&snapshot);
            assert!(!live.is_changed());
            self.published = base;
            self.records.clear();
        } else {
            self.records.push(snapshot.with_base(base).record());
        }
    }

    fn save(&mut self) {
        let snapshot = self.file.lock().snapshot_to_record();
        self.records.push(snapshot.record());
        let _ = self.file.lock().saved(&snapshot, None);
        assert_eq!(self.file.lock().pieces.unsaved_bytes(), 0);
    }

    fn reopen(&mut self) {
        self.save();
        self.file = File::new(self.published.clone());
        for record in &self.records {
            self.file.lock().apply(record.clone()).unwrap();
        }
    }

    fn read(&self) -> Vec<u8> {
        let extract = self.file.lock().extract(0, u64::MAX);
        extract.read(&self.vault).unwrap()
    }

    fn sealed(&mut self, content: &Content) -> Base {
        let mut sealer = Sealer::new(&mut self.appender, &self.vault);
        content.fold(&self.vault, &mut sealer, Tail::Seal).unwrap()
    }

    /// The content of `model`, written at once into a new file.
    fn sealed_at_once(&mut self, model: &Model) -> Base {
        let file = File::new(Base::empty());
        let mut content = file.lock();
        let mut at = 0;
        while at < model.0.len() {
            let is_some = model.0[at].is_some();
            let run = model.0[at..].iter().take_while(|byte| byte.is_some() == is_some).count();
            if is_some {
                let bytes: Vec<u8> =
                    model.0[at..at + run].iter().map(|byte| byte.unwrap()).collect();
                content.write(at as u64, &bytes, Time::default()).unwrap();
            }
            at += run;
        }
        content.set_len(model.0.len() as u64, Time::default()).unwrap();
        self.sealed(&content)
    }
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut bench = Bench::new();
    let mut model = Model(Vec::new());
    let now = Time::default();
    for step in steps {
        match *step {
            Step::Write { at, len, seed } => {
                let data = noise(seed, len);
                bench.file.lock().write(at, &data, now).unwrap();
                let end = to_usize(at + len);
                if model.0.len() < end {
                    model.0.resize(end, None);
                }
                model.0[to_usize(at)..end].iter_mut().zip(data).for_each(|(to, b)| *to = Some(b));
            }
            Step::SetLen(len) => {
                bench.file.lock().set_len(len, now).unwrap();
                model.0.resize(to_usize(len), None);
            }
            Step::Punch { at, len } => {
                bench.file.lock().allocate(Fallocate::PunchHole, at, len, now).unwrap();
                let end = to_usize(at + len).min(model.0.len());
                if let Some(range) = model.0.get_mut(to_usize(at)..end.max(to_usize(at))) {
                    range.fill(None);
                }
            }
            Step::Fold(true) => {
                bench.fold(Tail::Seal);
                model.seal();
            }
            Step::Fold(false) => {
                // Which blocks become data depends on where the tail begins; only bytes compare.
                bench.fold(Tail::Keep);
                bench.fold(Tail::Seal);
                model.seal();
            }
            Step::Reopen => bench.reopen(),
            Step::Seek(at) => {
                let extract = bench.file.lock().extract(at, u64::MAX);
                let data = extract.seek(&bench.vault, Whence::Data).ok();
                let at = to_usize(at);
                let expected = (at..model.0.len()).find(|at| model.is_data(*at));
                prop_assert_eq!(data, expected.map(|at| at as u64));
            }
        }
        prop_assert!(bench.read() == model.bytes(), "after {:?}", step);
    }
    let content = bench.file.lock().snapshot();
    let (grown, at_once) = (bench.sealed(&content), bench.sealed_at_once(&model));
    prop_assert_eq!(grown.data, at_once.data);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn content_reads_as_written_and_lies_in_the_same_chunks(
        steps in prop::collection::vec(step(), 1..24),
    ) {
        run(&steps)?;
    }
}

#[test]
fn a_small_change_of_a_large_file_seals_few_chunks() {
    let mut bench = Bench::new();
    bench.file.lock().write(0, &noise(1, 8_000_000), Time::default()).unwrap();
    bench.fold(Tail::Seal);
    let before = bench.appender.batch_bytes();
    bench.file.lock().write(4_000_000, b"changed", Time::default()).unwrap();
    bench.fold(Tail::Seal);
    let written = bench.appender.batch_bytes() - before;
    assert!(written < 600_000, "{written} bytes for 7");
    assert!(matches!(bench.published.data, Data::Map { .. }));
}

#[test]
fn data_early_in_a_block_is_found_from_a_later_byte_of_it() {
    let mut bench = Bench::new();
    let _grown = bench.file.lock().write(172_032, &[1], Time::default()).unwrap();
    let _grown = bench.file.lock().write(166_990, &[2; 947], Time::default()).unwrap();
    let extract = bench.file.lock().extract(167_937, u64::MAX);
    assert_eq!(extract.seek(&bench.vault, Whence::Data).unwrap(), 167_937);
    bench.fold(Tail::Seal);
    let extract = bench.file.lock().extract(167_937, u64::MAX);
    assert_eq!(extract.seek(&bench.vault, Whence::Data).unwrap(), 167_937);
}

#[test]
fn what_is_scattered_is_journaled_and_what_is_not_is_cut_at_once() {
    let written = |starts: &mut dyn Iterator<Item = u64>| {
        let file = File::new(Base::empty());
        let mut content = file.lock();
        for start in starts {
            content.write(start, &[7; 4 << 10], Time::default()).unwrap();
        }
        content.is_journaled()
    };
    let kib = |n: u64| n << 10;
    assert!(written(&mut (0..64).map(|n| kib(4 * n))), "little");
    assert!(!written(&mut (0..65).map(|n| kib(4 * n))), "in a row");
    assert!(!written(&mut (0..1024).rev().map(|n| kib(4 * n))), "in a row, from the end");
    assert!(written(&mut (0..1024).map(|n| kib(64 * n))), "one in a place");
    assert!(written(&mut (0..1024).map(|n| kib(16 * n))), "four in a place");
    assert!(!written(&mut (0..1024).map(|n| kib(12 * n))), "five in a place");
    assert!(!written(&mut (0..1025).map(|n| kib(64 * n))), "too much");
}

#[test]
fn a_write_of_nothing_changes_nothing() {
    let file = File::new(Base::empty());
    let mut content = file.lock();
    content.write(1 << 20, b"", Time::now()).unwrap();
    assert_eq!((content.len(), content.is_unsaved(), content.written()), (0, false, None));
}
