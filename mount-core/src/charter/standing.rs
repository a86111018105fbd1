//! What follows from the changes of members and settings: who has the bucket by now.
//!
//! ```text
//!   1  links      which change takes away the right to which, and which rests on which
//!   2  weights    which of them count: see the rule in the module above
//!   3  seats      of those about one device, and about the settings, the one that holds
//! ```

use std::{cmp::Reverse, collections::BTreeMap};

use cairnfs_merge::OpId;
use cairnfs_store::DevicePublicKey;

use super::{CharterChange, Founding, What};
use crate::{Settings, manifest::Role};

/// What holds, by all changes that are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// By public key; whoever was ever named, removed devices too.
    pub(super) seats: BTreeMap<DevicePublicKey, Seat>,
    pub(super) settings: Settings,
}

/// What holds of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seat {
    pub(super) role: Option<Role>,
    pub(super) name: String,
    /// The change that says so; none if the bucket began with it.
    pub(super) by: Option<OpId>,
}

/// What a change counts for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// For what it says.
    Full,
    /// It and others would undo each other: whom it is about is removed.
    Removal,
    /// For nothing.
    None,
}

impl Standing {
    pub(super) fn of(founding: &Founding, changes: &BTreeMap<OpId, CharterChange>) -> Self {
        let weights = Links::of(changes).weigh();
        let began = founding.members.iter().map(|(key, entry)| {
            (*key, Seat { role: entry.role, name: entry.name.clone(), by: None })
        });
        let mut seats: BTreeMap<_, _> = began.collect();
        let mut settings = founding.settings.1.clone();
        let mut about: BTreeMap<DevicePublicKey, Vec<Said<'_>>> = BTreeMap::new();
        for ((at, change), weight) in changes.iter().zip(weights) {
            match (&change.what, weight) {
                (What::Member { key, role, name }, _) => {
                    let role = role.filter(|_| weight == Weight::Full);
                    let said = Said { at: *at, change, weight, role, name };
                    about.entry(*key).or_default().push(said);
                }
                // They come by time, and a later one may have seen all before.
                (What::Settings(said), Weight::Full) => settings = said.clone(),
                (What::Settings(_), _) => (),
            }
        }
        for (key, said) in about {
            if let Some(seat) = Said::seat(&said) {
                seats.insert(key, seat);
            } else if let Some(last) = said.last() {
                let seat = Seat { role: None, name: last.name.to_owned(), by: None };
                seats.entry(key).or_insert(seat);
            }
        }
        Self { seats, settings }.with_an_owner()
    }

    /// Where no owner is left, who may write takes the place of one.
    fn with_an_owner(mut self) -> Self {
        if self.seats.values().all(|seat| seat.role != Some(Role::Owner)) {
            let writers = self.seats.values_mut().filter(|it| it.role == Some(Role::Writer));
            writers.for_each(|seat| seat.role = Some(Role::Owner));
        }
        self
    }
}

/// A change about a device.
struct Said<'a> {
    at: OpId,
    change: &'a CharterChange,
    weight: Weight,
    role: Option<Role>,
    name: &'a str,
}

impl Said<'_> {
    /// What holds of a device by these changes, if one of them counts.
    fn seat(all: &[Self]) -> Option<Seat> {
        let counts = || all.iter().filter(|it| it.weight != Weight::None);
        let is_last = |it: &&Self| counts().all(|other| !other.change.seen.knows(&it.at));
        let holds = counts().filter(is_last).min_by_key(|it| (it.role, Reverse(it.at)))?;
        Some(Seat { role: holds.role, name: holds.name.to_owned(), by: Some(holds.at) })
    }
}

/// How changes bear on each other; each is named by its place in the order of time.
struct Links {
    /// Whether the change leaves a device no owner.
    takes: Vec<bool>,
    /// Changes that leave its author no owner, where neither had seen the other.
    against: Vec<Vec<usize>>,
    /// The change by which its author may make it.
    right: Vec<Option<usize>>,
}

