//! Reaching those who share something: the thread `dial-peers`, and one for each try.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{
    Net,
    message::{ADMISSION_BYTES_MAX, Admission, Knock},
    opening::OpenError,
    roster::{About, Admitted},
    session::{Ended, Session},
    tls::PeerKey,
};

impl Net {
    /// The thread `dial-peers`: sleeps until somebody is due, or it is to be tried again to listen, or
    /// the first is missing or the last is there.
    pub(super) fn dial_until_stopped(self: &Arc<Self>) {
        loop {
            let (due, listens, looks) = {
                let mut roster = self.roster.lock();
                loop {
                    if roster.stopping {
                        return;
                    }
                    let now = Instant::now();
                    let listens = roster.listen_again.take_if(|at| *at <= now).is_some();
                    let looks = roster.looks_anew();
                    match roster.due(now) {
                        Ok(due) => break (due, listens, looks),
                        Err(_) if listens || looks.is_some() => {
                            break (Vec::new(), listens, looks);
                        }
                        Err(next) => match next.into_iter().chain(roster.listen_again).min() {
                            Some(at) => drop(self.wake.wait_until(&mut roster, at)),
                            None => self.wake.wait(&mut roster),
                        },
                    }
                }
            };
            if listens {
                self.listen_again();
            }
            if let Some(looks) = looks {
                self.discovery.look(self, looks);
            }
            for key in due {
                let net = Arc::clone(self);
                if let Err(err) = self.spawn("peer-reads", move || net.reach(&key)) {
                    log::warn!("dial peer={key} reason={err}");
                    self.roster.lock().tried(&key, Some(self.timing.retry_max));
                }
            }
        }
    }

    /// Tries all addresses of a peer, and stays with it if one is right.
    fn reach(self: &Arc<Self>, key: &PeerKey) {
        let mut last = None;
        for address in self.addresses.of(key) {
            if self.roster.lock().stopping {
                break;
            }
            match self.reach_at(*key, address) {
                Ok(()) => return,
                Err(err) => {
                    log::debug!("dial peer={key} reason=\"{err}\"");
                    last = Some((err, address));
                }
            }
        }
        let mut roster = self.roster.lock();
        let again = match last {
            Some((err, address)) => {
                roster.note_error(key, About::Reaching, format!("{address}: {err}"));
                let failures = roster.contacts.get_mut(key).map_or(0, |contact| {
                    contact.failures = contact.failures.saturating_add(1);
                    contact.failures - 1
                });
                Some(self.jitter(failures))
            }
            // Nobody knows where it is: it has to be discovered, or to come by itself.
            None => None,
        };
        roster.tried(key, again);
        drop(roster);
        self.bump();
    }

    /// Connects, and returns when the connection has ended.
    pub(super) fn reach_at(&self, key: PeerKey, address: SocketAddr) -> Result<(), OpenError> {
        let mut opened = self.connect(key, address)?;
        opened.send(&Knock::Member { instance: self.instance, port: self.listening_port() })?;
        let deadline = Instant::now() + self.timing.handshake;
        let instance = match opened.receive(ADMISSION_BYTES_MAX, deadline)? {
            Admission::Member { instance, .. } => instance,
            Admission::Duplicate => {
                // Should it turn out to be none, then soon again.
                self.roster.lock().tried(&key, Some(self.jitter(2)));
                return Ok(());
            }
            Admission::Removed { marks } => {
                let buckets = self.hear_removed(&key, &opened.challenge, &marks);
                return Err(OpenError::Removed(buckets));
            }
            Admission::Joined { .. } | Admission::Refused(_) => return Err(OpenError::NotAdmitted),
        };
        self.addresses.found(&key, address);
        let (session, incoming) = Session::new(opened, instance);
        let admitted = self.admit(&session);
        self.roster.lock().tried(&key, None);
        match admitted {
            Admitted::Yes(_) => self.run_session(&session, incoming),
            Admitted::Duplicate(_) => session.end(Ended::Here("there is a connection already")),
            Admitted::No => session.end(Ended::Here("it shares nothing")),
        }
        Ok(())
    }
}
