//! Random calls, as a list that can be cut down, and what each makes of the model.

use super::{Model, State};

/// Small numbers from a seed (xorshift, Marsaglia 2003).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }

    fn name(&mut self) -> Name {
        Name(char::from(b'a' + self.below(6).to_le_bytes()[0]))
    }

    fn noise(&mut self, len: u64) -> Noise {
        Noise { seed: 1 + self.below(1 << 40), len }
    }
}

/// A name in the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Name(char);

impl Name {
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }
}

/// Bytes, the same for the same seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    seed: u64,
    len: u64,
}

impl Noise {
    pub(super) fn is_empty(self) -> bool {
        self.len == 0
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        Rng(self.seed).bytes(self.len)
    }
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create { name: Name, content: Noise },
    Write { name: Name, at: u64, data: Noise },
    Truncate { name: Name, len: u64 },
    Unlink(Name),
    Rename { from: Name, to: Name },
    Link { from: Name, to: Name },
    Mkdir(Name),
    Rmdir(Name),
    Save,
}

impl Op {
    /// A call that makes sense where `model` is; some are none.
    pub(crate) fn random(rng: &mut Rng, model: &Model) -> Option<Self> {
        let (name, other) = (rng.name(), rng.name());
        let found = model.get(&name.bytes());
        let over_dir = matches!(model.get(&other.bytes()), Some(None));
        let op = match (rng.below(9), found) {
            (0 | 1, None) => {
                let len = [0, 100, 3_000, 40_000, 300_000][usize::try_from(rng.below(5)).unwrap()];
                Self::Create { name, content: rng.noise(len) }
            }
            (0..=2, Some(Some(old))) => {
                let at = rng.below(old.len() as u64 + 1);
                let len = 1 + rng.below(20_000);
                Self::Write { name, at, data: rng.noise(len) }
            }
            (3, Some(Some(old))) => Self::Truncate { name, len: rng.below(old.len() as u64 + 1) },
            (4, Some(Some(_))) => Self::Unlink(name),
            (5 | 6, Some(Some(_))) if !over_dir => Self::Rename { from: name, to: other },
            (7, None) => Self::Mkdir(name),
            (8, Some(Some(_))) if !model.contains_key(&other.bytes()) => {
                Self::Link { from: name, to: other }
            }
            (_, Some(None)) => Self::Rmdir(name),
            _ => return None,
        };
        Some(op)
    }

    /// So many calls, one after the other, and saves among them.
    pub(crate) fn load(rng: &mut Rng, calls: usize) -> Vec<Self> {
        let (mut load, mut state) = (Vec::new(), State::default());
        for _ in 0..calls {
            if let Some(op) = Self::random(rng, &state.shown) {
                op.apply(&mut state);
                load.push(op);
            }
            if rng.below(3) == 0 {
                load.push(Self::Save);
            }
        }
        load
    }

    /// Whether it makes sense there: calls before it may have been taken out.
    pub(super) fn fits(&self, model: &Model) -> bool {
        let found = |name: &Name| model.get(&name.bytes());
        match self {
            Self::Create { name, .. } | Self::Mkdir(name) => found(name).is_none(),
            Self::Write { name, .. } | Self::Truncate { name, .. } | Self::Unlink(name) => {
                matches!(found(name), Some(Some(_)))
            }
            Self::Rename { from, to } => {
                matches!(found(from), Some(Some(_))) && !matches!(found(to), Some(None))
            }
            Self::Link { from, to } => matches!(found(from), Some(Some(_))) && found(to).is_none(),
            Self::Rmdir(name) => matches!(found(name), Some(None)),
            Self::Save => true,
        }
    }

    pub(super) fn apply(&self, state: &mut State) {
        match self {
            Self::Create { name, content } => state.make(&name.bytes(), Some(content.bytes())),
            Self::Write { name, at, data } => state.change(&name.bytes(), |content| {
                let (at, data) = (usize::try_from(*at).unwrap(), data.bytes());
                content.resize(content.len().max(at + data.len()), 0);
                content[at..at + data.len()].copy_from_slice(&data);
            }),
            Self::Truncate { name, len } => state.change(&name.bytes(), |content| {
                content.resize(usize::try_from(*len).unwrap(), 0);
            }),
            Self::Rename { from, to } => state.rename(&from.bytes(), &to.bytes()),
            Self::Link { from, to } => state.link(&from.bytes(), &to.bytes()),
            Self::Mkdir(name) => state.make(&name.bytes(), None),
            Self::Unlink(name) | Self::Rmdir(name) => state.remove(&name.bytes()),
            Self::Save => (),
        }
    }
}
