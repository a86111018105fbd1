//! What follows from having looked at a peer's version: pure, and carried out by
//! [`syncing`](super::syncing).

use cairnfs_mount_core::{Error, MergeStep};

use super::{fetching::Unfetched, message::Unseen, said::Standing};

/// See the module's doc.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Everything in it is here.
    Covered,
    /// It cannot be merged here; why, unless the peer sees that by itself.
    Apart(Option<Unseen>),
    /// It is not taken, and asked for again only if the peer did not give it.
    NotTaken {
        standing: Standing,
        /// What the peer hears.
        unseen: Unseen,
        /// What is said to who asks about the peer.
        note: String,
    },
    /// It failed here, and is tried again; what the peer hears of it.
    Trouble(Error, Option<Unseen>),
    /// The peer does not keep to the protocol.
    PeerWrong(String),
    /// Nothing: it is off the desk already, or comes to it again.
    Nothing,
}

impl Verdict {
    pub(super) fn of(looked: Result<MergeStep, Unfetched>) -> Self {
        match looked {
            Ok(step) if step.knows_theirs() => Self::Covered,
            Ok(MergeStep::NotPermitted) => Self::Apart(Some(Unseen::ReadOnly)),
            // Who was put back sees that by itself.
            Ok(_) => Self::Apart(None),
            Err(Unfetched::Rejected(why)) => Self::NotTaken {
                standing: Standing::Rejected,
                unseen: Unseen::Rejected,
                note: format!("what it published was rejected: {why}"),
            },
            Err(Unfetched::Refused) => Self::NotTaken {
                standing: Standing::Refused,
                unseen: Unseen::NotGiven,
                note: "it does not give what it says it has".into(),
            },
            // It may stand on the version in a moment whose members have it.
            Err(Unfetched::NoSecret(epoch)) => Self::NotTaken {
                standing: Standing::Refused,
                unseen: Unseen::NotGiven,
                note: format!(
                    "what it published was rejected: it is sealed under a secret that the peer does \
                     not give (epoch {epoch})"
                ),
            },
            // Nothing can be stored, and that will not change.
            Err(Unfetched::Failed(Error::ReadOnly { reason })) => Self::NotTaken {
                standing: Standing::Refused,
                unseen: Unseen::ReadOnly,
                note: format!("what it published cannot be stored here: read-only ({reason})"),
            },
            // It was in the way of something, and comes.
            Err(Unfetched::Failed(Error::Busy)) => Self::Trouble(Error::Busy, None),
            Err(Unfetched::Failed(Error::NoSpace)) => {
                Self::Trouble(Error::NoSpace, Some(Unseen::NoSpace))
            }
            Err(Unfetched::Failed(err)) => Self::Trouble(err, Some(Unseen::Failed)),
            Err(Unfetched::PeerWrong(why)) => Self::PeerWrong(why),
            Err(Unfetched::PeerGone | Unfetched::StandsBack { .. } | Unfetched::Closed) => {
                Self::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(err: Unfetched) -> Verdict {
        Verdict::of(Err(err))
    }

    #[test]
    fn what_is_here_after_a_merge_is_covered_and_what_cannot_be_merged_is_apart() {
        for step in [MergeStep::Nothing, MergeStep::FastForward, MergeStep::Merged] {
            assert!(matches!(Verdict::of(Ok(step)), Verdict::Covered), "{step:?}");
        }
        let apart = Verdict::of(Ok(MergeStep::NotPermitted));
        assert!(matches!(apart, Verdict::Apart(Some(Unseen::ReadOnly))));
        assert!(matches!(Verdict::of(Ok(MergeStep::Forgotten)), Verdict::Apart(None)));
    }

    #[test]
    fn what_is_not_believed_given_or_storable_is_not_asked_for_again() {
        let read_only = Error::ReadOnly { reason: "as it is wanted" };
        for (err, stands, hears, says) in [
            (Unfetched::Rejected("why".into()), Standing::Rejected, Unseen::Rejected, "why"),
            (Unfetched::Refused, Standing::Refused, Unseen::NotGiven, "does not give"),
            (Unfetched::NoSecret(7), Standing::Refused, Unseen::NotGiven, "(epoch 7)"),
            (Unfetched::Failed(read_only), Standing::Refused, Unseen::ReadOnly, "as it is wanted"),
        ] {
            let Verdict::NotTaken { standing, unseen, note } = of(err) else { panic!("{says}") };
            assert_eq!((standing, unseen), (stands, hears));
            assert!(note.contains(says), "{note}");
        }
    }

    #[test]
    fn what_failed_here_is_tried_again_and_the_peer_hears_what_it_would_wait_for() {
        for (err, hears) in [
            (Error::Busy, None),
            (Error::NoSpace, Some(Unseen::NoSpace)),
            (Error::Io("a disk".into()), Some(Unseen::Failed)),
        ] {
            let Verdict::Trouble(_, unseen) = of(Unfetched::Failed(err)) else { panic!() };
            assert_eq!(unseen, hears);
        }
    }

    #[test]
    fn only_who_breaks_the_protocol_loses_the_connection() {
        assert!(matches!(of(Unfetched::PeerWrong("why".into())), Verdict::PeerWrong(_)));
        let stands_back = Unfetched::StandsBack { is_slow: true };
        for err in [Unfetched::PeerGone, stands_back, Unfetched::Closed] {
            assert!(matches!(of(err), Verdict::Nothing));
        }
    }
}
