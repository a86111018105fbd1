//! A multi-value register: the concurrent values of one attribute, each under the operation that
//! wrote it.

use std::fmt;
use std::slice;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{OpId, VersionVector};
use crate::mutants::{self, Mutant};

/// Concurrent values by the operation that wrote them; none or one in peace.
///
/// Sorted by operation, then value. One operation has one value here unless a device key was
/// cloned: then both values stay, so that nothing is lost (equivocation).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg<T>(Slots<T>);

/// The one value of peaceful times lies in the node itself, without an allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Slots<T> {
    Empty,
    One((OpId, T)),
    Many(Vec<(OpId, T)>),
}

impl<T> Default for Reg<T> {
    fn default() -> Self {
        Self(Slots::Empty)
    }
}

impl<T> Reg<T> {
    /// The most values a register of a foreign state may hold: twice as many as a bucket may have
    /// members (`MEMBERS_MAX` in mount-core), each of whom may make one of their own in one directory
    /// without a conflict, as what is made there is noted at the directory too.
    pub const MAX_VALUES: usize = 512;

    /// A register that `op` wrote.
    #[must_use]
    pub const fn one(op: OpId, value: T) -> Self {
        Self(Slots::One((op, value)))
    }

    /// Operations and values, sorted.
    #[must_use]
    pub fn as_slice(&self) -> &[(OpId, T)] {
        match &self.0 {
            Slots::Empty => &[],
            Slots::One(entry) => slice::from_ref(entry),
            Slots::Many(entries) => entries,
        }
    }

    /// Operations and values, sorted.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&OpId, &T)> {
        self.as_slice().iter().map(|(op, value)| (op, value))
    }

    /// The operations that wrote the values.
    pub fn ops(&self) -> impl DoubleEndedIterator<Item = &OpId> {
        self.as_slice().iter().map(|(op, _)| op)
    }

    /// The value of the latest operation.
    #[must_use]
    pub fn last(&self) -> Option<(&OpId, &T)> {
        self.as_slice().last().map(|(op, value)| (op, value))
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Slots::Empty)
    }

    /// Whether `op` alone wrote it.
    #[must_use]
    pub fn is_only(&self, op: &OpId) -> bool {
        matches!(&self.0, Slots::One((only, _)) if only == op)
    }

    fn into_vec(self) -> Vec<(OpId, T)> {
        match self.0 {
            Slots::Empty => Vec::new(),
            Slots::One(entry) => vec![entry],
            Slots::Many(entries) => entries,
        }
    }

    /// `entries` must be sorted; keeps the representation canonical.
    fn from_sorted(mut entries: Vec<(OpId, T)>) -> Self {
        match entries.len() {
            0 => Self(Slots::Empty),
            1 => Self(entries.pop().map_or(Slots::Empty, Slots::One)),
            _ => Self(Slots::Many(entries)),
        }
    }

    /// Keeps the values for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&OpId, &T) -> bool) {
        let mut entries = std::mem::take(self).into_vec();
        entries.retain(|(op, value)| keep(op, value));
        *self = Self::from_sorted(entries);
    }

    /// Applies `change` to each value; the order of the operations stays.
    pub(crate) fn map_values(&mut self, mut change: impl FnMut(&OpId, T) -> T)
    where
        T: Ord,
    {
        let entries = std::mem::take(self).into_vec();
        *self = entries
            .into_iter()
            .map(|(op, value)| {
                let value = change(&op, value);
                (op, value)
            })
            .collect();
    }
}

impl<T: Ord> Reg<T> {
    /// Replaces what `op` wrote before, and leaves the values of other operations.
    pub fn set(&mut self, op: OpId, value: T) {
        let mut entries = std::mem::take(self).into_vec();
        entries.retain(|(other, _)| *other != op);
        let at = entries.partition_point(|(other, _)| *other < op);
        entries.insert(at, (op, value));
        *self = Self::from_sorted(entries);
    }
}

