//! The tests are tested: each of eight broken rules is caught by a law in random histories, by a
//! scenario, or by a history made for it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use cairnfs_merge::mutants::{Mutant, set};
use support::peer::Peer;
use support::random::{Shape, run};

const HISTORIES: u64 = 300;

/// Two peers detach a copy of one version from under two names of its file: two files.
fn copies_of_one_version_under_two_names_are_two_files() {
    let mut a = Peer::new('A');
    a.write("f", "0").unwrap();
    let (mut b, mut c) = (Peer::new('B'), Peer::new('C'));
    b.pull(&a);
    c.pull(&a);
    a.write("f", "1").unwrap();
    b.write("f", "2").unwrap();
    a.pull(&b);
    b.pull(&a);
    // The copy of 1 gets the stem f at A, and the stem h at B.
    let copy = a.copies("f").unwrap().remove(0);
    a.write(&copy, "mine").unwrap();
    c.mv("f", "h").unwrap();
    b.pull(&c);
    let copy = b.copies("h").unwrap().remove(0);
    b.write(&copy, "yours").unwrap();
    a.pull(&b);
    b.pull(&a);
    let texts: Vec<_> = a.show().into_values().flatten().collect();
    assert!(texts.iter().any(|text| text == "mine") && texts.iter().any(|text| text == "yours"));
    assert!(a.kinds().is_empty(), "{:?} of {:?}", a.kinds(), a.show());
}

/// Whether anything fails while `mutant` is on.
fn is_killed(mutant: Option<Mutant>) -> bool {
    set(mutant);
    let histories = || {
        (0..HISTORIES).for_each(|number| {
            let _kinds = run(11, number, Shape { in_step: number % 4 == 0, slow_saves: false });
        });
    };
    let scenarios = || {
        let tally = support::scenario::run_all(include_str!("cases/merge-cases.txt"));
        assert!(tally.failures.is_empty());
    };
    let killed = [
        std::panic::catch_unwind(histories),
        std::panic::catch_unwind(scenarios),
        std::panic::catch_unwind(copies_of_one_version_under_two_names_are_two_files),
    ];
    set(None);
    killed.iter().any(Result::is_err)
}

#[test]
fn every_mutant_is_killed_and_the_rules_are_not() {
    assert!(!is_killed(None), "the unbroken rules fail");
    std::panic::set_hook(Box::new(|_| ()));
    let survivors: Vec<_> =
        Mutant::ALL.into_iter().filter(|mutant| !is_killed(Some(*mutant))).collect();
    drop(std::panic::take_hook());
    assert!(survivors.is_empty(), "{survivors:?}");
}
