//! Names for devices, operations, nodes and links, and what a device knows of the others.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ascending;

/// One incarnation of one replica; opaque to this crate.
///
/// A device that was restored from a backup must take a new one before it writes again, or it
/// would give two meanings to one [`OpId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub [u8; 16]);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of one change: a Lamport time and the device that made it.
///
/// Ordered by time, then by device: every peer picks the same winner of two concurrent changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    /// Lamport time; later than everything the device knew when it made the change.
    pub lamport: u64,
    /// Who made it.
    pub device: DeviceId,
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.lamport, self.device)
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The Lamport clock has no next value; only a forged state can bring a device here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lamport clock is exhausted")]
pub struct ClockExhausted;

/// What a state contains: every operation of each device up to a Lamport time.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionVector(#[serde(with = "ascending")] BTreeMap<DeviceId, u64>);

impl VersionVector {
    /// Knows nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The last Lamport time known of `device`; 0 if none.
    #[must_use]
    pub fn get(&self, device: &DeviceId) -> u64 {
        self.0.get(device).copied().unwrap_or(0)
    }

    /// Whether `op` is contained.
    #[must_use]
    pub fn knows(&self, op: &OpId) -> bool {
        self.get(&op.device) >= op.lamport
    }

    /// Adds `op` and everything its device did before it.
    pub fn learn(&mut self, op: &OpId) {
        if op.lamport > self.get(&op.device) {
            self.0.insert(op.device, op.lamport);
        }
    }

    /// Whether everything `other` knows is known here.
    #[must_use]
    pub fn dominates(&self, other: &Self) -> bool {
        other.0.iter().all(|(device, lamport)| self.get(device) >= *lamport)
    }

    /// Adds everything `other` knows.
    pub fn join(&mut self, other: &Self) {
        for (device, lamport) in &other.0 {
            self.learn(&OpId { lamport: *lamport, device: *device });
        }
    }

    /// The highest Lamport time known of anybody.
    #[must_use]
    pub fn max_lamport(&self) -> u64 {
        self.0.values().copied().max().unwrap_or(0)
    }

    /// The Lamport time of the next operation made on top of this knowledge.
    ///
    /// # Errors
    ///
    /// [`ClockExhausted`] at `u64::MAX`.
    pub fn next_lamport(&self) -> Result<u64, ClockExhausted> {
        self.max_lamport().checked_add(1).ok_or(ClockExhausted)
    }

    /// The next operation of `device` on top of this knowledge.
    ///
    /// # Errors
    ///
    /// [`ClockExhausted`] as [`Self::next_lamport`].
    pub fn next_op(&self, device: DeviceId) -> Result<OpId, ClockExhausted> {
        Ok(OpId { lamport: self.next_lamport()?, device })
    }

    /// Devices and times, in the order of the devices.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceId, u64)> {
        self.0.iter().map(|(device, lamport)| (device, *lamport))
    }

    /// How many devices are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(DeviceId, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (DeviceId, u64)>>(entries: I) -> Self {
        let mut vv = Self::new();
        for (device, lamport) in entries {
            vv.learn(&OpId { lamport, device });
        }
        vv
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter()).finish()
    }
}

/// The name of a file or directory for life, wherever it is moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeId {
    /// The directory everything hangs on; always there, never moved.
    Root,
    /// Created by `op`, which may create several.
    Born {
        /// The operation that created it.
        op: OpId,
        /// Tells apart the nodes of one operation.
        n: u32,
    },
    /// A conflict copy that became a file of its own: the same name on every peer.
    Split([u8; 16]),
}

impl NodeId {
    /// The operation that created the node, where the name tells.
    #[must_use]
    pub const fn born(&self) -> Option<OpId> {
        match self {
            Self::Born { op, .. } => Some(*op),
            Self::Root | Self::Split(_) => None,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => write!(f, "root"),
            Self::Born { op, n } => write!(f, "{op}.{n}"),
            Self::Split(hash) => {
                write!(f, "s")?;
                hash[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One of the names (hard links) of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LinkId {
    /// The name the node was born with.
    First,
    /// A hard link made later.
    Later {
        /// The operation that made the link.
        op: OpId,
        /// Tells apart the links of one operation.
        n: u32,
    },
}

impl LinkId {
    /// The name the node was born with.
    pub const FIRST: Self = Self::First;
}

/// The keyed hash of a plaintext; the caller computes it, this crate only compares and prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentId(pub [u8; 32]);

impl ContentId {
    /// All 64 lower-case hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let digit = |nibble: u8| DIGITS[usize::from(nibble)];
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DeviceId = DeviceId([1; 16]);
    const B: DeviceId = DeviceId([2; 16]);

    #[test]
    fn knowledge_is_a_lattice_of_times() {
        let mut left: VersionVector = [(A, 3)].into_iter().collect();
        let right: VersionVector = [(B, 2)].into_iter().collect();
        assert!(!left.dominates(&right) && !right.dominates(&left));
        left.join(&right);
        assert!(left.dominates(&right) && !right.dominates(&left));
        assert!(left.knows(&OpId { lamport: 2, device: B }));
        assert_eq!(left.next_lamport(), Ok(4));
    }

    #[test]
    fn one_knowledge_has_one_encoding() {
        let encode = |entries: &[(DeviceId, u64)]| postcard::to_stdvec(entries).unwrap();
        let decode = |bytes: &[u8]| postcard::from_bytes::<VersionVector>(bytes);
        let vv: VersionVector = [(A, 3), (B, 2)].into_iter().collect();
        assert_eq!(decode(&encode(&[(A, 3), (B, 2)])), Ok(vv));
        assert!(decode(&encode(&[(A, 3), (A, 2)])).is_err());
        assert!(decode(&encode(&[(B, 2), (A, 3)])).is_err());
    }

    #[test]
    fn the_clock_never_wraps() {
        let vv: VersionVector = [(A, u64::MAX)].into_iter().collect();
        assert_eq!(vv.next_lamport(), Err(ClockExhausted));
    }

    #[test]
    fn later_time_wins_before_device() {
        assert!(OpId { lamport: 2, device: A } > OpId { lamport: 1, device: B });
        assert!(OpId { lamport: 1, device: B } > OpId { lamport: 1, device: A });
    }
}
