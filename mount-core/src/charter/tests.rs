use super::*;
use crate::Strategy;

const A: DevicePublicKey = DevicePublicKey([1; 32]);
const B: DevicePublicKey = DevicePublicKey([2; 32]);
const C: DevicePublicKey = DevicePublicKey([3; 32]);
const D: DevicePublicKey = DevicePublicKey([4; 32]);
const E: DevicePublicKey = DevicePublicKey([5; 32]);
/// One that is no member.
const NEW: DevicePublicKey = DevicePublicKey([9; 32]);
const OWNER: Option<Role> = Some(Role::Owner);
const WRITER: Option<Role> = Some(Role::Writer);
const READER: Option<Role> = Some(Role::Reader);

fn op(lamport: u64, key: &DevicePublicKey) -> OpId {
    OpId { lamport, device: device_id(key, 0) }
}

fn origin(by: DevicePublicKey, lamport: u64) -> Origin {
    Origin { by, at: op(lamport, &by) }
}

impl Charter {
    /// Without the last change about `key`.
    pub(crate) fn forgetting(&self, key: &DevicePublicKey) -> Self {
        let mut changes = self.changes.clone();
        changes.remove(&self.right(key).unwrap());
        Self::of(self.founding.clone(), changes)
    }

    fn set(&mut self, by: DevicePublicKey, lamport: u64, key: DevicePublicKey, role: Option<Role>) {
        self.set_member(origin(by, lamport), key, "", role).unwrap();
    }

