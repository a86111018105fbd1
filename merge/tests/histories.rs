//! The laws hold in random histories; `--example histories -- COUNT SEED` runs more of them.

mod support;

use support::random::{Shape, run};

/// Runs a slice of the histories of one seed; a panic names the one that broke a law.
fn run_slice(seed: u64, from: u64, count: u64, shape: Shape) -> usize {
    (from..from + count)
        .map(|number| match std::panic::catch_unwind(|| run(seed, number, shape)) {
            Ok(conflicts) => conflicts,
            Err(_) => panic!("history {number} of seed {seed} breaks a law"),
        })
        .sum()
}

const APART: Shape = Shape { in_step: false, slow_saves: false };

#[test]
fn the_laws_hold_in_fifty_thousand_histories() {
    assert!(run_slice(1, 0, 50_000, APART) > 0);
}

#[test]
fn the_laws_hold_in_fifty_thousand_others() {
    assert!(run_slice(2, 0, 50_000, APART) > 0);
}

#[test]
fn the_laws_hold_where_versions_see_the_temporary_files_of_saves() {
    assert!(run_slice(4, 0, 10_000, Shape { slow_saves: true, ..APART }) > 0);
    assert_eq!(run_slice(5, 0, 500, Shape { in_step: true, slow_saves: true }), 0);
}

#[test]
fn peers_in_step_never_see_a_conflict() {
    assert_eq!(run_slice(3, 0, 1_500, Shape { in_step: true, slow_saves: false }), 0);
}
