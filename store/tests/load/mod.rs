//! A random load on a store, as a list of calls that can be cut down, and a model of what must be
//! there.

#![allow(dead_code, reason = "no test program uses all of it")]

use cairnfs_store::{Appender, BlobRef, Error, Kind, Opened, SaveKind};

/// Bytes that nobody has seen before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    seed: u64,
    len: u64,
}

impl Noise {
    fn bytes(self) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(self.len).unwrap()];
        blake3::Hasher::new().update(&self.seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(Noise),
    PutAll(Vec<Noise>),
    Spill,
    DiscardBatch,
    FlushIndex,
    WriteAhead,
    Save { payload: Noise, checkpoint: bool },
}

/// Deterministic chances.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 += 1;
        u64::from_le_bytes(*blake3::hash(&self.0.to_le_bytes()).as_bytes().first_chunk().unwrap())
            % limit
    }

    fn noise(&mut self, len: u64) -> Noise {
        Noise { seed: self.below(1 << 40), len }
    }

    fn op(&mut self) -> Op {
        match self.below(20) {
            0..=9 => {
                let len = self.below(3000);
                Op::Put(self.noise(len))
            }
            10 => Op::PutAll((0..self.below(12)).map(|_| self.noise(15_000)).collect()),
            11 => Op::Spill,
            12 => Op::DiscardBatch,
            13 => Op::FlushIndex,
            14 => Op::WriteAhead,
            _ => {
                let longest = if self.below(8) == 0 { 30_000 } else { 200 };
                let len = self.below(longest);
                Op::Save { payload: self.noise(len), checkpoint: self.below(6) == 0 }
            }
        }
    }
}

/// So many calls, the same for the same seed.
pub(crate) fn random(seed: u64, calls: usize) -> Vec<Op> {
    let mut rng = Rng(seed);
    (0..calls).map(|_| rng.op()).collect()
}

/// What one save holds.
#[derive(Clone, Debug, Default)]
struct Save {
    payload: Vec<u8>,
    checkpoint: bool,
    blobs: Vec<(BlobRef, Vec<u8>)>,
}

/// What was promised, and what may be there besides.
#[derive(Default)]
pub(crate) struct Model {
    saved: Vec<Save>,
    /// The save whose call failed.
    doubtful: Option<Save>,
}

impl Model {
    /// Makes the calls, until one fails.
    pub(crate) fn run(&mut self, appender: &mut Appender, ops: &[Op]) -> Result<(), Error> {
        let mut open = Save::default();
        for op in ops {
            match op {
                Op::Put(noise) => {
                    let content = noise.bytes();
                    open.blobs.push((appender.put(Kind::Chunk, &content)?, content));
                }
                Op::PutAll(noises) => {
                    let many: Vec<Vec<u8>> = noises.iter().map(|noise| noise.bytes()).collect();
                    let refs = appender.put_all(Kind::Node, &many)?;
                    open.blobs.extend(refs.into_iter().zip(many));
                }
                Op::Spill => appender.spill()?,
                Op::DiscardBatch => {
                    appender.discard_batch()?;
                    open = Save::default();
                }
                Op::FlushIndex => appender.flush_index()?,
                // While a batch is open it must do nothing, and it is refused no room.
                Op::WriteAhead => appender.write_ahead()?,
                Op::Save { payload, checkpoint } => {
                    open.payload = payload.bytes();
                    open.checkpoint = *checkpoint;
                    self.doubtful = Some(open.clone());
                    appender.save(&open.payload, SaveKind::checkpoint_if(open.checkpoint))?;
                    self.doubtful = None;
                    self.saved.push(std::mem::take(&mut open));
                }
            }
        }
        Ok(())
    }

    /// How many saves were acknowledged.
    pub(crate) fn saves(&self) -> usize {
        self.saved.len()
    }

    /// Every blob of them, with what it holds.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &(BlobRef, Vec<u8>)> {
        self.saved.iter().flat_map(|save| &save.blobs)
    }

    /// Says what is wrong with what was found after a crash; takes over the doubtful save if it is
    /// there.
    pub(crate) fn check(&mut self, opened: &Opened) -> Result<(), String> {
        let seq = usize::try_from(opened.appender.seq().0).unwrap();
        let acknowledged = self.saved.len();
        if seq == acknowledged + 1 {
            self.saved.extend(self.doubtful.take());
        }
        self.doubtful = None;
        if seq != self.saved.len() {
            return Err(format!("{seq} saves are there, {acknowledged} were acknowledged"));
        }
        let from = self.saved.iter().rposition(|save| save.checkpoint).unwrap_or(0);
        if !opened.saves.iter().eq(self.saved[from..].iter().map(|save| &save.payload)) {
            return Err(format!("the payloads from save {from} on are others"));
        }
        for (blob, content) in self.blobs() {
            let found = opened.blobs.get(blob).map_err(|err| err.to_string())?;
            if found[..] != content[..] {
                return Err(format!("{} has another content", blob.id));
            }
        }
        Ok(())
    }
}
