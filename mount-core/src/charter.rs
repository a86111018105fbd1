//! What all devices agree on besides the tree: who has the bucket, and how conflicts are treated.
//!
//! A part of every version: all changes of members and settings that its author knew of, each with
//! what *its* author knew of. Joining two charters is joining two sets, so that it is commutative,
//! associative and idempotent; what follows from a set (`standing.rs`) is the same on every device.
//!
//! **The rule.** Of two changes that concern one device or the settings, the one that had seen the
//! other counts. Of such as had not seen each other, the one counts that leaves a device the least,
//! so that who was removed stays removed until an owner who knows of it invites it again; else the
//! later. Whoever is no owner any more, by a change that counts, loses besides what it changed
//! without having seen that, and so does who got a right from that: invitations, removals and
//! settings alike, as nobody can tell good faith from a device in wrong hands. Changes that would
//! thus undo each other, as when two owners remove each other, count all: those whom they are about
//! are out. In a bucket that no owner is left in, whoever may write may do what an owner may.

mod rules;
mod standing;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use cairnfs_merge::{DeviceId, OpId, VersionVector};
use cairnfs_store::DevicePublicKey;
use serde::{Deserialize, Serialize, Serializer};

pub(crate) use self::rules::resolver;
use self::{rules::check, standing::Standing};
use crate::{
    Error, Result, Settings,
    manifest::{Member, Role, device_id},
};

/// More devices than anybody has, removed ones included.
pub(crate) const MEMBERS_MAX: usize = 256;
/// How often members and settings can be changed; from then on devices can be removed only.
const GRANTS_MAX: usize = 512;
/// As many changes as there can be.
const CHANGES_MAX: usize = GRANTS_MAX + MEMBERS_MAX;
/// Longest name of a device, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// How often a device can begin anew and still be known as the author of what it wrote.
const INCARNATIONS_KNOWN: u32 = 16;
/// Before all operations.
const NEVER: OpId = OpId { lamport: 0, device: DeviceId([0; 16]) };

/// A device's entry in [`Founding`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The operation that wrote it. First, so that the later of two entries is the greater.
    pub(crate) at: OpId,
    /// What it may do; `None` if it was removed.
    pub(crate) role: Option<Role>,
    /// What its owner calls it.
    pub(crate) name: String,
}

/// What a bucket began with. In formats that did not keep changes, what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Founding {
    /// By public key.
    members: BTreeMap<DevicePublicKey, Entry>,
    settings: (OpId, Settings),
}

/// The device that changes members or settings, and the operation under which it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// Its public key.
    pub(crate) by: DevicePublicKey,
    pub(crate) at: OpId,
}

/// A change of members or settings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct CharterChange {
    /// The public key of the device that made it.
    by: DevicePublicKey,
    /// The change by which that device may; none if it could from the beginning.
    right: Option<OpId>,
    /// The changes that it had seen.
    seen: VersionVector,
    what: What,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
enum What {
    Member {
        key: DevicePublicKey,
        /// What it may do from now on; `None` if it is removed.
        role: Option<Role>,
        name: String,
    },
    Settings(Settings),
}

/// See the module's doc.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "(Founding, BTreeMap<OpId, CharterChange>)")]
pub(crate) struct Charter {
    founding: Founding,
    /// By the operation that made each.
    changes: BTreeMap<OpId, CharterChange>,
    /// What follows from both.
    standing: Standing,
}

impl Serialize for Charter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.founding, &self.changes).serialize(serializer)
    }
}

impl TryFrom<(Founding, BTreeMap<OpId, CharterChange>)> for Charter {
    type Error = &'static str;

    fn try_from(
        (founding, changes): (Founding, BTreeMap<OpId, CharterChange>),
    ) -> Result<Self, Self::Error> {
        // Before anything is made of it: that takes time.
        if !is_sound(&founding, &changes) {
            return Err("members or settings out of bounds");
        }
        Ok(Self::of(founding, changes))
    }
}

impl From<Founding> for Charter {
    fn from(founding: Founding) -> Self {
        Self::of(founding, BTreeMap::new())
    }
}

impl From<Vec<Member>> for Charter {
    fn from(members: Vec<Member>) -> Self {
        Self::of_members(members, NEVER)
    }
}

impl Charter {
    fn of(founding: Founding, changes: BTreeMap<OpId, CharterChange>) -> Self {
        let standing = Standing::of(&founding, &changes);
        Self { founding, changes, standing }
    }

    /// That of a new bucket: one owner.
    pub(crate) fn begin(owner: DevicePublicKey, at: OpId) -> Self {
        Self::of_members(vec![Member { key: owner, role: Role::Owner, name: String::new() }], at)
    }

