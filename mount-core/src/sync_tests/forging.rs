//! Versions that no honest device would make.

use std::sync::Arc;

use cairnfs_merge::OpId;
use cairnfs_store::{Appender, BlobId, Kind};

use super::{Peer, bucket_id};
use crate::{
    Error, Time,
    manifest::Manifest,
    writer::record::{Head, SaveRecord},
};

/// As if what the version follows from had been given up for space.
pub(super) fn without_past(version: &mut Manifest) {
    version.parents = vec![BlobId([7; 32])];
}

/// That `victim` takes nothing of `hostile`'s, and for the right reason.
#[track_caller]
pub(super) fn is_refused(victim: &Peer, hostile: &Peer, says: &str) {
    let (members, tree) = (victim.mount().members(), victim.tree());
    let pulled = victim.pull(hostile);
    let told = |why: &str| why.contains(says);
    assert!(matches!(&pulled, Err(Error::Rejected { why }) if told(why)), "{pulled:?}");
    assert_eq!((victim.mount().members(), victim.tree()), (members, tree));
}

impl Peer {
    /// Publishes the version that would come next, with what `alter` makes of it.
    pub(super) fn forge(&mut self, alter: impl FnOnce(&mut Appender, &mut Manifest)) {
        self.mount().publish().unwrap();
        let (parent, root, op) = {
            let core = self.mount().shared().core.read();
            (core.head.clone(), core.tree.base().root, core.op)
        };
        let key = Arc::clone(&self.key);
        self.restart_after(|appender| {
            let mut vv = parent.vv.clone();
            vv.learn(&op);
            let mut manifest = Manifest {
                bucket: bucket_id(),
                author: key.public(),
                incarnation: 0,
                parents: vec![parent.manifest.id],
                ops: op.lamport - parent.vv.max_lamport(),
                vv,
                root,
                time: Time::now(),
                charter: parent.charter,
            };
            alter(appender, &mut manifest);
            let next = manifest.vv.max_lamport() + 1;
            let manifest = appender.put(Kind::Manifest, &manifest.sign(&key)).unwrap();
            SaveRecord {
                head: Some(Head {
                    manifest,
                    devices: vec![op.device],
                    incarnation: 0,
                    before: None,
                }),
                op: OpId { lamport: next, ..op },
                nodes: Vec::new(),
                files: Vec::new(),
            }
        });
    }
}
