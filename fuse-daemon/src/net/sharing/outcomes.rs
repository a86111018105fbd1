//! What came of looking at what a peer has, and when it is looked at again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cairnfs_mount_core::{Error, VersionId};

use super::{
    super::{desk::Side, message::Unseen, said::Standing, tls::PeerKey},
    Offered,
};

impl Offered {
    /// What came of looking at a peer's version; for a refused one, in how long at first it is asked for
    /// again, if it is.
    pub(in crate::net) fn settle(
        &self,
        side: &Side,
        version: VersionId,
        standing: Standing,
        again: Option<Duration>,
    ) {
        let mut desk = self.desk.lock();
        desk.troubles.remove(&side.session.key);
        if standing == Standing::Rejected {
            desk.reject(side.session.key, version);
        }
        if let Some(it) = desk.side(&side.session)
            && it.said.head == Some(version)
        {
            it.said.standing = standing;
            it.again = None;
            match (standing, again) {
                (_, Some(first)) => it.refused(first),
                (Standing::Covered | Standing::Apart, None) => it.refusals = 0,
                _ => (),
            }
        }
    }

    /// Something was learnt by which what was rejected may be believed: it is looked at again, at once
    /// the first time. Later ones have it looked at more and more rarely, as others learn all the time.
    pub(in crate::net) fn learnt(&self, first: Duration) {
        let mut desk = self.desk.lock();
        desk.rejected.clear();
        let sides = desk.sides.values_mut();
        for side in sides.filter(|side| side.said.standing == Standing::Rejected) {
            side.said.standing = Standing::Refused;
            side.refused(if side.refusals == 0 { Duration::ZERO } else { first });
        }
        drop(desk);
        self.bell.notify_all();
    }

    /// Something failed here with what a peer has, and is tried again then.
    pub(in crate::net) fn set_trouble(&self, peer: &PeerKey, trouble: Error, again: Instant) {
        self.desk.lock().troubles.insert(*peer, (trouble, again));
    }

    /// Tries at once what failed here, could not be had or was not believed, and forgets what failed
    /// elsewhere and is tried again there.
    pub(in crate::net) fn retry_now(&self) {
        let mut desk = self.desk.lock();
        desk.troubles.clear();
        desk.rejected.clear();
        for side in desk.sides.values_mut() {
            if matches!(side.said.standing, Standing::Refused | Standing::Rejected) {
                side.said.standing = Standing::Open;
            }
            match side.said.unseen {
                Some((_, Unseen::NotGiven)) => {
                    // It may be all here by now: announced again, it is looked at again.
                    (side.said.unseen, side.told) = (None, None);
                }
                Some((_, why)) if why.passes() => side.said.unseen = None,
                _ => (),
            }
        }
        drop(desk);
        self.bell.notify_all();
    }

    /// How loud it is logged that something of a peer was rejected.
    pub(in crate::net) fn level_of_rejected(&self, peer: &PeerKey) -> log::Level {
        match self.desk.lock().logs_rejected(*peer, Instant::now()) {
            true => log::Level::Warn,
            false => log::Level::Debug,
        }
    }

    /// What failed here, by the peer whose version it was.
    pub(in crate::net) fn troubles(&self) -> BTreeMap<PeerKey, Error> {
        let desk = self.desk.lock();
        desk.troubles.iter().map(|(peer, (trouble, _))| (*peer, trouble.clone())).collect()
    }
}