impl<T: Ord + Clone> Reg<T> {
    /// Joins two registers: a value stays if both have it, or if one has it and the other's
    /// knowledge does not cover it; else it was replaced or removed by somebody who had seen it.
    ///
    /// Linear in the number of values.
    #[must_use]
    pub fn join(&self, knows: &VersionVector, other: &Self, other_knows: &VersionVector) -> Self {
        if self == other {
            return self.clone();
        }
        let (left, right) = (self.as_slice(), other.as_slice());
        let mut out = Vec::with_capacity(left.len().max(right.len()));
        let (mut i, mut j) = (0, 0);
        loop {
            let op = match (left.get(i), right.get(j)) {
                (Some((a, _)), Some((b, _))) => *a.min(b),
                (Some((a, _)), None) => *a,
                (None, Some((b, _))) => *b,
                (None, None) => return Self::from_sorted(out),
            };
            let ours = run(left, i, &op);
            let theirs = run(right, j, &op);
            i = i.saturating_add(ours.len());
            j = j.saturating_add(theirs.len());
            // Two different values under one operation (a cloned key) are both kept.
            let keep_ours = !theirs.is_empty() || !covers(other_knows, &op);
            let keep_theirs = !ours.is_empty() || !covers(knows, &op);
            let mut values: Vec<(OpId, T)> = Vec::new();
            values.extend(ours.iter().filter(|_| keep_ours).cloned());
            values.extend(theirs.iter().filter(|_| keep_theirs).cloned());
            if values.len() > 1 {
                values.sort();
                values.dedup();
            }
            out.append(&mut values);
        }
    }
}

/// Whether a register that lacks `op` lacks it knowingly.
fn covers(knows: &VersionVector, op: &OpId) -> bool {
    !mutants::is(Mutant::NoCausalContext) && knows.knows(op)
}

/// The values of `op` that begin at `start`.
fn run<'a, T>(entries: &'a [(OpId, T)], start: usize, op: &OpId) -> &'a [(OpId, T)] {
    let rest = entries.get(start..).unwrap_or(&[]);
    let len = rest.iter().take_while(|(other, _)| other == op).count();
    rest.get(..len).unwrap_or(&[])
}

impl<T: Ord> FromIterator<(OpId, T)> for Reg<T> {
    fn from_iter<I: IntoIterator<Item = (OpId, T)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        if entries.len() > 1 {
            entries.sort();
            entries.dedup();
        }
        Self::from_sorted(entries)
    }
}

impl<T: fmt::Debug> fmt::Debug for Reg<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<T: Serialize> Serialize for Reg<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.as_slice())
    }
}

impl<'de, T: Ord + Deserialize<'de>> Deserialize<'de> for Reg<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RegVisitor(std::marker::PhantomData)).map(Self::from_sorted)
    }
}

struct RegVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Ord + Deserialize<'de>> Visitor<'de> for RegVisitor<T> {
    type Value = Vec<(OpId, T)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a register with rising operations")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Vec<(OpId, T)>, S::Error> {
        let mut entries: Vec<(OpId, T)> = Vec::new();
        while let Some(entry) = seq.next_element::<(OpId, T)>()? {
            if entries.len() == Reg::<T>::MAX_VALUES {
                return Err(S::Error::custom("a register holds too many values"));
            }
            if entries.last().is_some_and(|last| *last >= entry) {
                return Err(S::Error::custom("the values of a register do not rise"));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeviceId;

    fn op(lamport: u64, device: u8) -> OpId {
        OpId { lamport, device: DeviceId([device; 16]) }
    }

    fn knows(ops: &[OpId]) -> VersionVector {
        ops.iter().map(|op| (op.device, op.lamport)).collect()
    }

    #[test]
    fn a_seen_value_that_is_missing_was_replaced() {
        let old = Reg::one(op(1, 1), 'a');
        let new = Reg::one(op(2, 2), 'b');
        let (left, right) = (knows(&[op(1, 1)]), knows(&[op(1, 1), op(2, 2)]));
        assert_eq!(old.join(&left, &new, &right), new);
        assert_eq!(new.join(&right, &old, &left), new);
    }

    #[test]
    fn unseen_values_stay_side_by_side() {
        let (a, b) = (Reg::one(op(1, 1), 'a'), Reg::one(op(1, 2), 'b'));
        let joined = a.join(&knows(&[op(1, 1)]), &b, &knows(&[op(1, 2)]));
        assert_eq!(joined.len(), 2);
        assert_eq!(joined.last(), Some((&op(1, 2), &'b')));
    }

    #[test]
    fn one_operation_with_two_values_keeps_both() {
        let (a, b) = (Reg::one(op(1, 1), 'a'), Reg::one(op(1, 1), 'b'));
        let both = a.join(&knows(&[op(1, 1)]), &b, &knows(&[op(1, 1)]));
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn registers_of_foreign_states_are_bounded() {
        let read = |values: usize| {
            let many: Vec<_> = (1..).take(values).map(|n| (op(n, 1), 0)).collect();
            postcard::from_bytes::<Reg<u8>>(&postcard::to_stdvec(&many).unwrap())
        };
        assert_eq!(read(Reg::<u8>::MAX_VALUES).unwrap().len(), Reg::<u8>::MAX_VALUES);
        assert!(read(Reg::<u8>::MAX_VALUES + 1).is_err());
    }
}
