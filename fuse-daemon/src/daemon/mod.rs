//! The daemon: the one process that serves all mounts of a home.
//!
//! ```text
//!   signals ---+                                   +--> fuse sessions
//!   accept --> control-N ...  --- Daemon::table ---+
//!   fuse ------+                                   +--> mount-core, one writer for each mount
//!              v
//!            Happening --[bounded]--> main: ends what ended, and at last everything
//! ```
//!
//! | thread | does | ends |
//! |---|---|---|
//! | main | [`Running::serve`]: waits for a [`Happening`] | after the last unmount |
//! | `signals` | turns SIGTERM and SIGINT into a happening | with the process |
//! | `accept` | waits for verbs on the socket | with the process |
//! | `at-start` | mounts what is to be mounted at start | when it has, or with the process |
//! | `control-N` | answers one request each, at most [`serve::CONNECTIONS_MAX`] | with its connection |
//!
//! Nothing wakes up by itself: all of them block until something happens.
//!
//! # Invariants
//!
//! 1. A home has at most one daemon: it holds `run/daemon.lock` from before it makes the socket
//!    until it has ended.
//! 2. A bucket is opened by at most one thread at a time: whoever opens it holds its place in the
//!    [`table`].
//! 3. What was written is saved before a mount is given up, or its owner is told what is lost.

mod dropping;
mod ending;
mod keeping;
mod leftovers;
mod losing;
mod meeting;
mod mounting;
mod protecting;
mod rejoining;
mod remarking;
mod repairing;
mod serve;
mod sharing;
mod starting;
mod supervisor;
mod table;
mod viewing;
mod visiting;

use std::{io, sync::Arc, thread, time::Duration};

use cairnfs_store::keys::DeviceKey;
use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    control::{Answer, Event, Listener, MountRequest, ViewReport, ViewRequest},
    exit::{Code, Failure, Result},
    home::Home,
    lock::{Holder, LockFile},
    net::{Net, NetOptions},
    tell::tell,
};

pub(crate) use mounting::refused;

use losing::Losses;
use serve::Seats;
use starting::NotMounted;
use table::Table;

/// Happenings that wait for the main thread; whoever has one more waits too.
const HAPPENINGS_MAX: usize = 64;

/// How long the end waits for answers that are still to be given: what was done is noted on a disk that may
/// be slow.
const ANSWERING: Duration = Duration::from_secs(5);

/// What the main thread waits for.
#[derive(Debug)]
enum Happening {
    /// The system or a person wants the daemon to end.
    Signal,
    /// A verb wants it to end, and wants to hear how it goes.
    Stop(Sender<Event>),
    /// The kernel's side of a mount is over.
    SessionEnded(u64),
    /// A verb has unmounted or mounted something, or is done with a bucket.
    Freed,
    /// What is to be mounted at start is mounted, or cannot be.
    Started,
}

/// What the main thread is there for, unless the daemon is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Awaited {
    Started,
    End(Until),
}

/// What the threads share.
#[derive(Debug)]
struct Daemon {
    home: Home,
    device: Arc<DeviceKey>,
    /// What others are told that this device is called.
    device_name: String,
    net: Arc<Net>,
    table: Table,
    not_mounted: NotMounted,
    losses: Losses,
    happenings: Sender<Happening>,
    seats: Seats,
}

/// A daemon that can be talked to.
#[derive(Debug)]
pub(crate) struct Running {
    shared: Arc<Daemon>,
    inbox: Receiver<Happening>,
    /// Whether what is not mounted is kept for other devices.
    keeps: bool,
    /// Whether it is to end.
    told: bool,
    /// Who hears how that goes.
    listener: Option<Sender<Event>>,
    // Field order is drop order: the lock goes last (invariant 1).
    _lock: LockFile,
}

/// When a daemon ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// Never.
    Stopped,
    /// When nothing is mounted any more.
    NothingMounted,
}

impl Running {
    /// Takes the home and opens the sockets; none if another process has it.
    pub(crate) fn start(home: Home, net: NetOptions) -> Result<Result<Self, Holder>> {
        home.prepare()?;
        let lock = match LockFile::take(&home.daemon_lock())? {
            Ok(lock) => lock,
            Err(holder) => return Ok(Err(holder)),
        };
        if let Err(failure) = leftovers::remove(&home) {
            // It takes space and does no other harm.
            log::warn!("leftover reason={:?}", failure.message);
        }
        // From here on a signal is a happening.
        let (happenings, inbox) = bounded(HAPPENINGS_MAX);
        watch_signals(happenings.clone())
            .map_err(|err| Failure::io("cannot watch for signals", &err))?;
        let run_dir = home.run_dir();
        let shared = Arc::new(Daemon::new(home, net, happenings)?);
        let listener = Listener::bind(&run_dir)
            .map_err(|err| Failure::file("open the socket in", &run_dir, &err))?;
        shared.clear_away_all();
        serve::start(Arc::clone(&shared), listener)
            .map_err(|err| Failure::io("cannot start a thread", &err))?;
        log::info!("daemon pid={} version={}", std::process::id(), env!("CARGO_PKG_VERSION"));
        Ok(Ok(Self { shared, inbox, keeps: false, told: false, listener: None, _lock: lock }))
    }

