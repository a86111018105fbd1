//! The tests are tested: each of eight broken rules is caught by a law in random histories.

mod support;

use cairnfs_merge::mutants::{Mutant, set};
use support::random::{Shape, run};

/// Runs histories under a mutant until a law breaks; returns how many it took.
fn killed_after(mutant: Mutant) -> Option<u64> {
    std::panic::set_hook(Box::new(|_| ()));
    set(Some(mutant));
    let killed = (0..20_000).find(|number| {
        std::panic::catch_unwind(|| run(11, *number, Shape { in_step: number % 4 == 0 })).is_err()
    });
    set(None);
    drop(std::panic::take_hook());
    killed
}

#[test]
fn every_mutant_is_killed() {
    let survivors: Vec<_> = Mutant::ALL
        .into_iter()
        .map(|mutant| (mutant, killed_after(mutant)))
        .filter(|(_, killed)| killed.is_none())
        .collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}
