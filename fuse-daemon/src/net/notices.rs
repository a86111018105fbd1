//! What `bucket-sync` does at once, also while it waits for answers: a fetch may take hours, or be
//! from a peer that wants it to.

use std::sync::Arc;

use super::{
    Net,
    desk::{Notice, Side},
    introducing,
    sharing::Offered,
};

/// Does what is due. None of it waits for a peer.
pub(super) fn give(net: &Net, offered: &Arc<Offered>, notice: Notice) {
    match notice {
        Notice::HeadChanged => {
            net.members_may_have_changed();
            if offered.has_other_members() {
                offered.learnt(net.timing.trouble);
            }
        }
        Notice::Tell(side, head) => side.say_head(head),
        Notice::Introduce(side) => introduce(net, offered, &side),
    }
    net.bump();
}

fn introduce(net: &Net, offered: &Arc<Offered>, side: &Side) {
    // It shares the bucket with this device: should it have removed it, no longer.
    net.addresses.let_in_again(&side.session.key, offered.id);
    introducing::introduce(net, offered, side);
}