    /// That of a device that has joined and not seen a version yet.
    pub(crate) fn unknown() -> Self {
        Self::of_members(Vec::new(), NEVER)
    }

    /// That of a bucket that began with these members.
    pub(crate) fn of_members(members: Vec<Member>, at: OpId) -> Self {
        let entry =
            |member: Member| (member.key, Entry { at, role: Some(member.role), name: member.name });
        let members = members.into_iter().map(entry).collect();
        Self::of(Founding { members, settings: (at, Settings::default()) }, BTreeMap::new())
    }

    pub(crate) fn join(&mut self, other: &Self) {
        if self == other {
            return;
        }
        for (key, theirs) in &other.founding.members {
            keep_greater(&mut self.founding.members, key, theirs);
        }
        if self.founding.settings < other.founding.settings {
            self.founding.settings = other.founding.settings.clone();
        }
        for (at, theirs) in &other.changes {
            keep_greater(&mut self.changes, at, theirs);
        }
        self.standing = Standing::of(&self.founding, &self.changes);
    }

    /// The same with other names for the operations that changed it.
    pub(crate) fn retagged(&self, rename: &impl Fn(OpId) -> OpId) -> Self {
        let seen = |change: &CharterChange| {
            let seen = self.changes.keys().filter(|at| change.seen.knows(at));
            knowing(seen.map(|at| rename(*at)))
        };
        let changes = self.changes.iter().map(|(at, change)| {
            let right = change.right.map(rename);
            (rename(*at), CharterChange { right, seen: seen(change), ..change.clone() })
        });
        Self::of(self.founding.clone(), changes.collect())
    }

    /// What the device `key` may do.
    pub(crate) fn role(&self, key: &DevicePublicKey) -> Option<Role> {
        self.standing.seats.get(key)?.role
    }

    /// Whether the device `key` had the bucket once and was removed.
    pub(crate) fn was_removed(&self, key: &DevicePublicKey) -> bool {
        self.standing.seats.get(key).is_some_and(|seat| seat.role.is_none())
    }

    /// A name for the removal of the device `key`, if it is removed. Another removal of it, after it was
    /// let in again, has another one.
    pub(crate) fn removal(&self, key: &DevicePublicKey) -> Option<[u8; 32]> {
        if !self.was_removed(key) {
            return None;
        }
        let mut name = blake3::Hasher::new();
        name.update(&key.0);
        for (at, change) in &self.changes {
            if matches!(&change.what, What::Member { key: about, .. } if about == key) {
                name.update(&at.lamport.to_le_bytes()).update(&at.device.0);
            }
        }
        Some(*name.finalize().as_bytes())
    }

    /// The names of all removals, see [`Charter::removal`].
    pub(crate) fn removals(&self) -> Vec<[u8; 32]> {
        self.standing.seats.keys().filter_map(|key| self.removal(key)).collect()
    }

    /// Whether all who are removed by `joined`, which has this one in it, are so by this one, and by
    /// the same removals.
    pub(crate) fn knows_removals_of(&self, joined: &Self) -> bool {
        let known = self.removals();
        joined.removals().iter().all(|removal| known.contains(removal))
    }

    /// The devices that have the bucket.
    pub(crate) fn members(&self) -> Vec<Member> {
        let members = self.standing.seats.iter().filter_map(|(key, seat)| {
            Some(Member { key: *key, role: seat.role?, name: seat.name.clone() })
        });
        members.collect()
    }

    /// Whether some who had the bucket by `before` do not any more.
    pub(crate) fn has_lost_some_of(&self, before: &Self) -> bool {
        before.members().iter().any(|member| self.role(&member.key).is_none())
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.standing.settings
    }

