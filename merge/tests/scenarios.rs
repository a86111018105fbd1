//! Every scenario of the case file ends as the file says, on all peers.

mod support;

#[test]
fn every_scenario_ends_as_the_file_says() {
    let tally = support::scenario::run_all(include_str!("cases/merge-cases.txt"));
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    assert!(tally.run >= 97, "only {} scenarios were run", tally.run);
}
