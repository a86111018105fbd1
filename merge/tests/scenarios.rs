//! Every scenario of the case file ends as the file says, on all peers.

mod support;

#[test]
fn every_scenario_ends_as_the_file_says() {
    let tally = support::scenario::run_all(include_str!("cases/merge-cases.txt"));
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    assert!(tally.run >= 97, "only {} scenarios were run", tally.run);
}

#[test]
fn a_line_that_is_not_understood_fails() {
    let lines = [
        "002 | another tree | A: w f 1 | => f=2 | ! -",
        "003 | no such action | A: frob f 1 | => f=1 | ! -",
        "004 | no such field | A: w f 1 | sink: A>B | => f=1 | ! -",
        "005 | no outcome | A: w f 1",
        "006 | more digits than there are | A: w f 1 | => f=1 f@[1:99]=1 | ! -",
        "007 | a field twice | A: w f 1 | A: w f 1 | => f=1 | ! -",
        "008 | no such peer | A: w f 1 | sync: A>Z | => f=1 | ! -",
    ];
    for line in lines {
        let tally = support::scenario::run_all(line);
        assert_eq!((tally.run, tally.failures.len()), (1, 1), "{line}");
    }
    let fine = "001 | as it should be | A: w f 1 | => f=1 | ! -";
    assert!(support::scenario::run_all(fine).failures.is_empty());
}
