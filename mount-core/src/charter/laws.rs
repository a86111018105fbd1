//! The rule's laws, in random histories of five devices that change members, meet, and go on from
//! where they were long ago.

use proptest::{
    prelude::{
        Just, ProptestConfig, Strategy as _, any, prop, prop_assert, prop_assert_eq, prop_oneof,
        proptest,
    },
    sample::Index,
};

use super::*;
use crate::Strategy;

const DEVICES: u8 = 5;

#[derive(Clone, Debug)]
enum Step {
    Change {
        by: usize,
        about: u8,
        role: Option<Role>,
        later: u64,
    },
    Settings {
        by: usize,
        strategy: Strategy,
    },
    Meet {
        one: usize,
        other: usize,
    },
    /// As if it did not know what it has learned since.
    Back {
        who: usize,
        to: Index,
    },
}

fn key(device: u8) -> DevicePublicKey {
    DevicePublicKey([device + 1; 32])
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    let device = || 0..usize::from(DEVICES);
    let role = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Role::Reader)),
        2 => Just(Some(Role::Writer)),
        4 => Just(Some(Role::Owner)),
    ];
    let strategy = || prop_oneof![Just(Strategy::Fork), Just(Strategy::BaseWins)];
    prop_oneof![
        6 => (device(), 0..DEVICES, role, 1..9_u64)
            .prop_map(|(by, about, role, later)| Step::Change { by, about, role, later }),
        1 => (device(), strategy()).prop_map(|(by, strategy)| Step::Settings { by, strategy }),
        4 => (device(), device()).prop_map(|(one, other)| Step::Meet { one, other }),
        2 => (device(), any::<Index>()).prop_map(|(who, to)| Step::Back { who, to }),
    ]
}

/// What each device knew at each time, and what all know in the end.
struct World {
    now: Vec<Charter>,
    before: Vec<Charter>,
    lamports: Vec<u64>,
}

impl World {
    /// Three owners, a writer, and one that is no member yet.
    fn begin() -> Self {
        let at = |lamport| OpId { lamport, device: device_id(&key(0), 0) };
        let mut charter = Charter::begin(key(0), at(1));
        for (device, role) in [(1, Role::Owner), (2, Role::Owner), (3, Role::Writer)] {
            let origin = Origin { by: key(0), at: at(1 + u64::from(device)) };
            charter.set_member(origin, key(device), "", Some(role)).unwrap();
        }
        let now = vec![charter.clone(); usize::from(DEVICES)];
        Self { now, before: vec![charter], lamports: vec![4; usize::from(DEVICES)] }
    }

    /// The next operation of `who`, that it has never used.
    fn op(&mut self, who: usize, later: u64) -> Origin {
        let known = self.now[who].changes.keys().map(|at| at.lamport).max().unwrap_or(0);
        let lamport = known.max(self.lamports[who]) + later;
        self.lamports[who] = lamport;
        let by = key(u8::try_from(who).unwrap());
        Origin { by, at: OpId { lamport, device: device_id(&by, 0) } }
    }

    /// What a device changes holds for it, and what it does not touch stays.
    fn change(&mut self, by: usize, about: u8, role: Option<Role>, later: u64) {
        let origin = self.op(by, later);
        let before = self.now[by].clone();
        if before.role(&origin.by) != Some(Role::Owner)
            || self.now[by].set_member(origin, key(about), "", role).is_err()
        {
            return;
        }
        let now = &self.now[by];
        assert_eq!(now.follows(&before, &origin.by, |at| *at == origin.at), Ok(()));
        let is_ownerless = before.standing.seats.values().all(|seat| {
            let said = seat.by.map(|by| &before.changes[&by].what);
            let owner = Some(Role::Owner);
            seat.role != owner || matches!(said, Some(What::Member { role, .. }) if *role != owner)
        });
        for device in (0..DEVICES).filter(|_| !is_ownerless) {
            let expected = if device == about { role } else { before.role(&key(device)) };
            assert_eq!(now.role(&key(device)), expected);
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Change { by, about, role, later } => self.change(by, about, role, later),
            Step::Settings { by, strategy } => {
                let origin = self.op(by, 1);
                if self.now[by].role(&origin.by) == Some(Role::Owner) {
                    let settings = Settings { strategy, rules: Vec::new() };
                    self.now[by].set_settings(origin, settings.clone()).unwrap();
                    assert_eq!(*self.now[by].settings(), settings);
                }
            }
            Step::Meet { one, other } => {
                let theirs = self.now[other].clone();
                self.now[one].join(&theirs);
                self.now[other] = self.now[one].clone();
            }
            Step::Back { who, ref to } => self.now[who] = to.get(&self.before).clone(),
        }
        self.before.extend(self.now.iter().cloned());
    }
}

