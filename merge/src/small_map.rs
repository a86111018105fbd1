//! A sorted map in one allocation, for maps that have one or two entries; and in pieces that
//! copies share where it has many.
//!
//! A `BTreeMap` allocates room for eleven entries; with a million nodes, each with a map of one
//! link, that would be gigabytes. A file with thousands of links is changed one link at a time, and
//! each change makes a copy of its node: a copy of the map takes a pointer for each piece.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most entries that lie in one allocation which belongs to the map alone.
const FEW: usize = 64;
/// The most entries of a piece; one that grows beyond is cut in two.
const PIECE: usize = 128;

/// Keys to values, sorted by key, each key once.
#[derive(Clone)]
pub struct SmallMap<K, V>(Entries<K, V>);

type Piece<K, V> = Vec<(K, V)>;

#[derive(Clone)]
enum Entries<K, V> {
    Few(Piece<K, V>),
    /// None of them is empty.
    Many(Vec<Arc<Piece<K, V>>>),
}

/// The entries that are not in pieces, and the pieces; one of the two is empty.
type Parts<'a, K, V> = (&'a [(K, V)], &'a [Arc<Piece<K, V>>]);

/// A key, its value before and its value after.
pub(crate) type Change<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self(Entries::Few(Vec::new()))
    }
}

impl<K, V> SmallMap<K, V> {
    fn parts(&self) -> Parts<'_, K, V> {
        match &self.0 {
            Entries::Few(entries) => (entries, &[]),
            Entries::Many(pieces) => (&[], pieces),
        }
    }

    /// Entries in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        let (few, pieces) = self.parts();
        let entries = few.iter().chain(pieces.iter().flat_map(|piece| piece.iter()));
        entries.map(|(key, value)| (key, value))
    }

    /// Keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let (few, pieces) = self.parts();
        few.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let (few, pieces) = self.parts();
        few.is_empty() && pieces.is_empty()
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// A map of one entry.
    #[must_use]
    pub fn one(key: K, value: V) -> Self {
        Self(Entries::Few(vec![(key, value)]))
    }

    fn from_sorted(entries: Vec<(K, V)>) -> Self {
        if entries.len() <= FEW {
            return Self(Entries::Few(entries));
        }
        let mut entries = entries.into_iter();
        let pieces = std::iter::from_fn(|| {
            let piece: Piece<K, V> = entries.by_ref().take(FEW).collect();
            (!piece.is_empty()).then(|| Arc::new(piece))
        });
        Self(Entries::Many(pieces.collect()))
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let entries = match &self.0 {
            Entries::Few(entries) => entries,
            Entries::Many(pieces) => pieces.get(piece_of(pieces, key))?,
        };
        let index = position(entries, key).ok()?;
        entries.get(index).map(|(_, value)| value)
    }

    /// What differs between this map and what it became, in the order of the keys.
    ///
    /// Costs a look at each piece, and at the entries of those that are not shared.
    pub(crate) fn changes<'a>(&'a self, later: &'a Self) -> Vec<Change<'a, K, V>>
    where
        V: PartialEq,
    {
        let [before, after] = unshared(self.parts(), later.parts());
        let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
        let mut changes = Vec::new();
        loop {
            let order = match (before.peek(), after.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return changes,
            };
            let old = before.next_if(|_| order.is_le());
            let new = after.next_if(|_| order.is_ge());
            if let Some((key, _)) = old.or(new)
                && old.map(|(_, value)| value) != new.map(|(_, value)| value)
            {
                changes.push((key, old.map(|(_, value)| value), new.map(|(_, value)| value)));
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> SmallMap<K, V> {
    /// Sets the value of `key` and returns the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match &mut self.0 {
            Entries::Few(entries) => {
                let old = put(entries, key, value);
                if entries.len() > FEW {
                    *self = Self::from_sorted(std::mem::take(entries));
                }
                old
            }
            Entries::Many(pieces) => {
                // What is greater than all goes to the last one.
                let at = piece_of(pieces, &key).min(pieces.len() - 1);
                let piece = Arc::make_mut(&mut pieces[at]);
                let old = put(piece, key, value);
                if piece.len() > PIECE {
                    let rest = piece.split_off(piece.len() / 2);
                    pieces.insert(at + 1, Arc::new(rest));
                }
                old
            }
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        match &mut self.0 {
            Entries::Few(entries) => {
                let index = position(entries, key).ok()?;
                Some(entries.remove(index).1)
            }
            Entries::Many(pieces) => {
                let at = piece_of(pieces, key);
                let index = position(pieces.get(at)?, key).ok()?;
                let piece = Arc::make_mut(&mut pieces[at]);
                let old = piece.remove(index).1;
                if piece.is_empty() {
                    pieces.remove(at);
                }
                if pieces.is_empty() {
                    *self = Self::default();
                }
                Some(old)
            }
        }
    }

    /// Keeps the entries for which `keep` says so. Costs a copy of all of them where they are many.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut entries = match std::mem::take(self).0 {
            Entries::Few(entries) => entries,
            Entries::Many(pieces) => pieces.into_iter().flat_map(Arc::unwrap_or_clone).collect(),
        };
        entries.retain_mut(|(key, value)| keep(key, value));
        *self = Self::from_sorted(entries);
    }
}

