//! What a device says of what it has of a bucket, and what is known from that: what `sync` waits for,
//! and what `status` and `peers` show. Of one that has gone it is kept until the bucket is closed.

use cairnfs_mount_core::VersionId;

use super::message::Unseen;

/// What a peer has said on one connection, and what is here of what it has.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// The version it stands on.
    pub(super) head: Option<VersionId>,
    /// How that compares with what is here.
    pub(super) standing: Standing,
    /// The newest version of ours of which it has everything.
    pub(super) seen: Option<VersionId>,
    /// A version of ours that it does not take, and why.
    pub(super) unseen: Option<(VersionId, Unseen)>,
}

/// A peer's version, seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Standing {
    /// To be looked at, or being fetched.
    #[default]
    Open,
    /// Everything in it is here.
    Covered,
    /// It cannot be merged here, only elsewhere: what comes of that is waited for.
    Apart,
    /// It is not believed by what is known here.
    Rejected,
    /// It cannot be had: the peer does not give it, and is asked again, or nothing can be stored here.
    Refused,
}

impl Said {
    /// Whether it has said anything yet.
    pub(super) fn is_something(&self) -> bool {
        self.head.is_some() || self.seen.is_some() || self.unseen.is_some()
    }

    /// Whether the peer has everything in `head`, the version that this device stands on; `None`
    /// if it has not said.
    pub(super) fn all_there(&self, head: Option<VersionId>) -> Option<bool> {
        if head.is_none() || self.seen == head || self.head == head {
            return Some(true);
        }
        let has_less = self.seen.is_some() || self.refuses(head).is_some();
        has_less.then_some(false)
    }

    /// Whether everything that the peer published is here; `None` if it has not said what that is.
    pub(super) fn all_here(&self, head: Option<VersionId>) -> Option<bool> {
        self.head.map(|theirs| self.standing == Standing::Covered || Some(theirs) == head)
    }

    /// Whether each has what the other one published.
    pub(super) fn has_met(&self, head: Option<VersionId>) -> bool {
        self.all_there(head) == Some(true) && self.all_here(head) == Some(true)
    }

    /// The newest version that is here and of which the peer has everything, as far as it has said.
    pub(super) fn has_up_to(&self) -> Option<VersionId> {
        self.seen.or_else(|| self.head.filter(|_| self.standing == Standing::Covered))
    }

    /// Why the peer does not take the version that this device stands on, if it has said so.
    pub(super) fn refuses(&self, head: Option<VersionId>) -> Option<Unseen> {
        let (version, why) = self.unseen?;
        (Some(version) == head).then_some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: VersionId = [1; 32];
    const OURS: VersionId = [2; 32];
    const THEIRS: VersionId = [3; 32];

    /// What is known of them while this device stands on `OURS`.
    fn known(said: &Said) -> (Option<bool>, Option<bool>) {
        (said.all_there(Some(OURS)), said.all_here(Some(OURS)))
    }

    #[test]
    fn nothing_is_known_of_who_has_said_nothing() {
        let said = Said::default();
        assert!(!said.is_something());
        assert_eq!(known(&said), (None, None));
        assert!(!said.has_met(Some(OURS)) && !said.has_met(None));
    }

    #[test]
    fn who_stands_on_our_version_has_met() {
        let said = Said { head: Some(OURS), ..Said::default() };
        assert_eq!(known(&said), (Some(true), Some(true)));
        assert!(said.has_met(Some(OURS)));
        assert!(!said.has_met(Some(THEIRS)), "something was published here since");
    }

    #[test]
    fn a_version_of_its_own_says_nothing_of_whether_it_has_ours() {
        for (standing, here) in [
            (Standing::Open, false),
            (Standing::Covered, true),
            (Standing::Apart, false),
            (Standing::Rejected, false),
            (Standing::Refused, false),
        ] {
            let said = Said { head: Some(THEIRS), standing, ..Said::default() };
            assert_eq!(known(&said), (None, Some(here)), "{standing:?}");
            let said = Said { seen: Some(OURS), ..said };
            assert_eq!(known(&said), (Some(true), Some(here)), "{standing:?}");
            assert_eq!(said.has_met(Some(OURS)), here, "{standing:?}");
        }
    }

    #[test]
    fn who_had_what_was_here_before_lacks_what_is_new() {
        let covered = Said { head: Some(OLD), standing: Standing::Covered, ..Said::default() };
        let said = Said { seen: Some(OLD), ..covered.clone() };
        assert_eq!(known(&said), (Some(false), Some(true)));
        let refusing =
            |version| Said { unseen: Some((version, Unseen::NoSpace)), ..covered.clone() };
        assert_eq!(known(&refusing(OURS)), (Some(false), Some(true)));
        assert_eq!(known(&refusing(OLD)), (None, Some(true)), "of the newer one it said nothing");
    }

    #[test]
    fn who_has_not_said_which_of_ours_it_has_has_its_own_that_is_here() {
        let said = Said { head: Some(OLD), ..Said::default() };
        assert_eq!(said.has_up_to(), None, "nobody has looked whether that is here");
        let said = Said { standing: Standing::Covered, ..said };
        assert_eq!(said.has_up_to(), Some(OLD));
        assert_eq!(Said { seen: Some(OURS), ..said }.has_up_to(), Some(OURS));
    }

    #[test]
    fn before_the_first_version_there_is_nothing_to_have() {
        let said = Said { head: Some(THEIRS), ..Said::default() };
        assert_eq!((said.all_there(None), said.all_here(None)), (Some(true), Some(false)));
    }
}
