//! What is given to a member that asks.

use std::{io, mem};

use cairnfs_mount_core::Error;
use serde_bytes::ByteBuf;

use super::{
    message::{Answer, Ask, GivenSecret, PART_BYTES, SECRETS_MAX, VERSIONS_MAX},
    sharing::Offered,
    tls::PeerKey,
};

/// Gives what was asked for, in parts if it is much.
pub(super) fn answer(
    offered: &Offered,
    to: &PeerKey,
    ask: Ask,
    give: &mut dyn FnMut(Answer) -> io::Result<()>,
) -> io::Result<()> {
    match ask {
        Ask::Ancestry { head, have } => {
            let found = offered.with(|replica| replica.ancestry(&head, &have, VERSIONS_MAX));
            match found {
                Some(Ok(mut versions)) => {
                    versions.truncate(VERSIONS_MAX);
                    give(Answer::Ancestry(versions))
                }
                other => refuse(offered, other, give),
            }
        }
        Ask::Secrets(have) => match offered.with(|replica| replica.secrets(&have)) {
            // Asked after they were taken: one of them may have been made as it was removed.
            Some(mut secrets) if offered.trusts(to) => {
                secrets.truncate(SECRETS_MAX);
                give(Answer::Secrets(GivenSecret::pack(&secrets)))
            }
            _ => give(Answer::Refused),
        },
        Ask::Blobs(ids) => give_blobs(offered, &ids, give),
    }
}

fn give_blobs(
    offered: &Offered,
    ids: &[[u8; 32]],
    give: &mut dyn FnMut(Answer) -> io::Result<()>,
) -> io::Result<()> {
    let (mut blobs, mut missing, mut bytes) = (Vec::new(), Vec::new(), 0);
    for id in ids {
        match offered.with(|replica| replica.sealed(id)) {
            Some(Ok(Some(blob))) => {
                // A part is longer than its bound only if it is one blob.
                if bytes > 0 && bytes + blob.len() > PART_BYTES {
                    let (blobs, missing) = (mem::take(&mut blobs), mem::take(&mut missing));
                    give(Answer::Blobs { blobs, missing, more: true })?;
                    bytes = 0;
                }
                bytes += blob.len();
                blobs.push(ByteBuf::from(blob));
            }
            Some(Ok(None)) => missing.push(*id),
            // Damaged here: another peer may have it.
            Some(Err(err @ Error::Damaged { .. })) => {
                log::warn!("give bucket={} reason={err}", offered.short_id());
                missing.push(*id);
            }
            other => return refuse(offered, other, give),
        }
    }
    give(Answer::Blobs { blobs, missing, more: false })
}

fn refuse<T>(
    offered: &Offered,
    why: Option<Result<T, Error>>,
    give: &mut dyn FnMut(Answer) -> io::Result<()>,
) -> io::Result<()> {
    match why {
        // What is asked for may have been given up meanwhile.
        Some(Err(Error::NotFound)) | None => log::debug!("give bucket={}", offered.short_id()),
        Some(Err(err)) => log::warn!("give bucket={} reason={err}", offered.short_id()),
        Some(Ok(_)) => (),
    }
    give(Answer::Refused)
}
