//! The socket's side of the daemon: one thread for each verb that asks something.

use std::{io, os::unix::net::UnixStream, ptr, sync::Arc, thread, time::Duration};

use cairnfs_mount_core::{Error as CoreError, Result as CoreResult};
use crossbeam_channel::{Receiver, bounded};

use super::{Daemon, Happening, table::Served};
use crate::{
    control::{
        Answer, Channel, Event, Hello, LingeringReport, Listener, MountReport, Request,
        StatusReport, Trouble,
    },
    exit::{Code, Failure, Result, plain},
    order::{self, Condvar, Mutex},
    passphrase::Source,
    tell::tell,
};

/// Verbs served at once; each waiting `mount --foreground` is one.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// How long a verb may take to say what it wants, or to take what it is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often what is unmounted, and in use still, is saved for who waits: its users may go on writing.
const SAVES_MAX: u32 = 10;

/// Begins to accept connections.
pub(super) fn start(daemon: Arc<Daemon>, listener: Listener) -> io::Result<()> {
    let accept = move || {
        let mut number = 0_u64;
        loop {
            match listener.accept() {
                Ok(stream) => {
                    number += 1;
                    if let Err(err) = begin(&daemon, stream, number) {
                        log::warn!("control connection={number} reason={:?}", plain(&err));
                    }
                }
                Err(err) => {
                    // Out of file descriptors, most likely: some will be closed.
                    log::warn!("accept reason={:?}", plain(&err));
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    };
    thread::Builder::new().name("accept".into()).spawn(accept).map(drop)
}

fn begin(daemon: &Arc<Daemon>, stream: UnixStream, number: u64) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let seat = Seat::take(daemon);
    let serve = move || {
        let mut channel = Channel::new(stream);
        if let Err(err) = serve(&seat, &mut channel) {
            // A verb that was interrupted, or that only wanted to know whether anybody is there.
            log::debug!("control connection={number} reason={:?}", plain(&err));
        }
    };
    thread::Builder::new().name(format!("control-{number}")).spawn(serve).map(drop)
}

/// The connections that are served.
#[derive(Debug, Default)]
pub(super) struct Seats {
    counts: Mutex<Counts, order::Seats>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    taken: usize,
    /// Those of them that have asked and have no answer yet.
    asked: usize,
}

impl Seats {
    /// Waits until all that was asked is answered, for at most `limit`: whoever has not asked yet is not
    /// waited for.
    pub(super) fn wait_until_answered(&self, limit: Duration) {
        let mut counts = self.counts.lock();
        self.answered.wait_while_for(&mut counts, |counts| counts.asked > 0, limit);
    }
}

/// One of the connections that are served.
struct Seat {
    daemon: Arc<Daemon>,
    is_free: bool,
}

impl Seat {
    fn take(daemon: &Arc<Daemon>) -> Self {
        let mut counts = daemon.seats.counts.lock();
        counts.taken += 1;
        let is_free = counts.taken <= CONNECTIONS_MAX;
        drop(counts);
        Self { daemon: Arc::clone(daemon), is_free }
    }

    /// From now on the daemon does not end without a moment for the answer.
    fn ask(&self) -> Asked<'_> {
        self.daemon.seats.counts.lock().asked += 1;
        Asked(&self.daemon.seats)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.daemon.seats.counts.lock().taken -= 1;
    }
}

/// A request without an answer.
struct Asked<'a>(&'a Seats);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.counts.lock().asked -= 1;
        self.0.answered.notify_all();
    }
}

fn serve(seat: &Seat, channel: &mut Channel) -> io::Result<()> {
    let verb = channel.greet()?;
    if verb.protocol != Hello::PROTOCOL {
        // It knows by now, and says so to whoever asked it.
        return Ok(());
    }
    let request: Request = channel.receive_secret()?;
    let _asked = seat.ask();
    // Whoever has nothing else to do must not keep a bucket from being unmounted, nor the daemon from
    // ending.
    if !seat.is_free && !matches!(request, Request::Stop | Request::Unmount(_)) {
        let failure =
            Failure::new(Code::InUse, "the daemon serves too many verbs: try again later");
        return channel.send(&Event::End(Err(failure)));
    }
    if matches!(request, Request::Stop) {
        return stop(&seat.daemon, channel);
    }
    let mut listening = true;
    let answer = seat.daemon.answer(request, verb.pid, &mut |event| {
        listening = listening && channel.send(&event).is_ok();
        listening
    });
    channel.send(&Event::End(answer))
}

/// Has the main thread end the daemon, and passes on what it says.
fn stop(daemon: &Daemon, channel: &mut Channel) -> io::Result<()> {
    // Without room: whoever sends knows that it is being written.
    let (sender, events) = bounded(0);
    if daemon.happenings.send(Happening::Stop(sender)).is_err() {
        return Ok(());
    }
    for event in events {
        channel.send(&event)?;
        if matches!(event, Event::End(_)) {
            break;
        }
    }
    Ok(())
}

