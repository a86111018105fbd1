//! What is known of how far devices have met.

use super::{mounts::Device, *};

#[test]
fn who_may_not_merge_what_it_was_sent_does_not_say_that_it_has_it() {
    let owner = Device::owner();
    let reader = Device::invited_by(&owner, Role::Reader);
    let writer = Device::invited_by(&owner, Role::Writer);
    // It goes on writing, and does not know yet that it no longer may.
    writer.peer.net.withdraw(&name());
    owner.mount.set_member(writer.peer.key(), "", Some(Role::Reader)).unwrap();
    writer.write("own", b"x");
    writer.mount.publish().unwrap();
    let newest = owner.mount.head();
    eventually("the reader has it", || reader.mount.head() == newest);
    owner.peer.net.withdraw(&name());
    writer.peer.net.serve(&name(), &writer.mount);
    writer.peer.knows(&reader.peer);
    for device in [&writer, &reader] {
        let says_so = |failure: crate::exit::Failure| failure.message.contains("read-only there");
        eventually("neither has the other's", || device.peer.sync().is_err_and(says_so));
        let found = device.peer.net.elsewhere(&name(), Vec::new(), &mut |_| true).unwrap();
        assert!(!found.newest);
    }
    // Who may write merges the two.
    owner.peer.net.serve(&name(), &owner.mount);
    for device in [&owner, &reader] {
        device.gets("own", b"x");
    }
    eventually("all meet", || writer.peer.sync().is_ok_and(|met| met.peers == 2));
}