    fn and(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    fn roles(&self) -> Vec<(DevicePublicKey, Role)> {
        self.members().into_iter().map(|member| (member.key, member.role)).collect()
    }
}

/// What all come to, in whichever order.
fn joined(all: &[&Charter]) -> Charter {
    let join = |mut one: Charter, other: &&Charter| {
        one.join(other);
        one
    };
    let there = all.iter().fold(Charter::unknown(), join);
    let back = all.iter().rev().fold(Charter::unknown(), join);
    assert_eq!(there, back);
    there
}

fn two() -> Charter {
    Charter::begin(A, op(1, &A)).and(|it| it.set(A, 2, B, WRITER))
}

/// Three owners and a writer, D.
fn owners() -> Charter {
    let mut charter = Charter::begin(A, op(1, &A));
    charter.set(A, 2, B, OWNER);
    charter.set(B, 3, C, OWNER);
    charter.set(A, 4, D, WRITER);
    charter
}

fn strategy(strategy: Strategy) -> Settings {
    Settings { strategy, rules: Vec::new() }
}

#[test]
fn the_later_change_counts_whoever_joins() {
    let ours = two().and(|it| it.set(A, 4, B, READER));
    let theirs = two();
    assert_eq!(joined(&[&ours, &theirs]), ours);
    let set = |by, lamport, which| {
        owners().and(|it| it.set_settings(origin(by, lamport), strategy(which)).unwrap())
    };
    let (ours, theirs) = (set(A, 9, Strategy::Fork), set(B, 8, Strategy::BaseWins));
    assert_eq!(joined(&[&ours, &theirs]).settings().strategy, Strategy::Fork);
}

#[test]
fn who_was_removed_stays_so_until_somebody_who_knows_of_it_invites_it_again() {
    let removed = owners().and(|it| it.set(A, 5, D, None));
    let changed = owners().and(|it| it.set(B, 90, D, OWNER));
    let mut both = joined(&[&removed, &changed]);
    assert_eq!(both.role(&D), None);
    assert!(both.was_removed(&D));
    both.set(C, 91, D, READER);
    assert_eq!(joined(&[&both, &removed, &changed]).role(&D), READER);
}

#[test]
fn each_removal_has_a_name_of_its_own() {
    let mut charter = owners();
    assert_eq!((charter.removal(&D), charter.removals()), (None, Vec::new()));
    charter.set(A, 5, D, None);
    let first = charter.removal(&D).unwrap();
    charter.set(B, 6, E, WRITER);
    charter.set(A, 7, E, None);
    assert_eq!(charter.removals(), [first, charter.removal(&E).unwrap()]);
    charter.set(A, 8, D, WRITER);
    assert_eq!(charter.removal(&D), None);
    charter.set(A, 9, D, None);
    assert!(![first, charter.removal(&E).unwrap()].contains(&charter.removal(&D).unwrap()));
}

#[test]
fn what_an_owner_changed_before_it_learned_that_it_is_none_counts_for_nothing() {
    for role in [None, READER, WRITER] {
        let known = owners().and(|it| it.set(B, 5, E, READER));
        let removed = known.and(|it| it.set(A, 6, B, role));
        let mut unaware = known.and(|it| it.set(B, 60, E, OWNER));
        unaware.set_settings(origin(B, 61), strategy(Strategy::Fork)).unwrap();
        unaware.set(B, 62, C, None);
        unaware.set(E, 63, B, OWNER);
        unaware.set(E, 64, NEW, OWNER);
        let both = joined(&[&removed, &unaware]);
        let expected = removed.roles();
        assert_eq!((both.roles(), both.settings()), (expected, removed.settings()), "{role:?}");
        assert!(both.was_removed(&NEW), "it has the bucket, and is to be told");
    }
}

#[test]
fn what_a_removed_owner_had_changed_before_stays() {
    let mut charter = owners();
    charter.set(A, 5, B, None);
    assert_eq!(charter.role(&C), OWNER, "whom it had made one");
    charter.set(C, 6, E, WRITER);
    assert_eq!(charter.role(&E), WRITER);
}

/// As when one of them was stolen, and goes on from where it knew of nothing.
#[test]
fn owners_who_remove_each_other_are_out_and_others_stay() {
    let ours = owners().and(|it| it.set(B, 5, A, None));
    let theirs = owners().and(|it| {
        it.set(A, 50, C, None);
        it.set(A, 51, B, None);
        it.set(A, 52, E, OWNER);
    });
    let mut both = joined(&[&ours, &theirs]);
    assert_eq!(both.roles(), [(C, Role::Owner), (D, Role::Writer)]);
    both.set(C, 53, B, OWNER);
    assert_eq!(both.role(&B), OWNER);
}

#[test]
fn three_who_remove_each_other_in_a_circle_are_all_out() {
    let removes = |by, whom| owners().and(|it| it.set(by, 5, whom, None));
    let all = joined(&[&removes(A, B), &removes(B, C), &removes(C, A)]);
    assert_eq!(all.roles(), [(D, Role::Owner)]);
}

#[test]
fn who_demotes_who_removes_it_is_out_and_so_is_the_other() {
    let ours = owners().and(|it| it.set(B, 5, A, WRITER));
    let theirs = owners().and(|it| it.set(A, 6, B, None));
    assert_eq!(joined(&[&ours, &theirs]).roles(), [(C, Role::Owner), (D, Role::Writer)]);
}

#[test]
fn a_removal_by_who_was_removed_itself_counts_for_nothing() {
    let ours = owners().and(|it| it.set(C, 5, B, None));
    let theirs = owners().and(|it| it.set(B, 6, A, None));
    assert_eq!(joined(&[&ours, &theirs]), joined(&[&theirs, &ours, &ours]));
    assert_eq!(joined(&[&ours, &theirs]).role(&A), OWNER);
}

#[test]
fn where_no_owner_is_left_who_may_write_may_do_what_an_owner_may() {
    let mut one = Charter::begin(A, op(1, &A));
    one.set(A, 2, B, OWNER);
    one.set(A, 3, D, WRITER);
    one.set(A, 4, E, READER);
    let ours = one.and(|it| it.set(A, 5, B, None));
    let theirs = one.and(|it| it.set(B, 5, A, None));
    let mut both = joined(&[&ours, &theirs]);
    assert_eq!(both.roles(), [(D, Role::Owner), (E, Role::Reader)]);
    both.set(D, 6, A, OWNER);
    assert_eq!(both.roles(), [(A, Role::Owner), (D, Role::Writer), (E, Role::Reader)]);
    both.set(A, 7, C, WRITER);
    assert_eq!(joined(&[&both, &ours, &theirs]), both);
    assert_eq!(both.role(&C), WRITER);
}

#[test]
fn only_an_owner_changes_members_and_only_by_operations_of_its_own() {
    let known = two();
    let changed = known.and(|it| it.set(B, 5, B, OWNER));
    let by =
        |key: DevicePublicKey| move |at: &OpId| at.device == device_id(&key, 0) && at.lamport > 2;
    assert!(changed.follows(&known, &B, by(B)).is_err(), "a writer");
    assert!(changed.follows(&known, &A, by(A)).is_err(), "another's operation");
    assert!(changed.follows(&known, &NEW, by(B)).is_err(), "a stranger");
    let changed = known.and(|it| it.set(A, 5, B, OWNER));
    assert!(changed.follows(&known, &A, by(A)).is_ok());
    assert!(known.follows(&known, &B, by(B)).is_ok(), "a writer who changes nothing");
}

#[test]
fn a_change_says_no_more_than_is_true_of_who_made_it() {
    let known = owners();
    let is_new = |at: &OpId| at.device == device_id(&B, 0) && at.lamport > 4;
    let says = |alter: &dyn Fn(&mut CharterChange)| {
        let mut changed = known.and(|it| it.set(B, 5, E, OWNER));
        alter(changed.changes.get_mut(&op(5, &B)).unwrap());
        changed.follows(&known, &B, is_new)
    };
    assert_eq!(says(&|_| ()), Ok(()));
    let lies: [&dyn Fn(&mut CharterChange); 5] = [
        &|it| it.by = A,
        &|it| it.right = None,
        &|it| it.right = Some(op(3, &B)),
        &|it| it.seen.learn(&op(9, &C)),
        &|it| it.seen.learn(&op(5, &B)),
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        assert!(says(lie).is_err(), "{index}");
    }
    let mut forgets = known.and(|it| it.set(B, 5, E, OWNER));
    forgets.changes.remove(&op(4, &A));
    assert!(forgets.follows(&known, &B, is_new).is_err());
}

#[test]
fn somebody_stays_who_may_invite() {
    let mut charter = two();
    let mut set = |key, role| charter.set_member(origin(A, 3), key, "", role);
    assert!(matches!(set(A, None), Err(Error::NotPermitted)));
    assert!(matches!(set(A, READER), Err(Error::NotPermitted)));
    assert!(matches!(set(NEW, None), Err(Error::NotFound)));
}

#[test]
fn a_glob_that_is_none_is_refused() {
    let settings = Settings { rules: vec![("a[".into(), Strategy::Fork)], ..Settings::default() };
    assert!(two().set_settings(origin(A, 3), settings).is_err());
}

#[test]
fn a_bucket_that_was_changed_too_often_still_lets_its_members_be_removed() {
    let mut charter = two();
    let mut lamport = 2;
    let mut set = |charter: &mut Charter, role| {
        lamport += 1;
        charter.set_member(origin(A, lamport), B, "", role)
    };
    while set(&mut charter, WRITER).is_ok() {}
    assert_eq!(charter.changes.len(), GRANTS_MAX);
    set(&mut charter, None).unwrap();
    assert!(charter.is_sound());
}

#[test]
fn what_cannot_be_a_charter_is_refused() {
    let good = owners();
    let read = |alter: &dyn Fn(&mut BTreeMap<OpId, CharterChange>)| {
        let mut changes = good.changes.clone();
        alter(&mut changes);
        Charter::try_from((good.founding.clone(), changes))
    };
    assert_eq!(read(&|_| ()).as_ref(), Ok(&good));
    let alter = |change: fn(&mut CharterChange)| {
        move |it: &mut BTreeMap<OpId, CharterChange>| change(it.get_mut(&op(3, &B)).unwrap())
    };
    assert!(read(&alter(|it| it.right = Some(op(3, &B)))).is_err(), "rests on itself");
    assert!(read(&alter(|it| it.right = Some(op(4, &A)))).is_err(), "on what is later");
    assert!(read(&alter(|it| it.by = C)).is_err(), "on what is about another");
    assert!(read(&|it| drop(it.remove(&op(2, &A)))).is_err(), "on what is not there");
    let many = |it: &mut BTreeMap<OpId, CharterChange>| {
        let one = it[&op(2, &A)].clone();
        it.extend((10..=CHANGES_MAX as u64 + 10).map(|lamport| (op(lamport, &A), one.clone())));
    };
    assert!(read(&many).is_err());
}