/// The first piece that ends at or behind `key`.
fn piece_of<K: Ord, V>(pieces: &[Arc<Piece<K, V>>], key: &K) -> usize {
    pieces.partition_point(|piece| piece.last().is_none_or(|(last, _)| last < key))
}

fn position<K: Ord, V>(entries: &[(K, V)], key: &K) -> Result<usize, usize> {
    entries.binary_search_by(|(other, _)| other.cmp(key))
}

fn put<K: Ord, V>(entries: &mut Vec<(K, V)>, key: K, value: V) -> Option<V> {
    match position(entries, &key) {
        Ok(index) => Some(std::mem::replace(&mut entries[index].1, value)),
        Err(index) => {
            entries.insert(index, (key, value));
            None
        }
    }
}

/// The entries of two maps that do not lie in pieces of both.
fn unshared<'a, K: Ord, V>(
    (few_a, a): Parts<'a, K, V>,
    (few_b, b): Parts<'a, K, V>,
) -> [Vec<&'a (K, V)>; 2] {
    let (mut own_a, mut own_b): (Vec<_>, Vec<_>) = (few_a.iter().collect(), few_b.iter().collect());
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let order = match (a.get(i), b.get(j)) {
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {
                (i, j) = (i + 1, j + 1);
                continue;
            }
            // The one that ends first cannot be shared with what follows in the other.
            (Some(a), Some(b)) => a.last().map(|(key, _)| key).cmp(&b.last().map(|(key, _)| key)),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        if order.is_le() {
            own_a.extend(a[i].iter());
            i += 1;
        }
        if order.is_ge() {
            own_b.extend(b[j].iter());
            j += 1;
        }
    }
    [own_a, own_b]
}

impl<K: PartialEq, V: PartialEq> PartialEq for SmallMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for SmallMap<K, V> {}

impl<K: Ord, V: Ord> PartialOrd for SmallMap<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, V: Ord> Ord for SmallMap<K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl<K: Hash, V: Hash> Hash for SmallMap<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len().hash(state);
        self.iter().for_each(|entry| entry.hash(state));
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SmallMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SmallMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for SmallMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_seq(Some(self.len()))?;
        for entry in self.iter() {
            entries.serialize_element(&entry)?;
        }
        entries.end()
    }
}

impl<'de, K: Ord + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for SmallMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Sorted(std::marker::PhantomData)).map(Self::from_sorted)
    }
}

/// Reads pairs whose keys must rise, so that equal maps have equal bytes.
struct Sorted<K, V>(std::marker::PhantomData<(K, V)>);

impl<'de, K: Ord + Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Sorted<K, V> {
    type Value = Vec<(K, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries with rising keys")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Vec<(K, V)>, S::Error> {
        let mut entries: Vec<(K, V)> = Vec::new();
        while let Some((key, value)) = seq.next_element::<(K, V)>()? {
            if entries.last().is_some_and(|(last, _)| *last >= key) {
                return Err(S::Error::custom("the keys of a map do not rise"));
            }
            entries.push((key, value));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn keys_stay_sorted_and_unique() {
        let mut map: SmallMap<u8, char> = [(3, 'c'), (1, 'a'), (3, 'd')].into_iter().collect();
        assert_eq!(map.iter().collect::<Vec<_>>(), [(&1, &'a'), (&3, &'d')]);
        assert_eq!(map.remove(&1), Some('a'));
        assert_eq!(map.get(&3), Some(&'d'));
    }

    /// Some thousand steps on maps of some hundred keys, so that pieces are cut, emptied and shared.
    #[test]
    fn a_map_of_many_is_a_map_and_knows_what_changed() {
        let mut map = SmallMap::default();
        let mut model = BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..3_000_u64 {
            let (before, old) = (map.clone(), model.clone());
            for _ in 0..step % 4 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = (random >> 33) % 700;
                // It grows for a while, then shrinks.
                if (random >> 60) < if step < 1_500 { 12 } else { 2 } {
                    assert_eq!(map.insert(key, step), model.insert(key, step));
                } else {
                    assert_eq!(map.remove(&key), model.remove(&key));
                }
                assert_eq!(map.get(&key), model.get(&key));
            }
            assert!(map.iter().eq(model.iter()) && map.len() == model.len());
            let keys: BTreeSet<&u64> = old.keys().chain(model.keys()).collect();
            let changes = keys.into_iter().map(|key| (key, old.get(key), model.get(key)));
            let changes: Vec<_> = changes.filter(|(_, old, new)| old != new).collect();
            assert_eq!(before.changes(&map), changes);
        }
        let bytes = postcard::to_stdvec(&map).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&model.iter().collect::<Vec<_>>()).unwrap());
        assert_eq!(postcard::from_bytes::<SmallMap<u64, u64>>(&bytes).unwrap(), map);
    }

    #[test]
    fn unsorted_bytes_are_refused() {
        let unsorted = postcard::to_stdvec(&vec![(3_u8, 1_u8), (1, 1)]).unwrap();
        assert!(postcard::from_bytes::<SmallMap<u8, u8>>(&unsorted).is_err());
    }
}
