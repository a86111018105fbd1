//! Two devices that share a bucket.

use std::time::Duration;

use rustix::process::Signal;

use crate::{Home, Peer, Tree, eventually, peer::BUCKET, process};

/// How long two devices may take to agree; they need a second or two.
const AGREE: Duration = Duration::from_secs(180);

/// Two homes, one bucket, mounted on both.
#[derive(Debug)]
pub struct Pair {
    /// Who made the bucket.
    pub one: Peer,
    /// Who was invited.
    pub other: Peer,
}

/// How devices are kept from hearing of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Each daemon in turn stands still; both buckets stay mounted.
    StandStill,
    /// Each daemon in turn has ended.
    Ended,
}

impl Pair {
    /// A new bucket on two new homes, mounted on both under the policy `flush`.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        Self::with(&[], &[])
    }

    /// A new bucket on two new homes, mounted with these options.
    #[must_use]
    #[track_caller]
    pub fn with(one: &[&str], other: &[&str]) -> Self {
        let one = Peer::on(Home::new(), one);
        let other = Peer::joining(Home::new(), &one, other);
        let pair = Self { one, other };
        pair.meet();
        pair
    }

    /// Both devices, the one that made the bucket first.
    #[must_use]
    pub const fn both(&self) -> [&Peer; 2] {
        [&self.one, &self.other]
    }

    /// Waits until both have what the other has published, and show the same.
    #[track_caller]
    pub fn meet(&self) {
        for peer in self.both() {
            // One of them may know where to reach the other and not be there yet.
            eventually("the devices reach each other", AGREE, || {
                peer.home().cairnfs(&["sync", BUCKET, "--timeout", "20s"]).code == Some(0)
            });
        }
        self.agree();
    }

    /// Waits until both show the same.
    #[track_caller]
    pub fn agree(&self) -> Tree {
        let mut agreed = None;
        eventually("both devices show the same", AGREE, || {
            // What a merge takes away while it is being read will be found gone.
            let [one, other] = self.both().map(|peer| Tree::try_of(&peer.dir()).ok());
            agreed = one.filter(|one| Some(one) == other.as_ref());
            agreed.is_some()
        });
        agreed.expect("they agreed")
    }

    /// Does something on each device of which the other one hears only afterwards.
    #[track_caller]
    pub fn apart(&self, cut: Cut, one: impl FnOnce(&Peer), other: impl FnOnce(&Peer)) {
        match cut {
            Cut::StandStill => {
                process::stand_still(self.other.pid());
                one(&self.one);
                process::stand_still(self.one.pid());
                process::signal(self.other.pid(), Signal::CONT);
                other(&self.other);
                process::signal(self.one.pid(), Signal::CONT);
            }
            Cut::Ended => {
                self.other.stop();
                one(&self.one);
                self.one.stop();
                self.other.mount();
                other(&self.other);
                self.one.mount();
            }
        }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}
