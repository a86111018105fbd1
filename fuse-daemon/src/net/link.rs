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

use rustix::net::SendFlags;
use rustls::Connection;

use super::frame::{FrameError, Frames};
use crate::order::{self, Mutex};

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
    tls: Mutex<Connection, order::Tls>,
    /// Encrypted bytes on their way; held until they are sent, as their order matters.
    sending: Mutex<Vec<u8>, order::Sending>,
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

    /// Says a last goodbye, so that the other side knows that nothing was cut off. Does not wait:
    /// who takes nothing hears nothing.
    pub(super) fn close_politely(&self) {
        let Some(mut sending) = self.sending.try_lock() else { return self.close() };
        let mut tls = self.tls.lock();
        tls.send_close_notify();
        let encrypted = tls.write_tls(&mut *sending);
        drop(tls);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let said = encrypted.is_ok()
            && rustix::net::send(&*self.socket, &sending, flags) == Ok(sending.len());
        if said {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use cairnfs_store::DeviceKey;

    use super::*;
    use crate::net::tls::{self, Tls};

    /// Both ends of a connection.
    fn pair() -> [Link; 2] {
        let keys = [(); 2].map(|()| Arc::new(DeviceKey::generate().unwrap()));
        let [one, other] = keys.each_ref().map(|key| Tls::new(key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let finish = |mut tls: Connection, socket: TcpStream| {
            let deadline = Instant::now() + Duration::from_secs(30);
            tls::handshake(&mut tls, &socket, deadline).unwrap();
            Link::new(Arc::new(socket), tls, Duration::from_millis(50)).unwrap()
        };
        std::thread::scope(|scope| {
            let dialled = scope.spawn(|| finish(one.dial(keys[1].public()).unwrap(), socket));
            let accepted = finish(other.accept().unwrap(), accepted);
            [dialled.join().unwrap(), accepted]
        })
    }

    #[test]
    fn a_goodbye_is_the_end_and_no_cut() {
        let [one, other] = pair();
        one.close_politely();
        let mut incoming = Incoming::new();
        let patience = Patience::until(Instant::now() + Duration::from_secs(30));
        let ended = incoming.next(&other, &|| 100, patience).unwrap_err();
        assert!(matches!(ended, LinkError::Closed));
        assert_eq!(other.tls.lock().reader().read(&mut [0]).unwrap(), 0, "it was said");
    }

    #[test]
    fn a_goodbye_does_not_wait_for_who_takes_nothing() {
        let [one, _other] = pair();
        while one.send(&[0; PIECE_BYTES]).is_ok() {}
        // From here on whoever writes to the socket waits for ever.
        one.socket.set_write_timeout(None).unwrap();
        one.close_politely();
        assert!(one.send(b"too late").is_err());
    }
}
