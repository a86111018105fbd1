//! What all devices agree on besides the tree: who has the bucket, and how conflicts are treated.
//!
//! A part of every version. Each entry bears the operation that wrote it; of two the later counts,
//! so that joining charters is commutative, associative and idempotent, as joining trees is. The
//! entry of a removed device stays: a merge must not bring the device back.

use std::collections::{BTreeMap, BTreeSet};

use cairnfs_merge::{DeviceId, OpId, PathRules};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, Settings, Strategy,
    manifest::{Member, Role, device_id},
};

/// More devices than anybody has, removed ones included.
pub(crate) const MEMBERS_MAX: usize = 256;
/// More rules than anybody writes.
const RULES_MAX: usize = 256;
/// Longest name of a device, and longest glob, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// How often a device can begin anew and still be known as the author of what it wrote.
const INCARNATIONS_KNOWN: u32 = 16;

/// A device's entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The operation that wrote it. First, so that the later of two entries is the greater.
    pub(crate) at: OpId,
    /// What it may do; `None` if it was removed.
    pub(crate) role: Option<Role>,
    /// What its owner calls it.
    pub(crate) name: String,
}

/// See the module's doc.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Charter {
    /// By public key.
    members: BTreeMap<[u8; 32], Entry>,
    settings: (OpId, Settings),
}

impl Charter {
    /// That of a new bucket: one owner.
    pub(crate) fn begin(owner: [u8; 32], at: OpId) -> Self {
        let entry = Entry { at, role: Some(Role::Owner), name: String::new() };
        Self { members: [(owner, entry)].into(), settings: (at, Settings::default()) }
    }

    /// That of a device that has joined and not seen a version yet.
    pub(crate) fn unknown() -> Self {
        let never = OpId { lamport: 0, device: DeviceId([0; 16]) };
        Self { members: BTreeMap::new(), settings: (never, Settings::default()) }
    }

    /// That of a version whose format knew members only.
    pub(crate) fn of_members(members: Vec<Member>, at: OpId) -> Self {
        let entry =
            |member: Member| (member.key, Entry { at, role: Some(member.role), name: member.name });
        Self {
            members: members.into_iter().map(entry).collect(),
            settings: (at, Settings::default()),
        }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        for (key, theirs) in &other.members {
            match self.members.get_mut(key) {
                Some(ours) if *ours < *theirs => *ours = theirs.clone(),
                Some(_) => (),
                None => drop(self.members.insert(*key, theirs.clone())),
            }
        }
        if self.settings < other.settings {
            self.settings = other.settings.clone();
        }
    }

    /// The same with other names for the operations that wrote it.
    pub(crate) fn retagged(&self, rename: &impl Fn(OpId) -> OpId) -> Self {
        let entry = |(key, entry): (&[u8; 32], &Entry)| {
            (*key, Entry { at: rename(entry.at), ..entry.clone() })
        };
        Self {
            members: self.members.iter().map(entry).collect(),
            settings: (rename(self.settings.0), self.settings.1.clone()),
        }
    }

    /// What the device `key` may do.
    pub(crate) fn role(&self, key: &[u8; 32]) -> Option<Role> {
        self.members.get(key)?.role
    }

    /// Whether the device `key` had the bucket once and was removed.
    pub(crate) fn was_removed(&self, key: &[u8; 32]) -> bool {
        self.members.get(key).is_some_and(|entry| entry.role.is_none())
    }

    /// The devices that have the bucket.
    pub(crate) fn members(&self) -> Vec<Member> {
        let entries = self.members.iter().filter_map(|(key, entry)| {
            Some(Member { key: *key, role: entry.role?, name: entry.name.clone() })
        });
        entries.collect()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings.1
    }

    /// Who wrote under each device id, removed devices included: key and name.
    pub(crate) fn authors(&self) -> BTreeMap<DeviceId, ([u8; 32], String)> {
        let mut authors = BTreeMap::new();
        for (key, entry) in &self.members {
            for incarnation in 0..INCARNATIONS_KNOWN {
                authors.insert(device_id(key, incarnation), (*key, entry.name.clone()));
            }
        }
        authors
    }

