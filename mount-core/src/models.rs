//! What threads may do on the save path, in every interleaving that loom knows: `make loom`.
//!
//! The code is the mount's own: [`Clock`], the list of unsaved contents and the contents, with
//! loom's atomics and mutexes. The writer's loop, the channel to it and the disk are stood for here.
//! Nothing else of the crate runs when it is built for loom.
//!
//! loom takes no access for sequentially consistent, only fences; a compare-and-exchange that fails
//! sees the newest value there, and `Arc`s are the real ones, at which no thread is interrupted.

#![allow(clippy::unwrap_used, reason = "tests, which the lint does not see behind two conditions")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cairnfs_merge::{DeviceId, NodeId, OpId};
use loom::{model::Builder, sync::mpsc, thread};

use crate::{
    Time,
    clock::{Clock, NEVER, Noted},
    file::{Base, File},
    files::Files,
    inodes::Shown,
    writer::save::Snapshot,
};

/// When everything changes, and for how long it may stay unsaved.
const NOW: u64 = 10;
const MAX_AGE: u64 = 5;
/// How often, of three threads, one may be interrupted elsewhere than where it waits. All
/// interleavings are four millions: they passed, in four minutes (2026-11-25).
const THREE_THREADS: Option<usize> = Some(5);

/// A bucket with contents, and what saves have made durable of them: a bit for each change.
struct Bucket {
    clock: Clock,
    contents: Vec<Arc<File>>,
    files: Files,
}

impl Bucket {
    fn new(contents: u32) -> Arc<Self> {
        let mut files = Files::default();
        let op = OpId { lamport: 1, device: DeviceId([1; 16]) };
        let mut load = |n| files.load(Shown::node(NodeId::Born { op, n }), Base::empty());
        let contents = (0..contents).map(&mut load).collect();
        Arc::new(Self { clock: Clock::new(), contents, files })
    }

    /// Change `n`, which makes content `content` at least `n` bytes long; `true` if the writer must
    /// be woken.
    fn change(&self, content: usize, n: u64) -> bool {
        self.contents[content].lock().write(n - 1, b"x", Time::default()).unwrap();
        self.clock.changed(NOW, MAX_AGE) == Noted::First { wake: true }
    }

    /// Saves; fails if not `durable`. Returns how many bytes became durable.
    fn save(&self, durable: bool) -> u64 {
        let batch = self.clock.save_begins(|| self.files.snapshots());
        let mut saved = 0;
        for Snapshot { file, content, .. } in &batch {
            if durable {
                let growth = file.lock().saved(content, None);
                saved += growth.unsaved.unsigned_abs();
            } else {
                file.lock().not_saved(content);
            }
        }
        if !durable {
            self.clock.note(NOW);
        }
        saved
    }
}

/// Runs `model` in every interleaving, or in those in which a thread is interrupted at most so often
/// elsewhere than where it waits. Says how many there were.
#[allow(clippy::print_stderr, reason = "a run that grows is to be noticed")]
fn every_interleaving(interruptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let seen = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&seen);
    let mut builder = Builder::new();
    builder.preemption_bound = interruptions;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let seen = seen.load(Ordering::Relaxed);
    eprintln!("{seen} interleavings: {}", std::thread::current().name().unwrap_or_default());
    assert!(seen > 20, "threads that do not meet");
}

/// Callers that make a change each, in the content that `callers` says for each, and a writer whose
/// first sleep is until `until`, and whose others have no end; the first of its saves fail, so many.
/// It ends when every change is durable: if one is missed, it waits for ever, which loom finds.
fn every_change_becomes_durable(callers: &'static [usize], until: u64, mut failures: u32) {
    let bucket = Bucket::new(2);
    let (wake, inbox) = mpsc::channel();
    let callers: Vec<_> = callers
        .iter()
        .zip(1..)
        .map(|(&content, n)| {
            let (bucket, wake) = (Arc::clone(&bucket), wake.clone());
            thread::spawn(move || {
                if bucket.change(content, n) {
                    wake.send(()).unwrap();
                }
            })
        })
        .collect();
    let mut until = until;
    let mut unsaved = callers.len() as u64;
    while unsaved > 0 {
        let dirty = bucket.clock.writer_sleeps(until).is_some();
        // What is dirty ends a sleep in time; so does the clock, if that is in time. Too late is never.
        if !dirty && until > NOW + MAX_AGE {
            inbox.recv().unwrap();
        }
        until = NEVER;
        if bucket.clock.writer_wakes().is_some() {
            let durable = failures == 0;
            failures = failures.saturating_sub(1);
            unsaved -= bucket.save(durable);
        }
    }
    for caller in callers {
        caller.join().unwrap();
    }
}

#[test]
fn a_change_wakes_the_writer_or_is_seen_by_it() {
    every_interleaving(None, || every_change_becomes_durable(&[0], NEVER, 0));
}

#[test]
fn a_change_is_seen_by_a_writer_that_wakes_up_by_itself_in_time() {
    every_interleaving(None, || every_change_becomes_durable(&[0], NOW + MAX_AGE, 0));
}

#[test]
fn a_change_wakes_a_writer_that_would_wake_up_too_late() {
    every_interleaving(None, || every_change_becomes_durable(&[0], NOW + MAX_AGE + 1, 0));
}

#[test]
fn two_changes_of_one_content_become_durable() {
    every_interleaving(THREE_THREADS, || every_change_becomes_durable(&[0, 0], NEVER, 0));
}

#[test]
fn changes_of_two_contents_become_durable() {
    every_interleaving(THREE_THREADS, || every_change_becomes_durable(&[0, 1], NEVER, 0));
}

#[test]
fn a_change_becomes_durable_after_a_save_that_failed() {
    every_interleaving(None, || every_change_becomes_durable(&[0], NEVER, 1));
}

/// A save, durable or not, while two callers make a change each.
fn what_is_unsaved_is_listed(callers: [usize; 2], durable: bool) {
    let bucket = Bucket::new(2);
    let threads = callers.iter().zip(1..).map(|(&content, n)| {
        let bucket = Arc::clone(&bucket);
        thread::spawn(move || bucket.change(content, n))
    });
    let threads: Vec<_> = threads.collect();
    let saved = bucket.save(durable);
    for thread in threads {
        thread.join().unwrap();
    }
    let unsaved = || bucket.contents.iter().filter(|file| file.lock().is_unsaved()).count();
    let unsaved_before = unsaved();
    let batch = bucket.files.snapshots();
    assert_eq!(batch.len(), unsaved_before, "listed is what is unsaved, once");
    assert_eq!(unsaved(), 0);
    let listed: u64 = batch.iter().map(|snapshot| snapshot.content.unsaved_bytes()).sum();
    assert_eq!(saved + listed, callers.len() as u64, "every change is in one of the two");
    assert!(batch.is_empty() || bucket.clock.dirty_since().is_some(), "and is noted");
}

#[test]
fn what_is_unsaved_is_listed_once_and_noted() {
    every_interleaving(None, || what_is_unsaved_is_listed([0, 0], true));
    every_interleaving(None, || what_is_unsaved_is_listed([0, 1], true));
}

#[test]
fn what_a_failed_save_took_is_listed_once_and_noted() {
    every_interleaving(None, || what_is_unsaved_is_listed([0, 0], false));
    every_interleaving(None, || what_is_unsaved_is_listed([0, 1], false));
}