    /// Mounts one bucket.
    pub(crate) fn mount(&self, request: &MountRequest) -> Result<()> {
        self.shared.mount(request, &mut ending::logged)
    }

    /// Mounts an older version.
    pub(crate) fn view(&self, request: &ViewRequest) -> Result<ViewReport> {
        self.shared.view(request, &mut ending::logged)
    }

    /// From now on keeps for other devices what is not mounted here and needs no passphrase.
    pub(crate) fn keep_unmounted(&mut self) {
        self.keeps = true;
        if !self.told {
            self.shared.keep_rest();
        }
    }

    /// Serves until it is told to end, or as `until` says; then saves, publishes and unmounts.
    ///
    /// # Errors
    ///
    /// [`Code::Unsaved`] if something could not be saved.
    pub(crate) fn serve(mut self, until: Until) -> Result<()> {
        supervisor::ready(self.shared.table.len());
        self.wait_for(Awaited::End(until));
        self.end()
    }

    /// Sees to what happens until what is awaited has, or the daemon is to end.
    fn wait_for(&mut self, awaited: Awaited) {
        while !self.told
            && (awaited != Awaited::End(Until::NothingMounted) || !self.shared.table.is_empty())
        {
            match self.inbox.recv() {
                Ok(Happening::SessionEnded(serial)) => self.shared.session_ended(serial),
                Ok(Happening::Freed) => (),
                Ok(Happening::Started) if awaited == Awaited::Started => return,
                Ok(Happening::Started) => (),
                Ok(Happening::Stop(sender)) => {
                    self.told = true;
                    self.listener = Some(sender);
                    return;
                }
                Ok(Happening::Signal) | Err(_) => {
                    self.told = true;
                    return;
                }
            }
            if self.keeps {
                self.shared.keep_rest();
            }
            if awaited != Awaited::Started {
                supervisor::serving(self.shared.table.len());
            }
        }
    }

    /// Ends at once: saves, publishes, unmounts.
    pub(crate) fn end(self) -> Result<()> {
        supervisor::stopping();
        let ended = self.shared.end_all(&mut |event| {
            supervisor::still_saving();
            match &self.listener {
                // Whoever stopped listening does not stop the end.
                Some(sender) => tell(sender, event),
                None => return ending::logged(event),
            }
            true
        });
        self.shared.net.stop();
        // The socket stays: only the holder of the lock may remove it, and the next one does.
        log::info!("daemon-ended saved={}", ended.is_ok());
        let end = || Event::End(ended.clone().map(|()| Answer::Done));
        if let Some(sender) = &self.listener {
            tell(sender, end());
        }
        // Others who want the same hear it too; who comes later sees the daemon go.
        for happening in self.inbox.try_iter() {
            if let Happening::Stop(sender) = happening {
                tell(&sender, end());
            }
        }
        drop(self.inbox);
        self.shared.seats.wait_until_answered(ANSWERING);
        ended
    }
}

impl Daemon {
    fn new(home: Home, net: NetOptions, happenings: Sender<Happening>) -> Result<Self> {
        let device = Arc::new(home.device_key()?);
        let device_name = net.device_name.clone();
        let net = Net::start(&home, Arc::clone(&device), net)?;
        Ok(Self {
            home,
            device,
            device_name,
            net,
            table: Table::default(),
            not_mounted: NotMounted::default(),
            losses: Losses::default(),
            happenings,
            seats: Seats::default(),
        })
    }
}

#[cfg(test)]
impl Daemon {
    /// That of a new home in `dir`, and what it tells the main thread, which there is none of.
    fn for_test(dir: &std::path::Path) -> (Self, Receiver<Happening>) {
        let home = Home::locate(Some(dir)).unwrap();
        home.prepare().unwrap();
        let (happenings, inbox) = bounded(8);
        let net = NetOptions { device_name: "a test".into(), ..NetOptions::default() };
        let daemon = Self::new(home, net, happenings).unwrap();
        (daemon, inbox)
    }
}

/// The refusal of a second daemon.
pub(crate) fn already_served(holder: Holder) -> Failure {
    let who = match holder {
        Holder::Process(pid) => format!("process {pid}"),
        Holder::Unknown => "a process that is just starting".to_owned(),
    };
    Failure::new(
        Code::InUse,
        format_args!("a daemon serves this home already: {who} ('cairnfs stop' ends it)"),
    )
}

fn watch_signals(happenings: Sender<Happening>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let mut told = false;
    let watch = move || {
        for signal in signals.forever() {
            match signal {
                // Sent when a terminal closes or a log is rotated: neither is a reason to end.
                SIGHUP => log::info!("signal hup=ignored"),
                _ if told => log::warn!("signal ignored=yes reason=\"still saving\""),
                _ => {
                    told = true;
                    log::info!("signal number={signal}");
                    // Nobody receives it only when the daemon ends anyway.
                    tell(&happenings, Happening::Signal);
                }
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}