    /// Adds, changes or removes a device.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if who is to be removed is no member; [`Error::NotPermitted`] if no
    /// owner would be left; [`Error::Invalid`].
    pub(crate) fn set_member(
        &mut self,
        key: [u8; 32],
        name: &str,
        role: Option<Role>,
        at: OpId,
    ) -> Result<()> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::Invalid("the name of a device has at most 255 bytes"));
        }
        let known = self.members.get(&key).filter(|entry| entry.role.is_some());
        if known.is_none() && role.is_none() {
            return Err(Error::NotFound);
        }
        if !self.members.contains_key(&key) && self.members.len() >= MEMBERS_MAX {
            return Err(Error::Invalid("a bucket has at most 256 devices, removed ones included"));
        }
        let mut owners = self.members.iter().filter(|(_, entry)| entry.role == Some(Role::Owner));
        if role != Some(Role::Owner) && owners.all(|(owner, _)| *owner == key) {
            return Err(Error::NotPermitted);
        }
        self.members.insert(key, Entry { at, role, name: name.to_owned() });
        Ok(())
    }

    /// # Errors
    ///
    /// [`Error::Invalid`] for a glob that is none.
    pub(crate) fn set_settings(&mut self, settings: Settings, at: OpId) -> Result<()> {
        check(&settings)?;
        self.settings = (at, settings);
        Ok(())
    }

    /// Whether `author`, whose new operations are `is_new`, may have made this charter of what it
    /// knew.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub(crate) fn follows(
        &self,
        known: &Self,
        author: &[u8; 32],
        is_new: impl Fn(&OpId) -> bool,
    ) -> Result<(), &'static str> {
        known.lets_write(author, self != known)?;
        let keys: BTreeSet<_> = self.members.keys().chain(known.members.keys()).collect();
        for key in keys {
            match (self.members.get(key), known.members.get(key)) {
                (Some(now), before) if Some(now) == before => (),
                (Some(now), _) if is_new(&now.at) => (),
                _ => return Err("a member was changed by nobody"),
            }
        }
        if self.settings != known.settings && !is_new(&self.settings.0) {
            return Err("the settings were changed by nobody");
        }
        Ok(())
    }

    /// Whether `author` may have made this charter of one that is not here, by the present one,
    /// `known`. What is older than in `known` is let pass: joined with that it changes nothing.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub(crate) fn adds_to(&self, known: &Self, author: &[u8; 32]) -> Result<(), &'static str> {
        let mut both = known.clone();
        both.join(self);
        known.lets_write(author, both != *known)
    }

    /// Whether `author` may make a version, and one that `changes` members or settings.
    fn lets_write(&self, author: &[u8; 32], changes: bool) -> Result<(), &'static str> {
        match self.role(author) {
            Some(Role::Owner) => Ok(()),
            Some(Role::Writer) if !changes => Ok(()),
            Some(Role::Writer) => Err("its author may not change members or settings"),
            Some(Role::Reader) => Err("its author may only read"),
            None => Err("its author is no member"),
        }
    }

    /// The same for the same charter, and for no other.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let bytes = postcard::to_stdvec(self).expect("because charters always encode");
        *blake3::hash(&bytes).as_bytes()
    }

    /// Whether it is within bounds.
    pub(crate) fn is_sound(&self) -> bool {
        self.members.len() <= MEMBERS_MAX
            && self.members.values().all(|entry| entry.name.len() <= NAME_BYTES_MAX)
            && check(&self.settings.1).is_ok()
    }
}

fn check(settings: &Settings) -> Result<()> {
    if settings.rules.len() > RULES_MAX {
        return Err(Error::Invalid("more than 256 rules"));
    }
    if settings.rules.iter().any(|(glob, _)| glob.len() > NAME_BYTES_MAX) {
        return Err(Error::Invalid("a glob has at most 255 bytes"));
    }
    resolver(settings).map(drop)
}

/// What answers conflicts under `settings`.
///
/// # Errors
///
/// [`Error::Invalid`] for a glob that is none.
pub(crate) fn resolver(settings: &Settings) -> Result<PathRules> {
    let mut rules = PathRules::new(settings.strategy.into());
    for (glob, strategy) in &settings.rules {
        rules = rules
            .rule(glob, (*strategy).into())
            .map_err(|_source| Error::Invalid("a rule's glob cannot be read"))?;
    }
    Ok(rules)
}

impl From<Strategy> for cairnfs_merge::Strategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::ConflictFile => Self::ConflictFile,
            Strategy::LastWriteWins => Self::LastWriteWins,
            Strategy::BaseWins => Self::BaseWins,
            Strategy::Fork => Self::ForkOnConflict,
            Strategy::MergeText => Self::MergeText,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 32] = [1; 32];
    const B: [u8; 32] = [2; 32];

    fn op(lamport: u64, key: &[u8; 32]) -> OpId {
        OpId { lamport, device: device_id(key, 0) }
    }

    fn two() -> Charter {
        let mut charter = Charter::begin(A, op(1, &A));
        charter.set_member(B, "b", Some(Role::Writer), op(2, &A)).unwrap();
        charter
    }

    #[test]
    fn the_later_change_counts_whoever_joins() {
        let (mut a, mut b) = (two(), two());
        a.set_member(B, "b", None, op(4, &A)).unwrap();
        b.set_member(B, "renamed", Some(Role::Reader), op(3, &A)).unwrap();
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.join(&b);
        ba.join(&a);
        assert_eq!(ab, ba);
        assert_eq!(ab.role(&B), None, "removed, and not brought back");
    }

    #[test]
    fn only_an_owner_changes_members_and_only_by_operations_of_its_own() {
        let known = two();
        let mut changed = known.clone();
        changed.set_member(B, "b", Some(Role::Owner), op(5, &B)).unwrap();
        let by = |key: [u8; 32]| move |at: &OpId| at.device == device_id(&key, 0) && at.lamport > 2;
        assert!(changed.follows(&known, &B, by(B)).is_err(), "a writer");
        assert!(changed.follows(&known, &A, by(A)).is_err(), "another's operation");
        assert!(changed.follows(&known, &[9; 32], by(B)).is_err(), "a stranger");
        let mut changed = known.clone();
        changed.set_member(B, "b", Some(Role::Owner), op(5, &A)).unwrap();
        assert!(changed.follows(&known, &A, by(A)).is_ok());
        assert!(known.follows(&known, &B, by(B)).is_ok(), "a writer who changes nothing");
    }

    #[test]
    fn somebody_stays_who_may_invite() {
        let mut charter = two();
        assert!(matches!(charter.set_member(A, "", None, op(3, &A)), Err(Error::NotPermitted)));
        let demoted = charter.set_member(A, "", Some(Role::Reader), op(3, &A));
        assert!(matches!(demoted, Err(Error::NotPermitted)));
        assert!(matches!(charter.set_member([7; 32], "", None, op(3, &A)), Err(Error::NotFound)));
    }

    #[test]
    fn a_glob_that_is_none_is_refused() {
        let settings = Settings { rules: vec![("a[".into(), Strategy::Fork)], ..two().settings.1 };
        assert!(two().set_settings(settings, op(3, &A)).is_err());
    }
}
