//! The thread `bucket-sync`, one for each bucket that is served: tells peers where this device
//! stands, and fetches and merges what they have, from one peer at a time, which take turns.
//!
//! What is not believed is logged, shown by `cairnfs peers`, and not asked of that peer again. What
//! fails here, such as for want of space, is shown there too and tried again later; the peers have their
//! turns meanwhile, one after the other. In both cases, and if this device may not merge, the peer is
//! told that its version is not taken, and why, so that nobody waits there.

use std::{sync::Arc, time::Instant};

use cairnfs_mount_core::{Error, MergeStep, VersionId};

use super::{
    Net,
    desk::{Job, Side},
    fetching::{self, Unfetched},
    message::Unseen,
    notices,
    said::Standing,
    session::Ended,
    sharing::Offered,
    turns::{Aside, Task},
    verdict::Verdict,
};
use crate::{exit::with_remedy, tell::tell};

/// Runs until the bucket is served no longer.
pub(super) fn run(net: &Net, offered: &Arc<Offered>) {
    let mut waiting = false;
    let mut aside = Aside::default();
    loop {
        aside.keep_open(offered);
        match offered.next_job(waiting) {
            Job::Close => break,
            Job::Notice(notice) => notices::give(net, offered, notice),
            Job::Look(side, version) => look(net, offered, &mut aside, &side, version),
            Job::Mend(mending, Some(side)) => mending.turn(net, offered, &mut aside, &side),
            Job::Mend(mending, None) => mending.end(&mut aside),
            Job::Find(sides, search) => {
                let Some(lacking) = find(net, offered, &mut aside, &sides, search.blobs) else {
                    continue;
                };
                tell(&search.lacking, lacking);
            }
            Job::PeersWait(now) => {
                waiting = now;
                offered.with(|replica| replica.peers_wait(now));
            }
        }
        net.bump();
    }
    if waiting {
        offered.with(|replica| replica.peers_wait(false));
    }
}

/// Fetches what is lacking of a peer's version, if anything is. One that stood back comes first.
fn look(net: &Net, offered: &Arc<Offered>, aside: &mut Aside, side: &Side, version: VersionId) {
    let version = aside.version(side).unwrap_or(version);
    let looked = match offered.with(|replica| replica.covers(&version)) {
        Some(Ok(true)) => {
            // Others have brought what was lacking.
            aside.take_up(side, Task::Version(version));
            Ok(MergeStep::Nothing)
        }
        Some(Ok(false)) => fetch(net, offered, aside, side, version),
        Some(Err(err)) => Err(Unfetched::Failed(err)),
        None => return,
    };
    carry_out(Verdict::of(looked), net, offered, side, version);
}

fn carry_out(verdict: Verdict, net: &Net, offered: &Offered, side: &Side, version: VersionId) {
    let key = &side.session.key;
    let (bucket, peer) = (offered.short_id(), key);
    log::debug!("looked bucket={bucket} peer={peer} verdict={verdict:?}");
    match verdict {
        Verdict::Covered => {
            net.went_well(key, offered.id);
            offered.settle(side, version, Standing::Covered, None);
            side.say_seen(version);
        }
        Verdict::Apart(why) => {
            net.went_well(key, offered.id);
            offered.settle(side, version, Standing::Apart, None);
            if let Some(why) = why {
                side.say_unseen(version, why);
            }
        }
        Verdict::NotTaken { standing, unseen, note } => {
            // The rest is as this side wants it, or the other one.
            let level = match unseen {
                Unseen::Rejected => offered.level_of_rejected(key),
                _ => log::Level::Info,
            };
            log::log!(level, "not-taken bucket={bucket} peer={peer} reason={note:?}");
            net.note_error(key, offered.id, note);
            let again = (unseen == Unseen::NotGiven).then_some(net.timing.trouble);
            offered.settle(side, version, standing, again);
            side.say_unseen(version, unseen);
        }
        Verdict::Trouble(err, unseen) => {
            log::warn!("fetch bucket={bucket} peer={peer} reason=\"{err}\"");
            let why = format!("what it published cannot be stored here: {err}");
            net.note_error(key, offered.id, why);
            if let Some(unseen) = unseen {
                side.say_unseen(version, unseen);
            }
            offered.set_trouble(key, err, Instant::now() + net.timing.trouble);
        }
        Verdict::PeerWrong(why) => side.session.end(Ended::Wrong(why)),
        Verdict::Nothing => (),
    }
}

/// Which of these blobs none of the peers has that may write, as far as they say; none if the bucket
/// is served no longer.
fn find(
    net: &Net,
    offered: &Arc<Offered>,
    aside: &mut Aside,
    sides: &[Side],
    mut ids: Vec<[u8; 32]>,
) -> Option<Vec<[u8; 32]>> {
    for side in sides.iter().filter(|side| offered.is_writer(&side.session.key)) {
        match fetching::lacking(net, offered, aside, side, &ids) {
            Ok(lacking) => ids = lacking,
            Err(Unfetched::Closed) => return None,
            Err(why) => {
                log::warn!("find peer={} reason={why:?}", side.session.key);
            }
        }
    }
    Some(ids)
}

fn fetch(
    net: &Net,
    offered: &Arc<Offered>,
    aside: &mut Aside,
    side: &Side,
    version: VersionId,
) -> Result<MergeStep, Unfetched> {
    let fetching = fetching::fetch(net, offered, aside, side, version)?;
    let progress = fetching.progress();
    let outcome = fetching.merge().map_err(|err| match err {
        Error::Rejected { why } => Unfetched::Rejected(why),
        Error::PutBack | Error::WrittenTwice => {
            Unfetched::Rejected(with_remedy(&offered.name, &err))
        }
        Error::Stopped => Unfetched::Closed,
        err => Unfetched::Failed(err),
    })?;
    if matches!(outcome.step, MergeStep::FastForward | MergeStep::Merged) {
        offered.learnt(net.timing.trouble);
    }
    let step = match outcome.step {
        MergeStep::Nothing => "nothing",
        MergeStep::FastForward => "fast-forward",
        MergeStep::Merged => "merged",
        MergeStep::NotPermitted => "not-permitted",
        MergeStep::Forgotten => "forgotten",
    };
    log::info!(
        "sync bucket={} peer={} step={step} blobs={} bytes={} conflicts={}",
        offered.short_id(),
        side.session.key,
        progress.blobs,
        progress.bytes,
        outcome.conflicts,
    );
    Ok(outcome.step)
}
