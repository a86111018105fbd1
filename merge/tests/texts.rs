//! A text that several peers edit apart is merged, whoever merges what first, and no edit is lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;

use cairnfs_merge::text::merge_lines;
use cairnfs_merge::{Content, ContentId, Context, DeviceId, MergeContent, PathOpLog, Strategy};
use support::peer::{Text, content, hash};
use support::random::Rng;

/// All texts that there ever were, those that were merged too.
#[derive(Default)]
struct Texts(RefCell<BTreeMap<ContentId, Text>>);

impl Texts {
    fn content(&self, text: &str) -> Content<Text> {
        self.0.borrow_mut().insert(hash(text), text.to_owned());
        content(text)
    }
}

impl MergeContent<Text> for Texts {
    fn merge(&self, base: ContentId, sides: &[&Content<Text>]) -> Option<Content<Text>> {
        let base = self.0.borrow().get(&base)?.clone();
        let sides: Vec<&[u8]> = sides.iter().map(|side| side.body.as_bytes()).collect();
        let merged = String::from_utf8(merge_lines(base.as_bytes(), &sides)?).ok()?;
        Some(self.content(&merged))
    }
}

fn shown(log: &PathOpLog<Text>) -> Text {
    log.entry(b"t").unwrap().unwrap().content.unwrap().body
}

/// Every second line is one peer's, who changes it once, or `again`; merges in between as they come.
fn history(number: u64, again: bool) {
    let mut rng = Rng::new(7, number);
    let texts = Texts::default();
    let context = Context { text: Some(&texts) };
    let peers = 2 + rng.below(4);
    let mut lines: Vec<String> = (0..=2 * peers).map(|n| format!("line {n}")).collect();
    let mut base = PathOpLog::new(DeviceId([1; 16]));
    base.write(b"t", texts.content(&lines.join("\n"))).unwrap();
    let mut logs: Vec<PathOpLog<Text>> = (0..peers)
        .map(|n| {
            let mut log = PathOpLog::new(DeviceId([u8::try_from(n).unwrap() + 2; 16]));
            log.merge(&base).unwrap();
            log
        })
        .collect();
    let edit = |log: &mut PathOpLog<Text>, line: usize, text: &str| {
        let mut now: Vec<String> = shown(log).split('\n').map(str::to_owned).collect();
        now[line] = text.to_owned();
        log.write(b"t", texts.content(&now.join("\n"))).unwrap();
    };
    for (n, log) in logs.iter_mut().enumerate() {
        lines[2 * n + 1] = format!("edit of {n}");
        edit(log, 2 * n + 1, &lines[2 * n + 1]);
    }
    for _ in 0..rng.below(12) {
        let (to, from) = (rng.below(peers), rng.below(peers));
        if to == from && again {
            lines[2 * to + 1] = format!("edit {} of {to}", rng.below(100));
            edit(&mut logs[to], 2 * to + 1, &lines[2 * to + 1]);
        } else if to != from {
            let other = logs[from].clone();
            logs[to].merge_with_resolver(&other, &Strategy::MergeText, &context).unwrap();
        }
    }
    for round in 0.. {
        assert!(round < 6, "history {number} does not fall quiet");
        let before = logs.clone();
        for (to, log) in logs.iter_mut().enumerate() {
            for (_, other) in before.iter().enumerate().filter(|(from, _)| *from != to) {
                log.merge_with_resolver(other, &Strategy::MergeText, &context).unwrap();
            }
        }
        if logs.iter().zip(&before).all(|(now, then)| now.vv() == then.vv()) {
            break;
        }
    }
    let all = logs[0].entries();
    for log in &logs {
        assert_eq!(log.entries(), all, "history {number}");
        if !again {
            assert_eq!((all.len(), shown(log)), (1, lines.join("\n")), "history {number}");
        }
    }
    for line in &lines {
        let has = |text: &Text| text.split('\n').any(|it| it == line);
        let mut texts = all.values().filter_map(|entry| entry.content.as_ref());
        assert!(texts.any(|content| has(&content.body)), "history {number}: {line} in {all:?}");
    }
}

#[test]
fn edits_of_different_lines_become_one_text() {
    (0..2_000).for_each(|number| history(number, false));
}

#[test]
fn who_edits_a_line_again_may_see_a_conflict_and_loses_nothing() {
    (0..2_000).for_each(|number| history(number, true));
}