fn of(charters: &[Charter]) -> Charter {
    charters.iter().fold(Charter::unknown(), |mut all, one| {
        all.join(one);
        all
    })
}

/// The removals by owners whom nobody made less than that without knowing of it, nor those from
/// whom they have their right: with who was removed.
fn undisputed(all: &Charter) -> Vec<(OpId, DevicePublicKey)> {
    let is_disputed = |at: &OpId, change: &CharterChange| {
        all.changes.iter().any(|(other, it)| {
            let takes = matches!(&it.what, What::Member { key, role, .. }
                if *key == change.by && *role != Some(Role::Owner));
            takes && other != at && !it.seen.knows(at) && !change.seen.knows(other)
        })
    };
    let removals = all.changes.iter().filter_map(|(at, change)| {
        let What::Member { key, role: None, .. } = &change.what else { return None };
        let rights = std::iter::successors(Some((at, change)), |(_, change)| {
            all.changes.get_key_value(&change.right?)
        });
        let is_clear = !rights.into_iter().any(|(at, change)| is_disputed(at, change));
        is_clear.then_some((*at, *key))
    });
    removals.collect()
}

/// `all` without what `who` changed when it did not know of `removal`, and all that rests on that.
fn without(all: &Charter, removal: &OpId, who: &DevicePublicKey) -> Charter {
    let seen = &all.changes[removal].seen;
    let mut gone = BTreeMap::new();
    for (at, change) in &all.changes {
        let is_apart = !seen.knows(at) && !change.seen.knows(removal) && at != removal;
        let rests = change.right.is_some_and(|right| gone.contains_key(&right));
        if rests || (change.by == *who && is_apart) {
            gone.insert(*at, ());
        }
    }
    let kept = all.changes.iter().filter(|(at, _)| !gone.contains_key(at));
    Charter::of(all.founding.clone(), kept.map(|(at, change)| (*at, change.clone())).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_in_random_histories(
        steps in prop::collection::vec(step(), 1..40),
        order in prop::collection::vec(any::<Index>(), 40),
    ) {
        let mut world = World::begin();
        steps.iter().for_each(|step| world.take(step));
        let all = of(&world.before);

        // Whatever meets in whichever order, and however often, comes to the same.
        let mut left = world.now.clone();
        for at in &order {
            let (one, other) = (at.index(left.len()), order[0].index(left.len()));
            let joined = of(&[left[one].clone(), left[other].clone(), left[one].clone()]);
            left[other] = joined;
        }
        left.extend(world.before.iter().rev().cloned());
        prop_assert_eq!(&of(&left), &all);
        let (half, rest) = world.before.split_at(order[0].index(world.before.len()));
        prop_assert_eq!(&of(&[of(rest), of(half), of(rest)]), &all);

        // Who was removed comes back by nobody who did not know of it, and what it did before it
        // knew of that counts for nothing.
        for (removal, who) in undisputed(&all) {
            let is_invited = all.changes.values().any(|it| {
                let invites = matches!(&it.what, What::Member { key, role: Some(_), .. } if *key == who);
                invites && it.seen.knows(&removal)
            });
            prop_assert!(is_invited || all.role(&who).is_none());
            let without = without(&all, &removal, &who);
            prop_assert_eq!(without.members(), all.members());
            prop_assert_eq!(without.settings(), all.settings());
        }

        let may = |least| all.members().iter().any(|member| member.role >= least);
        prop_assert_eq!(may(Role::Writer), may(Role::Owner));
        let bytes = postcard::to_stdvec(&all).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Charter>(&bytes).unwrap(), all);
    }
}