    /// Who wrote under each device id, removed devices included: key and name.
    pub(crate) fn authors(&self) -> BTreeMap<DeviceId, (DevicePublicKey, String)> {
        let mut authors = BTreeMap::new();
        for (key, seat) in &self.standing.seats {
            for incarnation in 0..INCARNATIONS_KNOWN {
                authors.insert(device_id(key, incarnation), (*key, seat.name.clone()));
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
        origin: Origin,
        key: DevicePublicKey,
        name: &str,
        role: Option<Role>,
    ) -> Result<()> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::Invalid("the name of a device has at most 255 bytes"));
        }
        if self.role(&key).is_none() && role.is_none() {
            return Err(Error::NotFound);
        }
        let seats = &self.standing.seats;
        if !seats.contains_key(&key) && seats.len() >= MEMBERS_MAX {
            return Err(Error::Invalid("a bucket has at most 256 devices, removed ones included"));
        }
        let mut owners = seats.iter().filter(|(_, seat)| seat.role == Some(Role::Owner));
        if role != Some(Role::Owner) && owners.all(|(owner, _)| *owner == key) {
            return Err(Error::NotPermitted);
        }
        let room = if role.is_some() { GRANTS_MAX } else { CHANGES_MAX };
        self.change(origin, What::Member { key, role, name: name.to_owned() }, room)
    }

    /// Changes the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a glob that is none.
    pub(crate) fn set_settings(&mut self, origin: Origin, settings: Settings) -> Result<()> {
        check(&settings)?;
        if settings == *self.settings() {
            return Ok(());
        }
        self.change(origin, What::Settings(settings), GRANTS_MAX)
    }

    fn change(&mut self, Origin { by, at }: Origin, what: What, room: usize) -> Result<()> {
        if self.changes.len() >= room {
            return Err(Error::Invalid("its members and settings were changed too often"));
        }
        let change = CharterChange { by, right: self.right(&by), seen: self.seen(), what };
        self.changes.insert(at, change);
        self.standing = Standing::of(&self.founding, &self.changes);
        Ok(())
    }

    /// The change by which the device `key` may do what it may.
    fn right(&self, key: &DevicePublicKey) -> Option<OpId> {
        self.standing.seats.get(key)?.by
    }

    /// What knows all changes and nothing else.
    fn seen(&self) -> VersionVector {
        knowing(self.changes.keys().copied())
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
        author: &DevicePublicKey,
        is_new: impl Fn(&OpId) -> bool,
    ) -> Result<(), &'static str> {
        known.lets_write(author, self != known)?;
        let is_kept = known.changes.iter().all(|(at, change)| self.changes.get(at) == Some(change));
        if self.founding != known.founding || !is_kept {
            return Err("a member or the settings were changed by nobody");
        }
        let new: BTreeMap<_, _> =
            self.changes.iter().filter(|(at, _)| !known.changes.contains_key(at)).collect();
        let (seen, right) = (known.seen(), known.right(author));
        for (at, change) in &new {
            if change.by != *author || !is_new(at) {
                return Err("a member or the settings were changed by nobody");
            }
            let is_own = |device, lamport| device == at.device && lamport < at.lamport;
            let may_see = |device, lamport| seen.get(device) >= lamport || is_own(*device, lamport);
            if !change.seen.iter().all(|(device, lamport)| may_see(device, lamport)) {
                return Err("a change of members or settings claims to have seen others");
            }
            if change.right != right && !change.right.is_some_and(|right| new.contains_key(&right))
            {
                return Err("a change of members or settings claims another right");
            }
        }
        Ok(())
    }

    /// Whether `author` may have made this charter of one that is not here, by the present one,
    /// `known`. That it lacks some of `known` is let pass: joined with that it changes nothing.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub(crate) fn adds_to(
        &self,
        known: &Self,
        author: &DevicePublicKey,
    ) -> Result<(), &'static str> {
        let mut both = known.clone();
        both.join(self);
        known.lets_write(author, both != *known)
    }

    /// Whether `author` may make a version, and one that `changes` members or settings.
    fn lets_write(&self, author: &DevicePublicKey, changes: bool) -> Result<(), &'static str> {
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

    /// Whether it is within bounds: of two that are, what is joined need not be.
    pub(crate) fn is_sound(&self) -> bool {
        is_sound(&self.founding, &self.changes)
    }
}

fn keep_greater<K: Ord + Copy, V: Ord + Clone>(ours: &mut BTreeMap<K, V>, key: &K, theirs: &V) {
    match ours.get_mut(key) {
        Some(one) if *one < *theirs => *one = theirs.clone(),
        Some(_) => (),
        None => drop(ours.insert(*key, theirs.clone())),
    }
}

fn knowing(ops: impl Iterator<Item = OpId>) -> VersionVector {
    let mut seen = VersionVector::new();
    ops.for_each(|op| seen.learn(&op));
    seen
}

fn is_sound(founding: &Founding, changes: &BTreeMap<OpId, CharterChange>) -> bool {
    let is_right = |change: &CharterChange, right: &OpId| {
        let given = changes.get(right).map(|change| &change.what);
        matches!(given, Some(What::Member { key, role: Some(_), .. }) if *key == change.by)
    };
    founding.members.len() <= MEMBERS_MAX
        && founding.members.values().all(|entry| entry.name.len() <= NAME_BYTES_MAX)
        && check(&founding.settings.1).is_ok()
        && changes.len() <= CHANGES_MAX
        && changes.iter().all(|(at, change)| {
            let is_within = match &change.what {
                What::Member { name, .. } => name.len() <= NAME_BYTES_MAX,
                What::Settings(settings) => check(settings).is_ok(),
            };
            let is_rightful = change.right.is_none_or(|it| it < *at && is_right(change, &it));
            is_within && is_rightful && change.seen.len() <= CHANGES_MAX
        })
}
