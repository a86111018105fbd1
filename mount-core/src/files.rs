//! The loaded contents: by what shows them, and which of them a save has to look at.
//!
//! # Invariants
//!
//! 1. A content that is unsaved is listed from before its lock is let go until a save has taken it:
//!    a save that looks at nothing but the list misses nothing.
//! 2. A content is known here under one name at the most.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Weak},
};

use crate::{
    file::{Base, File},
    inodes::Shown,
    order::{self, Mutex},
    writer::save::Snapshot,
};

/// Contents that became unsaved and that no save has looked at since. Its lock is the last one
/// taken: a content lists itself while it is locked.
#[derive(Debug, Default)]
pub(crate) struct Unsaved(Mutex<Vec<Weak<File>>, order::Unsaved>);

impl Unsaved {
    pub(crate) fn push(&self, file: Weak<File>) {
        self.0.lock().push(file);
    }

    /// What has been listed; the list is empty then. What is still unsaved after its lock was taken
    /// and let go again is listed anew.
    pub(crate) fn take(&self) -> Vec<Arc<File>> {
        let listed = std::mem::take(&mut *self.0.lock());
        // What is gone has lost its last name and its last handle.
        listed.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Contents that are open or hold what the tree does not. Read like the map that it is.
#[derive(Debug, Default)]
pub(crate) struct Files {
    by_shown: HashMap<Shown, Arc<File>>,
    /// The other way round, by the address of the content.
    shown_of: HashMap<usize, Shown>,
    unsaved: Arc<Unsaved>,
}

impl Deref for Files {
    type Target = HashMap<Shown, Arc<File>>;

    fn deref(&self) -> &Self::Target {
        &self.by_shown
    }
}

impl Files {
    /// A content over `base` for what `shown` shows, which must not be loaded yet.
    pub(crate) fn load(&mut self, shown: Shown, base: Base) -> Arc<File> {
        let file = File::listed_in(base, &self.unsaved);
        self.put(shown, Arc::clone(&file));
        file
    }

    /// Puts a content in that was taken out, under what shows it now; nothing else must be loaded
    /// for that.
    pub(crate) fn put(&mut self, shown: Shown, file: Arc<File>) {
        self.shown_of.insert(address(&file), shown);
        let before = self.by_shown.insert(shown, file);
        debug_assert!(before.is_none(), "one content for a name");
    }

    pub(crate) fn remove(&mut self, shown: &Shown) -> Option<Arc<File>> {
        let file = self.by_shown.remove(shown)?;
        self.shown_of.remove(&address(&file));
        Some(file)
    }

    /// What `from` shows is shown by `to` from now on; whatever `to` showed must be gone.
    pub(crate) fn rename(&mut self, from: &Shown, to: Shown) -> Option<Arc<File>> {
        let file = self.remove(from)?;
        self.put(to, Arc::clone(&file));
        Some(file)
    }

    /// What shows `file`; nothing does if it has lost its name.
    pub(crate) fn shown_as(&self, file: &Arc<File>) -> Option<Shown> {
        self.shown_of.get(&address(file)).copied()
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Shown, &File) -> bool) {
        let gone: Vec<Shown> = self
            .by_shown
            .iter()
            .filter(|(shown, file)| !keep(shown, file))
            .map(|(shown, _)| *shown)
            .collect();
        for shown in gone {
            self.remove(&shown);
        }
    }

    /// Takes what is unsaved of each content that a save has to look at. What has no name need not
    /// survive.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        let taken = self.take_unsaved().into_iter().filter_map(|(shown, file)| {
            let mut content = file.lock();
            content.unlist();
            let shown = shown.filter(|_| content.is_unsaved())?;
            debug_assert!(shown.copy.is_none(), "a copy that is written to is a file of its own");
            let id = shown.node;
            let content = if content.is_journaled() {
                content.snapshot_to_record()
            } else {
                content.snapshot()
            };
            Some(Snapshot { id: Some(id), file: Arc::clone(&file), content, base: None })
        });
        taken.collect()
    }

    /// What a save has to look at, and what shows each; nothing does if it has lost its name.
    fn take_unsaved(&self) -> Vec<(Option<Shown>, Arc<File>)> {
        let named = |file: Arc<File>| (self.shown_as(&file), file);
        self.unsaved.take().into_iter().map(named).collect()
    }
}

fn address(file: &Arc<File>) -> usize {
    Arc::as_ptr(file).addr()
}

#[cfg(test)]
mod tests {
    use cairnfs_merge::{DeviceId, NodeId, OpId};

    use super::*;
    use crate::Time;

    fn shown(n: u32) -> Shown {
        let op = OpId { lamport: 1, device: DeviceId([1; 16]) };
        Shown::node(NodeId::Born { op, n })
    }

    fn listed(files: &Files) -> Vec<Option<Shown>> {
        files.take_unsaved().into_iter().map(|(shown, _)| shown).collect()
    }

    #[test]
    fn what_is_unsaved_is_listed_once_until_a_save_has_taken_it() {
        let mut files = Files::default();
        let (a, b) = (files.load(shown(1), Base::empty()), files.load(shown(2), Base::empty()));
        assert_eq!(listed(&files), []);
        for _ in 0..3 {
            a.lock().write(0, b"a", Time::default()).unwrap();
        }
        assert_eq!(listed(&files), [Some(shown(1))]);
        // A save that looks and takes nothing leaves it listed.
        a.lock().unlist();
        assert_eq!(listed(&files), [Some(shown(1))]);
        let mut content = a.lock();
        content.unlist();
        let snapshot = content.snapshot();
        drop(content);
        assert_eq!(listed(&files), []);
        // The save failed.
        a.lock().not_saved(&snapshot);
        b.lock().write(0, b"b", Time::default()).unwrap();
        assert_eq!(listed(&files), [Some(shown(1)), Some(shown(2))]);
    }

    #[test]
    fn names_come_and_go_and_the_list_knows() {
        let mut files = Files::default();
        let [a, b, c] = [1, 2, 3].map(|n| files.load(shown(n), Base::empty()));
        for file in [&a, &b, &c] {
            file.lock().write(0, b"x", Time::default()).unwrap();
        }
        assert!(files.remove(&shown(2)).is_some());
        files.rename(&shown(1), shown(2));
        files.retain(|name, _| *name != shown(3));
        drop(c);
        assert_eq!(listed(&files), [Some(shown(2)), None]);
        assert_eq!(files.keys().collect::<Vec<_>>(), [&shown(2)]);
        assert_eq!(files.shown_of.len(), 1);
    }
}
