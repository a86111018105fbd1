//! Telling somebody who may have gone.

use crossbeam_channel::Sender;

/// Tells whoever waits for it. Who has gone need not hear of it.
pub(crate) fn tell<T>(whom: &Sender<T>, what: T) {
    drop(whom.send(what));
}
