//! A connection from when it is taken in to its end, and what the roster keeps of it then.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{
    Net,
    link::Incoming,
    roster::{About, Admitted},
    session::{Ears, Ended, Session},
    tls::PeerKey,
    twins,
};

impl Net {
    /// Takes a connection in, or says that another one stays.
    pub(super) fn admit(&self, session: &Arc<Session>) -> Admitted {
        let mut roster = self.roster.lock();
        let admitted = roster.admit(&self.me, session);
        if let (Admitted::Yes(_), Some(both)) = (&admitted, roster.twins(&session.key)) {
            roster.note_twins(&session.key, twins::of_a_peer(both));
        }
        drop(roster);
        // It may be the last that was missing.
        self.wake.notify_all();
        if let Admitted::Yes(Some(old)) = &admitted {
            old.end(Ended::Here("there is a newer connection"));
        }
        admitted
    }

    /// Runs a connection until it ends, on this thread and one more.
    pub(super) fn run_session(&self, session: &Arc<Session>, incoming: Incoming) {
        let peer = session.key;
        log::info!("connected peer={peer} dialled={}", session.dialled);
        let writer = Arc::clone(session);
        let timing = self.timing;
        match self.spawn("peer-writes", move || writer.write_until_end(&timing)) {
            Ok(()) => {
                self.reconcile(session);
                self.bump();
                let ears = Hearing { net: self, session };
                session.read_until_end(incoming, &self.timing, &ears);
            }
            Err(err) => session.end(Ended::Wrong(err.to_string())),
        }
        session.unlink_all();
        let ended = session.ended().unwrap_or(Ended::Gone);
        self.note_end(session, &ended);
        match ended {
            Ended::Wrong(why) => log::warn!("disconnected peer={peer} reason={why:?}"),
            Ended::Here(why) => log::info!("disconnected peer={peer} reason={why:?}"),
            Ended::Gone => log::info!("disconnected peer={peer} reason=\"it has gone\""),
        }
        self.wake.notify_all();
        self.bump();
    }

    /// Takes a connection that has ended off the roster, which notes when the device is tried again.
    fn note_end(&self, session: &Arc<Session>, ended: &Ended) {
        let lasted = session.since.elapsed().unwrap_or_default();
        let mut roster = self.roster.lock();
        let current = roster.leave(session);
        let Some(contact) = roster.contacts.get_mut(&session.key) else { return };
        contact.last_seen = Some(session.last_heard());
        // One that ends at once again and again is no better than none.
        contact.failures = match ended {
            Ended::Gone if lasted > self.timing.handshake => 0,
            Ended::Here(_) => contact.failures,
            Ended::Gone | Ended::Wrong(_) => contact.failures.saturating_add(1),
        };
        if current && !matches!(ended, Ended::Here(_)) {
            // It may have been a cut of a moment.
            let wait = self.jitter(contact.failures.saturating_sub(1));
            contact.next = Some(Instant::now() + wait);
        }
        if let Ended::Wrong(why) = ended {
            roster.note_error(&session.key, About::Connection, why.clone());
        }
    }
}

/// What is heard on a connection, and where it goes.
struct Hearing<'a> {
    net: &'a Net,
    session: &'a Arc<Session>,
}

impl Ears for Hearing<'_> {
    fn offers_changed(&self) {
        self.net.reconcile(self.session);
    }

    fn hinted_at(&self, device: &PeerKey, addresses: &[SocketAddr]) {
        if *device != self.net.me {
            return self.net.hinted_at(device, addresses);
        }
        if let Some(other) = addresses.first() {
            let said = twins::of_this_device(*other);
            self.net.roster.lock().note_twins(&self.session.key, said);
        }
    }

    fn removed(&self, mark: [u8; 32]) {
        self.net.hear_removed(&self.session.key, self.session.challenge(), &[mark]);
        self.net.bump();
    }

    fn answered(&self) {
        self.net.bump();
    }
}