impl Daemon {
    /// Answers what the process `asking` wants.
    fn answer(
        &self,
        request: Request,
        asking: u32,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Answer> {
        match request {
            Request::Status { save } => {
                let (mounts, peers) = (self.status(save), self.net.peers());
                let views = self.table.views().iter().map(|viewed| viewed.report()).collect();
                let (kept, failed_at_start) = (self.kept(), self.failed_at_start());
                let lingering = self.table.lingering().into_iter();
                let lingering = lingering.map(|(bucket, dir)| LingeringReport { bucket, dir });
                // After the mounts: what ends meanwhile is in one of them at least.
                let lost = self.losses.all();
                let not_listening = self.net.not_listening();
                let mut credentials = self.home.bucket_names().unwrap_or_default();
                credentials.retain(|bucket| Source::credential(Some(bucket)).is_some());
                Ok(Answer::Status(StatusReport {
                    mounts,
                    views,
                    lingering: lingering.collect(),
                    kept,
                    failed_at_start,
                    lost,
                    peers,
                    not_listening,
                    credentials,
                }))
            }
            Request::Mount(request) => self.mount(&request, say).map(|()| Answer::Done),
            Request::View(request) => self.view(&request, say).map(Answer::Viewed),
            Request::AwaitEnd(dir) => {
                let served = self.table.find_dir(&dir).map(|served| served.ended.clone());
                let viewed = || self.table.view_at(&dir).map(|viewed| viewed.ended.clone());
                if let Some(ended) = served.or_else(viewed) {
                    // Fails when the mount has ended, which is what is waited for.
                    ended.recv().ok();
                }
                Ok(Answer::Done)
            }
            Request::Unmount(request) => self.unmount(&request, asking, say).map(|()| Answer::Done),
            Request::Log(request) => self.log(&request, say),
            Request::Restore(request) => self.restore(&request, say),
            Request::Publish(opening) => self.publish(&opening).map(Answer::Published),
            Request::Check(request) => self.check(&request, say).map(|()| Answer::Done),
            Request::Conflicts(request) => self.conflicts(&request, say).map(|()| Answer::Done),
            Request::Resolve(request) => self.resolve(&request).map(Answer::Resolved),
            Request::Settings(opening) => self.settings(&opening).map(Answer::Settings),
            Request::SetSettings(request) => self.set_settings(&request).map(|()| Answer::Done),
            Request::Members(opening) => self.members(&opening).map(Answer::Members),
            Request::SetMember(request) => self.set_member(&request).map(|()| Answer::Done),
            Request::Invite(request) => self.invite(&request).map(Answer::Invite),
            Request::Join(request) => self.join(&request, say).map(Answer::Joined),
            Request::FindInviter(request) => {
                self.find_inviter(&request, say).map(Answer::InviterFound)
            }
            Request::Rejoin(request) => self.rejoin(&request, say).map(Answer::Rejoined),
            Request::Peers => Ok(Answer::Peers(self.peers())),
            Request::Sync(request) => self.sync(&request, say).map(Answer::Synced),
            Request::ChangePassphrase(request) => {
                self.change_passphrase(&request).map(|()| Answer::Done)
            }
            Request::Drop(request) => self.drop_bucket(&request, say).map(|()| Answer::Done),
            Request::Stop => unreachable!("answered by the main thread"),
        }
    }

    fn status(&self, save: bool) -> Vec<MountReport> {
        let all = self.table.all();
        if !save {
            return all.iter().map(|served| self.report(served)).collect();
        }
        // All at once: buckets on different disks do not wait for each other.
        let saves: Vec<_> = all.iter().map(|served| begin_save(served)).collect();
        let saved = all.iter().zip(saves);
        saved.filter_map(|(served, answer)| self.saved(served, answer)).collect()
    }

    /// How a mount fares once all of it is saved; none of one that ended and lost nothing.
    fn saved(&self, served: &Served, mut answer: Receiver<CoreResult<()>>) -> Option<MountReport> {
        for _ in 1..SAVES_MAX {
            let report = self.report_saved(served, &answer)?;
            let is_ending = report.detached && report.trouble.is_none();
            if !is_ending || report.is_safe() {
                return Some(report);
            }
            // Of what others have unmounted the last changes may come after the save.
            answer = begin_save(served);
        }
        self.report_saved(served, &answer)
    }

    /// How a mount fares after one save.
    fn report_saved(
        &self,
        served: &Served,
        answer: &Receiver<CoreResult<()>>,
    ) -> Option<MountReport> {
        let failed = match answer.recv() {
            Ok(Ok(())) => None,
            // Nobody unmounts it, so nobody would end it either.
            Ok(Err(CoreError::Stopped)) | Err(_) if self.is_served(served) => {
                Some("what saves has ended: unmount it with '--discard'".to_owned())
            }
            // It is being unmounted, which saves what it can. If that is all, it is gone.
            Ok(Err(CoreError::Stopped)) | Err(_) => {
                // Fails when the mount has ended, which is what is waited for.
                served.ended.recv().ok();
                Some(served.lost.get()?.clone())
            }
            Ok(Err(err)) => Some(err.to_string()),
        };
        let mut report = self.report(served);
        report.trouble = report.trouble.or(failed.map(Trouble::SaveFailed));
        Some(report)
    }

    fn is_served(&self, served: &Served) -> bool {
        self.table.find(&served.bucket).is_some_and(|it| ptr::eq(&*it, served))
    }

    fn report(&self, served: &Served) -> MountReport {
        self.remember(&served.bucket, &served.mount);
        served.report()
    }
}

fn begin_save(served: &Served) -> Receiver<CoreResult<()>> {
    let (done, saved) = bounded(1);
    served.mount.save(Box::new(move |result| tell(&done, result)));
    saved
}
