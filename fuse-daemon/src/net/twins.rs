//! Noticing that the key of a device is in use on two machines: somebody has copied a home, with the card
//! of a small computer for one.
//!
//! To others the two are one device, of whose connections they keep the newest: each throws the other
//! out. A process that was started anew takes the place of the one before in the same way, but that one
//! has ended. One whose place was taken, and that comes again and again, runs beside the other.

use std::{collections::VecDeque, net::SocketAddr};

use super::message::Instance;

/// How often processes of a device come again until it is believed that two run. One that is started anew
/// may overtake what the one before had sent, and be thrown out itself by that.
const RETURNS: u32 = 3;
/// Processes of one device that are remembered: a member may invent as many as it likes.
const PROCESSES_MAX: usize = 8;

/// What to do about it.
const REMEDY: &str = "one of the two homes is a copy of the other: there run 'cairnfs stop', copy out \
                      what only that machine has, put the home away, and join with a new ticket";

/// The processes of one device that were connected, and where, the last one last.
#[derive(Clone, Debug, Default)]
pub(super) struct Twins {
    seen: VecDeque<(Instance, SocketAddr)>,
    returns: u32,
}

impl Twins {
    /// A process of the device is connected from now on.
    pub(super) fn connected(&mut self, process: Instance, address: SocketAddr) {
        let is_it = |(seen, _): &(Instance, SocketAddr)| *seen == process;
        let at = self.seen.iter().position(is_it);
        match at {
            // It is the one that was there last.
            Some(at) if at + 1 == self.seen.len() => (),
            Some(_) => self.returns = self.returns.saturating_add(1),
            None => self.returns = 0,
        }
        if let Some(at) = at {
            self.seen.remove(at);
        }
        self.seen.push_back((process, address));
        if self.seen.len() > PROCESSES_MAX {
            self.seen.pop_front();
        }
    }

    /// Where the device is connected, and where another machine is that has its key, if there is one.
    pub(super) fn both(&self) -> Option<[SocketAddr; 2]> {
        let mut newest = self.seen.iter().rev().map(|(_, address)| *address);
        let both = [newest.next()?, newest.next()?];
        (self.returns >= RETURNS).then_some(both)
    }
}

/// What is said of a device whose key is in use on two machines.
pub(super) fn of_a_peer([one, other]: [SocketAddr; 2]) -> String {
    let (one, other) = (one.ip(), other.ip());
    // Of two behind one router only that is seen.
    let both =
        if one == other { format!("both at {one}") } else { format!("at {one} and {other}") };
    format!("two machines, {both}, have its key and throw each other out: {REMEDY}")
}

/// What is said of a device that is connected with another machine, which has this one's key.
pub(super) fn of_this_device(other: SocketAddr) -> String {
    let other = other.ip();
    format!(
        "it is connected, by turns, with another machine that has the key of this device, at {other}: \
         {REMEDY}"
    )
}

/// What is said of a ticket that was made with this device's key, and not here.
pub(super) fn of_a_ticket() -> String {
    format!("this ticket was made by another machine, with the key of this device: {REMEDY}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 7117).into()
    }

    /// What is thought when processes of this order were connected.
    fn after(order: &[u8]) -> Option<[SocketAddr; 2]> {
        let mut twins = Twins::default();
        order.iter().for_each(|one| twins.connected([*one; 16], address(*one)));
        twins.both()
    }

    #[test]
    fn processes_that_come_by_turns_are_two_machines() {
        assert_eq!(after(&[1, 2, 1, 2]), None);
        assert_eq!(after(&[1, 2, 1, 2, 1]), Some([address(1), address(2)]));
        assert_eq!(after(&[1, 1, 2, 2, 1, 2, 2, 1, 1]), Some([address(1), address(2)]));
        assert_eq!(after(&[1, 2, 3, 1, 2, 3]), Some([address(3), address(2)]));
    }

    #[test]
    fn one_that_is_started_anew_or_connects_again_is_one_machine() {
        assert_eq!(after(&[1; 20]), None);
        assert_eq!(after(&[1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]), None);
        // It overtakes what the one before had sent, each time.
        assert_eq!(after(&[1, 2, 1, 2, 3, 2, 3, 4, 3, 4]), None);
        // Two machines were there, and one has been put right.
        assert_eq!(after(&[1, 2, 1, 2, 1, 2, 3, 3]), None);
    }
}