impl Links {
    fn of(changes: &BTreeMap<OpId, CharterChange>) -> Self {
        let mut takers: BTreeMap<DevicePublicKey, Vec<(usize, &OpId, &CharterChange)>> =
            BTreeMap::new();
        let mut takes = Vec::with_capacity(changes.len());
        for (index, (at, change)) in changes.iter().enumerate() {
            let taken = match &change.what {
                What::Member { key, role, .. } if *role != Some(Role::Owner) => Some(*key),
                _ => None,
            };
            takes.push(taken.is_some());
            if let Some(key) = taken {
                takers.entry(key).or_default().push((index, at, change));
            }
        }
        let against = changes.iter().map(|(at, change)| {
            let apart = |(_, other, taker): &&(usize, &OpId, &CharterChange)| {
                *other != at && !taker.seen.knows(at) && !change.seen.knows(other)
            };
            let takers = takers.get(&change.by).into_iter().flatten().filter(apart);
            takers.map(|(index, ..)| *index).collect()
        });
        let places: BTreeMap<&OpId, usize> = changes.keys().zip(0..).collect();
        let right = changes.values().map(|change| places.get(&change.right?).copied());
        Self { takes, against: against.collect(), right: right.collect() }
    }

    fn weigh(&self) -> Vec<Weight> {
        let mut weights = vec![None; self.takes.len()];
        self.settle(&mut weights);
        while let Some(circle) = self.circle(&weights) {
            for one in circle.into_iter().filter(|one| self.takes[*one]) {
                weights[one] = Some(Weight::Removal);
            }
            self.settle(&mut weights);
        }
        weights.into_iter().map(|weight| weight.unwrap_or(Weight::None)).collect()
    }

    /// Weighs all that can be weighed.
    fn settle(&self, weights: &mut [Option<Weight>]) {
        let mut is_settled = false;
        while !is_settled {
            is_settled = true;
            for one in 0..weights.len() {
                if weights[one].is_none() {
                    weights[one] = self.weigh_one(one, weights);
                    is_settled &= weights[one].is_none();
                }
            }
        }
    }

    /// None as long as it depends on what has not been weighed.
    fn weigh_one(&self, one: usize, weights: &[Option<Weight>]) -> Option<Weight> {
        let right = self.right[one].map_or(Some(Weight::Full), |right| weights[right]);
        let against = || self.against[one].iter().map(|other| weights[*other]);
        let is_undone = against().flatten().any(|weight| weight != Weight::None);
        if is_undone || right.is_some_and(|weight| weight != Weight::Full) {
            return Some(Weight::None);
        }
        (right.is_some() && against().all(|weight| weight.is_some())).then_some(Weight::Full)
    }

    /// Changes not weighed yet that bear on each other, directly or through others, and on which no
    /// other one does. As a right is older than what rests on it, one of them takes something.
    fn circle(&self, weights: &[Option<Weight>]) -> Option<Vec<usize>> {
        let mut onward = vec![Vec::new(); weights.len()];
        let mut back = vec![Vec::new(); weights.len()];
        for one in (0..weights.len()).filter(|one| weights[*one].is_none()) {
            let others = self.against[one].iter().chain(&self.right[one]);
            for other in others.filter(|other| weights[**other].is_none()) {
                onward[*other].push(one);
                back[one].push(*other);
            }
        }
        // What a search from all of them leaves last is in such a circle (Kosaraju, 1978).
        let mut order = Vec::new();
        let mut found = vec![false; weights.len()];
        for one in (0..weights.len()).filter(|one| weights[*one].is_none()) {
            search(one, &onward, &mut found, &mut order);
        }
        let last = order.pop()?;
        let mut circle = Vec::new();
        search(last, &back, &mut vec![false; weights.len()], &mut circle);
        Some(circle)
    }
}

/// Lists what is reached from `one`, each after those that are reached through it.
fn search(one: usize, edges: &[Vec<usize>], found: &mut [bool], order: &mut Vec<usize>) {
    if std::mem::replace(&mut found[one], true) {
        return;
    }
    edges[one].iter().for_each(|next| search(*next, edges, found, order));
    order.push(one);
}
