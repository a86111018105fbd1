//! What a few devices do apart, and what all of them show afterwards: the lines of the case file.
//!
//! `cargo run -p cairnfs-tests --bin scenarios -- merge/tests/cases/merge-cases.txt` plays all of
//! them through daemons and mounts.

use cairnfs_tests::scenario::{Daemons, InProcess, Pace, Scenario, parse};

/// Those that can be played: all but the three that need names to be compared without case.
fn cases() -> Vec<Scenario> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../merge/tests/cases/merge-cases.txt");
    let all = parse(&std::fs::read_to_string(file).unwrap());
    let (playable, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|scenario| scenario.lacks().is_none());
    assert!(playable.len() >= 94 && others.len() <= 3, "{} are not played", others.len());
    playable
}

/// The numbers of those that fail, which are told.
fn failures(pace: Pace) -> Vec<String> {
    let mut failed = Vec::new();
    for scenario in cases() {
        let played = InProcess::new().and_then(|mut devices| scenario.play(&mut devices, pace));
        if let Err(why) = played {
            eprintln!("{} {}: {why}", scenario.number, scenario.title);
            failed.push(scenario.number);
        }
    }
    failed
}

#[test]
fn every_scenario_holds_for_devices_in_one_process() {
    assert!(failures(Pace::EachAction).is_empty());
}

#[test]
fn every_scenario_but_one_holds_when_what_a_device_does_apart_is_one_version() {
    // 018 asks that bytes which two devices wrote, and one of them then replaced, conflict with
    // nothing. A version has no memory of the bytes that were replaced before anybody saw them, so
    // that they are shown beside the others: more than is asked for, and nothing is lost.
    assert_eq!(failures(Pace::AllAtOnce), ["018"]);
}

#[test]
fn texts_that_two_devices_merged_of_other_edits_are_merged_in_their_turn() {
    let case = concat!(
        r"900 | two merge with a third one each | init: w t a\nb\nc\nd\ne ",
        r"| A: w t A\nb\nc\nd\ne | B: w t a\nb\nC\nd\ne | C: w t a\nb\nc\nd\nE ",
        r"| opt: automerge | sync: C>A C>B * | => t=A\nb\nC\nd\nE | ! -",
    );
    let scenarios = parse(case);
    scenarios[0].play(&mut InProcess::new().unwrap(), Pace::EachAction).unwrap();
}

/// Of each kind of conflict one, and what it is settled by; and three texts of which some devices
/// merge some before they hear of the others.
const SAMPLE: [&str; 14] = [
    "001", "011", "012", "016", "022", "029", "038", "043", "054", "057", "069", "084", "094",
    "123",
];

#[test]
fn a_sample_holds_through_daemons_mounts_and_sockets() {
    let cases = cases();
    for number in SAMPLE {
        let scenario = cases.iter().find(|scenario| scenario.number == number).unwrap();
        if let Err(why) = scenario.play(&mut Daemons::new(), Pace::EachAction) {
            panic!("{number} {}: {why}", scenario.title);
        }
    }
}
