//! Versions that no honest device would make.

use std::sync::Arc;

use cairnfs_merge::OpId;
use cairnfs_store::{Appender, Kind};

use super::{Peer, bucket_id};
use crate::{
    Time,
    manifest::Manifest,
    writer::record::{Head, SaveRecord},
};

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
            let manifest = appender.put(Kind::Manifest, &manifest.seal(&key)).unwrap();
            SaveRecord {
                head: Some(Head {
                    manifest,
                    devices: vec![op.device],
                    incarnation: 0,
                    before: None,
                }),
                op: OpId { lamport: op.lamport + 1, ..op },
                nodes: Vec::new(),
                files: Vec::new(),
            }
        });
    }
}
