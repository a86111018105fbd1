//! An encrypted connection: frames out, frames in, each side of it on a thread of its own.
//!
//! The lock over the TLS state is held to encrypt and to decrypt, never while the socket waits.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::Connection;

use super::frame::{FrameError, Frames};

/// Bytes encrypted or read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the connection was closed")]
    Closed,
    #[error("the peer stalled in the middle of a message")]
    Stalled,
    #[error("nothing was heard for too long")]
    Silent,
    #[error("{}", crate::exit::plain(.0))]
    Io(io::Error),
    #[error("the encryption failed: {0}")]
    Tls(rustls::Error),
    #[error("the peer sent {0}")]
    Frame(#[from] FrameError),
}

/// How long to wait for what comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the next message to begin.
    pub(super) between: Duration,
    /// For more of a message that has begun.
    pub(super) within: Duration,
    /// For all of it.
    pub(super) until: Option<Instant>,
}

impl Patience {
    /// Everything must have come by `deadline`.
    pub(super) fn until(deadline: Instant) -> Self {
        Self { between: Duration::MAX, within: Duration::MAX, until: Some(deadline) }
    }
}

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Link {
    socket: Arc<TcpStream>,
    tls: Mutex<Connection>,
    /// Encrypted bytes on their way; held until they are sent, as their order matters.
    sending: Mutex<Vec<u8>>,
    /// These count only; nothing is ordered by them.
    sent: AtomicU64,
    received: AtomicU64,
}

impl Link {
    /// Over a socket whose handshake is done. A write that gets nowhere for `stall` fails.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        mut tls: Connection,
        stall: Duration,
    ) -> io::Result<Self> {
        socket.set_write_timeout(Some(stall))?;
        // What is waiting is bounded by who sends.
        tls.set_buffer_limit(None);
        let sending = Mutex::new(Vec::new());
        let [sent, received] = [AtomicU64::new(0), AtomicU64::new(0)];
        Ok(Self { socket, tls: Mutex::new(tls), sending, sent, received })
    }

    /// Sends all of `frame`; only one thread does so at a time.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut sending = self.sending.lock();
        for piece in frame.chunks(PIECE_BYTES) {
            let mut tls = self.tls.lock();
            tls.writer().write_all(piece)?;
            while tls.wants_write() {
                tls.write_tls(&mut *sending)?;
            }
            drop(tls);
            let written = (&*self.socket).write_all(&sending);
            self.sent.fetch_add(sending.len() as u64, Ordering::Relaxed);
            sending.clear();
            written?;
        }
        sending.shrink_to(PIECE_BYTES * 2);
        Ok(())
    }

    /// Ends the connection for both threads and the other side.
    pub(super) fn close(&self) {
        // It may be closed already.
        self.socket.shutdown(Shutdown::Both).ok();
    }

    /// Says a last goodbye, so that the other side knows that nothing was cut off.
    pub(super) fn close_politely(&self) {
        let Some(mut sending) = self.sending.try_lock() else { return self.close() };
        let mut tls = self.tls.lock();
        tls.send_close_notify();
        let said = tls.write_tls(&mut *sending).and_then(|_| (&*self.socket).write_all(&sending));
        if said.is_ok() {
            self.socket.shutdown(Shutdown::Write).ok();
        } else {
            self.close();
        }
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// The receiving end, owned by one thread.
#[derive(Debug)]
pub(super) struct Incoming {
    frames: Frames,
    cipher: Vec<u8>,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self { frames: Frames::default(), cipher: vec![0; PIECE_BYTES] }
    }

    /// The body of the next frame, of at most `max()` bytes; asked whenever something has come, as
    /// more is allowed when something was asked for meanwhile.
    pub(super) fn next(
        &mut self,
        link: &Link,
        max: &dyn Fn() -> usize,
        patience: Patience,
    ) -> Result<Vec<u8>, LinkError> {
        loop {
            self.decrypted(link)?;
            if let Some(body) = self.frames.next(max())? {
                return Ok(body);
            }
            self.read(link, patience)?;
        }
    }

    /// The next `N` bytes, which are no frame.
    pub(super) fn exactly<const N: usize>(
        &mut self,
        link: &Link,
        patience: Patience,
    ) -> Result<[u8; N], LinkError> {
        loop {
            self.decrypted(link)?;
            if let Some(bytes) = self.frames.take_bytes() {
                return Ok(bytes);
            }
            self.read(link, patience)?;
        }
    }

    /// Reads from the socket once and decrypts.
    fn read(&mut self, link: &Link, patience: Patience) -> Result<(), LinkError> {
        let amid = self.frames.is_amid();
        let late = || if amid { LinkError::Stalled } else { LinkError::Silent };
        let mut wait = if amid { patience.within } else { patience.between };
        if let Some(until) = patience.until {
            wait = wait.min(until.saturating_duration_since(Instant::now()));
        }
        if wait.is_zero() {
            return Err(late());
        }
        link.socket.set_read_timeout(Some(wait)).map_err(LinkError::Io)?;
        let len = match (&*link.socket).read(&mut self.cipher) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(len) => len,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(err) => {
                return Err(match err.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => LinkError::Closed,
                    _ => LinkError::Io(err),
                });
            }
        };
        link.received.fetch_add(len as u64, Ordering::Relaxed);
        let mut cipher = &self.cipher[..len];
        let mut tls = link.tls.lock();
        while !cipher.is_empty() {
            let taken = tls.read_tls(&mut cipher).map_err(LinkError::Io)?;
            tls.process_new_packets().map_err(LinkError::Tls)?;
            match drain(&mut tls, &mut self.frames) {
                // What came before the goodbye is looked at first.
                Err(LinkError::Closed) => break,
                other => other?,
            }
            if taken == 0 {
                return Err(LinkError::Closed);
            }
        }
        Ok(())
    }

    /// Takes what was decrypted already, such as what came together with the handshake.
    fn decrypted(&mut self, link: &Link) -> Result<(), LinkError> {
        match drain(&mut link.tls.lock(), &mut self.frames) {
            // What came before the goodbye is still good.
            Err(LinkError::Closed) if self.frames.is_amid() => Ok(()),
            other => other,
        }
    }
}

fn drain(tls: &mut Connection, frames: &mut Frames) -> Result<(), LinkError> {
    let mut piece = [0; 16 << 10];
    loop {
        match tls.reader().read(&mut piece) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(len) => frames.push(&piece[..len]),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(err) => return Err(LinkError::Io(err)),
        }
    }
}
