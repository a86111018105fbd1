//! The thread `bucket-sync`, one for each bucket that is served: tells peers where this device
//! stands, and fetches and merges what they have, from one peer at a time.

use std::{sync::Arc, time::Instant};

use cairnfs_mount_core::{Error, MergeStep, VersionId};

use super::{
    Net,
    desk::{Job, Mended, Side},
    fetching::{self, Unfetched},
    introducing,
    message::Unseen,
    said::Standing,
    session::Ended,
    sharing::Offered,
};
use crate::values::hex;

/// Runs until the bucket is served no longer.
pub(super) fn run(net: &Net, offered: &Arc<Offered>) {
    let mut waiting = false;
    loop {
        match offered.next_job(waiting) {
            Job::Close => break,
            Job::HeadChanged => net.members_may_have_changed(),
            Job::Tell(side, head) => side.say_head(head),
            Job::Introduce(side) => {
                // It shares the bucket with this device: should it have removed it, no longer.
                net.addresses.set_removed(&side.session.key, offered.id, false);
                introducing::introduce(net, offered, &side);
            }
            Job::Look(side, version) => look(net, offered, &side, version),
            Job::Mend(sides, waits) => {
                // If nothing comes of it, the end of the channel says so.
                let Some(mended) = mend(net, offered, &sides) else { continue };
                // Whoever asked may have gone.
                for one in waits {
                    one.send(mended).ok();
                }
            }
            Job::Find(sides, search) => {
                let Some(lacking) = find(net, offered, &sides, search.blobs) else { continue };
                // Whoever asked may have gone.
                search.lacking.send(lacking).ok();
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

/// Fetches what is lacking of a peer's version, if anything is.
fn look(net: &Net, offered: &Arc<Offered>, side: &Side, version: VersionId) {
    let covered = match offered.with(|replica| replica.covers(&version)) {
        Some(Ok(true)) => Ok(MergeStep::Nothing),
        Some(Ok(false)) => fetch(net, offered, side, version),
        Some(Err(err)) => Err(Unfetched::Failed(err)),
        None => return,
    };
    let (bucket, peer) = (offered.short_id(), hex(&side.session.key[..4]));
    match covered {
        Ok(step) if step.knows_theirs() => {
            offered.settle(side, version, Standing::Covered);
            side.say_seen(version);
        }
        Ok(step) => {
            offered.settle(side, version, Standing::Apart);
            // Who was put back sees that by itself.
            if step == MergeStep::NotPermitted {
                side.say_unseen(version, Unseen::ReadOnly);
            }
        }
        Err(Unfetched::Rejected(why)) => {
            log::warn!("rejected bucket={bucket} peer={peer} reason={why:?}");
            // What helps is a command, and the core does not know what the bucket is called here.
            let why = why.replace("rejoin NAME", &format!("rejoin {}", offered.name));
            net.note_error(&side.session.key, format!("what it published was rejected: {why}"));
            offered.settle(side, version, Standing::Rejected);
            side.say_unseen(version, Unseen::Rejected);
        }
        Err(Unfetched::PeerWrong(why)) => side.session.end(Ended::Wrong(why)),
        // Its thread takes it off the desk.
        Err(Unfetched::PeerGone) => side.session.end(Ended::Gone),
        Err(Unfetched::Refused) => {
            let why = "it does not give what it says it has";
            net.note_error(&side.session.key, why.into());
            offered.settle(side, version, Standing::Refused);
            side.say_unseen(version, Unseen::NotGiven);
        }
        Err(Unfetched::Closed) => (),
        // Nothing can be stored, and that will not change.
        Err(Unfetched::Failed(Error::ReadOnly { reason })) => {
            log::info!("fetch bucket={bucket} peer={peer} reason=\"read-only: {reason}\"");
            let why = format!("what it published cannot be stored here: read-only ({reason})");
            net.note_error(&side.session.key, why);
            offered.settle(side, version, Standing::Refused);
            side.say_unseen(version, Unseen::ReadOnly);
        }
        Err(Unfetched::Failed(err)) => {
            log::warn!("fetch bucket={bucket} peer={peer} reason=\"{err}\"");
            net.note_error(
                &side.session.key,
                format!("what it published cannot be stored here: {err}"),
            );
            match err {
                // It was in the way of something, and comes.
                Error::Busy => (),
                Error::NoSpace => side.say_unseen(version, Unseen::NoSpace),
                _ => side.say_unseen(version, Unseen::Failed),
            }
            let again = Instant::now() + net.timing.trouble;
            offered.set_trouble(&side.session.key, err, again);
        }
    }
}

/// Fetches what is damaged here, from one peer after the other until nothing lacks; none if the
/// bucket is served no longer.
fn mend(net: &Net, offered: &Arc<Offered>, sides: &[Side]) -> Option<Mended> {
    let mut mended = Mended::default();
    for side in sides {
        let peer = hex(&side.session.key[..4]);
        match fetching::mend(net, offered, side) {
            Ok(progress) => {
                mended.peers += 1;
                mended.blobs += progress.blobs;
                mended.lacking = progress.unavailable;
                log::info!("mend peer={peer} blobs={} lacking={}", progress.blobs, mended.lacking);
                if mended.lacking == 0 {
                    break;
                }
            }
            Err(Unfetched::Closed) => return None,
            Err(why) => log::warn!("mend peer={peer} reason={why:?}"),
        }
    }
    Some(mended)
}

/// Which of these blobs none of the peers has, as far as they say; none if the bucket is served no
/// longer.
fn find(
    net: &Net,
    offered: &Arc<Offered>,
    sides: &[Side],
    mut ids: Vec<[u8; 32]>,
) -> Option<Vec<[u8; 32]>> {
    for side in sides {
        match fetching::lacking(net, offered, side, &ids) {
            Ok(lacking) => ids = lacking,
            Err(Unfetched::Closed) => return None,
            Err(why) => {
                log::warn!("find peer={} reason={why:?}", hex(&side.session.key[..4]));
            }
        }
    }
    Some(ids)
}

fn fetch(
    net: &Net,
    offered: &Arc<Offered>,
    side: &Side,
    version: VersionId,
) -> Result<MergeStep, Unfetched> {
    let fetching = fetching::fetch(net, offered, side, version)?;
    let progress = fetching.progress();
    let outcome = fetching.merge().map_err(|err| match err {
        Error::Rejected { why } => Unfetched::Rejected(why),
        Error::Stopped => Unfetched::Closed,
        err => Unfetched::Failed(err),
    })?;
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
        hex(&side.session.key[..4]),
        progress.blobs,
        progress.bytes,
        outcome.conflicts,
    );
    Ok(outcome.step)
}
