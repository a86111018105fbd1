//! Resolvers on any number of peers fall quiet, and how soon.
//!
//! **Whoever has heard everybody answers once: two rounds.** All see one state and are asked about
//! the same names. Who answers at a name writes the bytes and the place of the version that it keeps,
//! flagged automatic, and takes the name from every other. So a version that is left undecided after
//! all answers have met was touched by none, and is where it was, with the neighbours it had: whoever
//! would answer there has answered. Answers themselves never meet as a conflict: the latest stands for
//! all, and what one wrote is never shown as removed by another. The first round brings the changes and
//! makes the answers, the second brings the answers.
//!
//! This needs resolvers that do not answer later what they left at first, and that decide: one that
//! moves a version away (`RenameIncoming`) opens a new name. And it needs that no file with several
//! names was removed by some: to take one of the names away writes what is left anew, as people had it,
//! and another may have kept it under that name. Then there is one more round
//! (`strategies_fall_quiet_where_files_have_several_names` in `decisions.rs`).
//!
//! **Whoever asks after each peer has not heard the others yet**, and its answer may meet a change
//! that it did not know: remove a file that was written, say. Where the one who answered leaves that
//! to others, it is theirs to answer, a round later. But whatever is asked about holds a version
//! that only people wrote; an answer takes it away, and makes no other. After the first round
//! nobody hears of more of them, so no peer answers more often than there are such versions, and
//! all fall quiet. The tests check this step by step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeSet;

use cairnfs_merge::{
    Conflict, ConflictKind, ConflictResolver, ContentId, Context, DeviceId, NodeId, OpId,
    PathOpLog, Resolution, Strategy,
};
use support::peer::{Text, content};
use support::random::Rng;

type Log = PathOpLog<Text>;
type Resolver<'a> = &'a dyn ConflictResolver<Text>;

const BASE: DeviceId = DeviceId([b'C'; 16]);
const NO_TEXT: Context<'static, Text> = Context { text: None };

/// When a peer asks its resolver.
#[derive(Clone, Copy, Debug)]
enum Asks {
    /// After merging each of the others.
    AfterEach,
    /// After hearing all of them.
    AfterAll,
}

/// Checks what it is asked: that something in it was written by people.
struct Watched<'a>(Resolver<'a>);

impl ConflictResolver<Text> for Watched<'_> {
    fn resolve(&self, conflict: &Conflict<Text>, cx: &Context<'_, Text>) -> Resolution<Text> {
        let contents =
            conflict.versions.iter().filter_map(|version| version.entry.content.as_ref());
        assert!(
            contents.into_iter().any(|content| !content.auto),
            "answers in conflict: {conflict:?}"
        );
        self.0.resolve(conflict, cx)
    }
}

/// All operations of `logs`, in the log of nobody.
fn union<'a>(logs: impl IntoIterator<Item = &'a Log>) -> Log {
    let mut all = Log::new(DeviceId([0xff; 16]));
    for log in logs {
        all.merge(log).unwrap();
    }
    all
}

/// The versions that are current and that no resolver wrote, the carried ones of removed files too.
fn undecided(log: &Log) -> BTreeSet<(NodeId, Option<OpId>, ContentId)> {
    let nodes = log.tree().state().nodes.iter();
    let versions = nodes.flat_map(|(id, node)| node.contents().into_iter().map(|v| (*id, v)));
    let undecided = versions.filter(|(_, (_, content))| !content.auto);
    undecided.map(|(id, (op, content))| (id, op, content.id)).collect()
}

