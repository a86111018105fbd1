//! Finding a member again by a ticket of its, in a bucket that is here already: two devices that have
//! both moved, and do not hear of each other, know of each other only where they were.
//!
//! Of the ticket only its addresses count, as a hint like any other. It is not presented, so that no use
//! of it is spent, and it may have expired. Whoever answers must prove the key of a member, as anywhere.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use crossbeam_channel::bounded;

use super::{
    Net,
    joining::{interrupted, unreachable},
    meeting::TICK,
    opening::OpenError,
    probing::Probes,
    removal,
    report::{Inviter, JoinProgress},
    session::Session,
    sharing::Offered,
    ticket::Ticket,
    tls::PeerKey,
    twins,
};
use crate::{
    exit::{Code, Failure, Result},
    home::BucketName,
    tell::tell,
};

impl Net {
    /// Connects to the device that made a ticket of `bucket`, which is served. `say` returns whether to
    /// go on.
    ///
    /// # Errors
    ///
    /// [`Code::WrongKey`] for a ticket that is mistyped, of another bucket, or made by this device or
    /// by one that is no member, and if this device was removed; [`Code::NoPeer`] if the other one
    /// cannot be reached; [`Code::NotFound`] if the bucket is not served.
    pub(crate) fn find_inviter(
        &self,
        bucket: &BucketName,
        ticket: &str,
        say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<Inviter> {
        let ticket: Ticket = ticket.parse().map_err(|err| Failure::new(Code::WrongKey, err))?;
        let offered = self.served(bucket)?;
        let is_late = ticket.until <= SystemTime::now();
        self.refuse_unless_of_a_member(&offered, &ticket, is_late)?;
        let key = ticket.device;
        // Tried from now on also if nobody is there at this moment.
        self.addresses.hint(&key, &ticket.addresses);
        let found = |session: Arc<Session>| {
            let mut others = offered.others().into_iter();
            let name = others.find(|(it, _)| *it == key).map(|(_, name)| name).unwrap_or_default();
            Inviter { key, name, address: session.dialled.then_some(session.address) }
        };
        if let Some(session) = self.living_connection(&key, say)? {
            return Ok(found(session));
        }
        let mut last = None;
        for address in &ticket.addresses {
            match self.try_at(key, *address, say)? {
                Ok(session) => return Ok(found(session)),
                Err(OpenError::Removed(from)) if from.contains(bucket) => {
                    return Err(drop_it_first(bucket));
                }
                Err(err) => last = Some(format!("{address}: {err}")),
            }
        }
        Err(unreachable(last, is_late))
    }

    fn refuse_unless_of_a_member(
        &self,
        offered: &Offered,
        ticket: &Ticket,
        is_late: bool,
    ) -> Result<()> {
        let bucket = &offered.name;
        let message = if ticket.bucket != offered.id {
            format!("the ticket is of another bucket than '{bucket}'")
        } else if ticket.device == self.me && (is_late || self.invites.has_made(&ticket.secret)?) {
            "this ticket was made by this device".to_owned()
        } else if ticket.device == self.me {
            // One that has not expired is remembered where it was made.
            twins::of_a_ticket()
        } else if !offered.trusts(&ticket.device) {
            format!(
                "the device that made the ticket is no member of bucket '{bucket}', as far as is \
                 known here"
            )
        } else {
            return Ok(());
        };
        Err(Failure::new(Code::WrongKey, message))
    }

    /// The connection with a device, if there is one and its other end is still there.
    fn living_connection(
        &self,
        key: &PeerKey,
        say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<Option<Arc<Session>>> {
        let mut probes = Probes::begin(&self.all_served(), self.timing.handshake);
        while let Some(session) = self.connection_with(key) {
            probes.pursue(self);
            if probes.are_over() {
                // Not the one of before: that may have been ended just now.
                return Ok(self.connection_with(key));
            }
            go_on(say, session.address)?;
            self.await_news(TICK);
        }
        Ok(None)
    }

    fn connection_with(&self, key: &PeerKey) -> Option<Arc<Session>> {
        self.roster.lock().sessions.get(key).cloned()
    }

    /// Tries to reach a device at this address; returns the connection with it, also if it came by itself
    /// meanwhile.
    fn try_at(
        &self,
        key: PeerKey,
        address: SocketAddr,
        say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<Result<Arc<Session>, OpenError>> {
        go_on(say, address)?;
        // Of two connections that are made at one time each side may end another one. But who is tried
        // where it was long ago may be tried so for long.
        let until = Instant::now() + self.timing.handshake;
        let is_alone = loop {
            let mut roster = self.roster.lock();
            if let Some(session) = roster.sessions.get(&key) {
                return Ok(Ok(Arc::clone(session)));
            }
            let is_alone = roster.begin_try(&key);
            drop(roster);
            if is_alone || until <= Instant::now() {
                break is_alone;
            }
            go_on(say, address)?;
            self.await_news(TICK);
        };
        let (sender, told) = bounded(1);
        let net = self.arc();
        let reach = move || {
            let outcome = net.reach_at(key, address);
            if is_alone && outcome.is_err() {
                net.roster.lock().tried(&key, Some(net.jitter(0)));
                net.wake.notify_all();
            }
            // Nobody listens any more if it was connected.
            tell(&sender, outcome);
            net.bump();
        };
        if let Err(err) = self.spawn("peer-reads", reach) {
            self.roster.lock().tried(&key, Some(self.timing.retry_max));
            return Err(Failure::io("cannot start a thread", &err));
        }
        let mut until = None;
        loop {
            if let Some(session) = self.connection_with(&key) {
                return Ok(Ok(session));
            }
            match told.try_recv() {
                Ok(Err(err)) => return Ok(Err(err)),
                // It has to find out first that the connection which it had is none any more.
                Ok(Ok(())) => until = Some(Instant::now() + self.timing.stall),
                Err(_) if until.is_some_and(|until| until <= Instant::now()) => {
                    return Ok(Err(OpenError::Silent));
                }
                Err(_) => (),
            }
            go_on(say, address)?;
            self.await_news(TICK);
        }
    }
}

fn go_on(say: &mut dyn FnMut(JoinProgress) -> bool, address: SocketAddr) -> Result<()> {
    if say(JoinProgress::Connecting(address)) { Ok(()) } else { Err(interrupted()) }
}

fn drop_it_first(bucket: &BucketName) -> Failure {
    let message = format!(
        "{}: 'cairnfs drop {bucket}', then the ticket lets it in again",
        removal::said(bucket)
    );
    Failure::new(Code::WrongKey, message)
}