/// Merges back and forth until nobody has anything new; returns the rounds that took.
fn exchange(logs: &mut [(Log, Resolver<'_>)], asks: Asks) -> usize {
    for round in 0..20 {
        let before: Vec<Log> = logs.iter().map(|(log, _)| log.clone()).collect();
        for (n, (log, resolver)) in logs.iter_mut().enumerate() {
            let others = before.iter().enumerate().filter(|(m, _)| n != *m).map(|(_, log)| log);
            let heard: Vec<Log> = match asks {
                Asks::AfterEach => others.cloned().collect(),
                Asks::AfterAll => vec![union(others)],
            };
            for other in &heard {
                let was = undecided(&union([&*log, other]));
                let done = log.merge_with_resolver(other, &Watched(*resolver), &NO_TEXT).unwrap();
                let is = undecided(log);
                assert!(is.is_subset(&was), "an answer leaves people something new to decide");
                assert!(done.resolved_by.is_none() || is.len() < was.len(), "nothing is decided");
            }
        }
        if logs.iter().zip(&before).all(|((log, _), before)| log.vv() == before.vv()) {
            let first = &logs[0].0;
            assert!(logs.iter().all(|(log, _)| log.entries() == first.entries()));
            return round;
        }
    }
    panic!("the logs never fall quiet");
}

fn log_of(n: u8, base: &Log) -> Log {
    let mut log = Log::new(DeviceId([n + 1; 16]));
    log.merge(base).unwrap();
    log
}

/// Two logs with a common file `t` = 0, then `t` = 1 in the one and `t` = 2 in the other.
fn edit_edit() -> (Log, Log) {
    let mut base = Log::new(BASE);
    base.write(b"t", content("0")).unwrap();
    let (mut a, mut b) = (log_of(0, &base), log_of(1, &base));
    a.write(b"t", content("1")).unwrap();
    b.write(b"t", content("2")).unwrap();
    (a, b)
}

fn texts(log: &Log) -> Vec<String> {
    log.entries().into_values().filter_map(|entry| Some(entry.content?.body)).collect()
}

#[test]
fn case_206_base_wins_on_both_sides_falls_quiet() {
    let (a, b) = edit_edit();
    let mut logs: [(Log, Resolver<'_>); 2] = [(a, &Strategy::BaseWins), (b, &Strategy::BaseWins)];
    assert!(exchange(&mut logs, Asks::AfterEach) <= 2);
    assert_eq!(texts(&logs[0].0).len(), 1);
}

#[test]
fn case_207_base_wins_against_last_write_wins_falls_quiet() {
    let (a, b) = edit_edit();
    let mut logs: [(Log, Resolver<'_>); 2] =
        [(a, &Strategy::BaseWins), (b, &Strategy::LastWriteWins)];
    assert!(exchange(&mut logs, Asks::AfterEach) <= 2);
}

#[test]
fn case_216_a_conflict_that_came_whole_is_answered_at_once() {
    let (mut a, b) = edit_edit();
    a.merge(&b).unwrap();
    let mut third = Log::new(DeviceId([9; 16]));
    let done = third.merge_with_resolver(&a, &Strategy::BaseWins, &NO_TEXT).unwrap();
    assert!(done.resolved_by.is_some() && done.unresolved.is_empty());
    assert_eq!(texts(&third), ["2"]);
    let again = third.merge_with_resolver(&a, &Strategy::BaseWins, &NO_TEXT).unwrap();
    assert_eq!(again.resolved_by, None);
}

#[test]
fn case_216_any_mix_of_strategies_falls_quiet() {
    let strategies = [Strategy::LastWriteWins, Strategy::BaseWins, Strategy::ConflictFile];
    for mix in 0..81_usize {
        let mut base = Log::new(BASE);
        base.write(b"t", content("0")).unwrap();
        let mut logs: Vec<(Log, Resolver<'_>)> = Vec::new();
        for n in 0..4_u8 {
            let mut log = log_of(n, &base);
            log.write(b"t", content(&n.to_string())).unwrap();
            log.write(b"u", content(&(n % 3).to_string())).unwrap();
            let choice = mix / 3_usize.pow(u32::from(n)) % 3;
            logs.push((log, &strategies[choice]));
        }
        assert!(exchange(&mut logs, Asks::AfterEach) <= 2, "mix {mix}");
    }
}

const BUILT_IN: [Resolver<'static>; 4] = [
    &Strategy::LastWriteWins,
    &Strategy::BaseWins,
    &Strategy::ConflictFile,
    &Strategy::ForkOnConflict,
];

/// Answers conflicts of several versions with bytes of its own, and leaves removals alone.
struct Fresh(&'static str);

impl ConflictResolver<Text> for Fresh {
    fn resolve(&self, conflict: &Conflict<Text>, _: &Context<'_, Text>) -> Resolution<Text> {
        match conflict.kind {
            ConflictKind::DeleteModify => Resolution::KeepBoth,
            _ => Resolution::Merged(content(self.0)),
        }
    }
}

/// Gives the same answer to everything.
struct Always(Resolution<Text>);

impl ConflictResolver<Text> for Always {
    fn resolve(&self, _: &Conflict<Text>, _: &Context<'_, Text>) -> Resolution<Text> {
        self.0.clone()
    }
}

const ANY: [Resolver<'static>; 8] = [
    BUILT_IN[0],
    BUILT_IN[1],
    BUILT_IN[2],
    BUILT_IN[3],
    &Fresh("one"),
    &Fresh("other"),
    &Always(Resolution::UseIncoming),
    &Always(Resolution::SkipBoth),
];

/// One random change of a log; what is refused is left out.
fn change_at_random(log: &mut Log, rng: &mut Rng, text: &str) {
    const PATHS: [&[u8]; 9] = [b"t", b"u", b"d/t", b"d", b"e", b"d/u", b"e/t", b"d/e", b"d/e/t"];
    // Half of the changes meet at four names.
    let paths = if rng.chance(50) { &PATHS[..4] } else { &PATHS };
    let (path, other) = (*rng.pick(paths), *rng.pick(paths));
    let _refused = match rng.below(7) {
        0..3 => log.write(path, content(text)),
        3 => log.remove(path),
        4 => log.rename(path, other),
        5 => log.settle(path, content(text)),
        _ => log.mkdir(path),
    };
}

/// The most rounds that any of the histories takes. `CAIRNFS_TEST_HISTORIES` makes them more.
fn most_rounds(histories: u64, resolvers: &[Resolver<'static>], asks: Asks) -> usize {
    let more = std::env::var("CAIRNFS_TEST_HISTORIES").ok();
    let histories = more.map_or(histories, |more| more.parse().unwrap());
    let rounds = (0..histories).map(|number| {
        let mut rng = Rng::new(216, number);
        let mut base = Log::new(BASE);
        for n in 0..rng.below(6) {
            change_at_random(&mut base, &mut rng, &n.to_string());
        }
        let mut logs: Vec<(Log, Resolver<'_>)> = Vec::new();
        for n in 0..*rng.pick(&[2, 3, 4, 4, 5, 6]) {
            let mut log = log_of(n, &base);
            for step in 0..=rng.below(5) {
                change_at_random(&mut log, &mut rng, &format!("{n}.{step}"));
            }
            logs.push((log, *rng.pick(resolvers)));
        }
        exchange(&mut logs, asks)
    });
    rounds.max().unwrap()
}

#[test]
fn case_216_the_strategies_fall_quiet_in_two_rounds() {
    assert_eq!(most_rounds(1_000, &BUILT_IN, Asks::AfterEach), 2);
    assert_eq!(most_rounds(1_000, &BUILT_IN, Asks::AfterAll), 2);
}

#[test]
fn case_216_any_resolvers_that_have_heard_everybody_fall_quiet_in_two_rounds() {
    assert_eq!(most_rounds(1_500, &ANY, Asks::AfterAll), 2);
}

#[test]
fn case_216_any_resolvers_fall_quiet() {
    assert!(most_rounds(1_500, &ANY, Asks::AfterEach) <= 3);
}
