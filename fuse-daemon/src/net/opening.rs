//! From a socket to a connection of which both sides know who is on the other one.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::Connection;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Net, frame,
    frame::FrameError,
    link::{Incoming, Link, LinkError, Patience},
    message::{Greeting, PROTOCOL},
    removal,
    session::Opened,
    tls::{self, PeerKey},
};
use crate::{exit::plain, home::BucketName};

/// Exported from TLS, so that it is the same on both sides and different on each connection.
const CHALLENGE_LABEL: &[u8] = b"EXPORTER-cairnfs-bucket-mark";

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("{}", plain(.0))]
    Connect(io::Error),
    #[error("it does not answer")]
    Silent,
    #[error("another device answers there")]
    OtherDevice,
    #[error("the encrypted connection failed: {0}")]
    Tls(String),
    #[error("what answers there is no cairnfs")]
    Foreign,
    #[error("the peer speaks protocol {theirs}, this program {PROTOCOL}: update the older one")]
    Protocol { theirs: u32 },
    #[error("the peer closed the connection: it has not opened a bucket that both have")]
    NotAdmitted,
    #[error("{}", removed(.0))]
    Removed(Vec<BucketName>),
    #[error("{0}")]
    Link(LinkError),
}

fn removed(buckets: &[BucketName]) -> String {
    match buckets {
        [] => OpenError::NotAdmitted.to_string(),
        some => some.iter().map(removal::said).collect::<Vec<_>>().join("; "),
    }
}

impl From<LinkError> for OpenError {
    fn from(err: LinkError) -> Self {
        match err {
            LinkError::Closed => Self::NotAdmitted,
            LinkError::Silent | LinkError::Stalled => Self::Silent,
            // The other side said so after it had seen our key or we theirs.
            LinkError::Tls(rustls::Error::AlertReceived(alert)) => {
                Self::Tls(format!("the peer says {alert:?}"))
            }
            err => Self::Link(err),
        }
    }
}

impl From<FrameError> for OpenError {
    fn from(err: FrameError) -> Self {
        Self::Link(err.into())
    }
}

fn of_handshake(err: io::Error) -> OpenError {
    match err.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => OpenError::Silent,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            OpenError::Tls("the peer closed it".into())
        }
        io::ErrorKind::InvalidData => {
            let cause = err.into_inner().and_then(|err| err.downcast::<rustls::Error>().ok());
            match cause.as_deref() {
                Some(rustls::Error::InvalidCertificate(
                    rustls::CertificateError::ApplicationVerificationFailure,
                )) => OpenError::OtherDevice,
                Some(rustls::Error::InvalidMessage(_)) => OpenError::Foreign,
                Some(err) => OpenError::Tls(err.to_string()),
                None => OpenError::Foreign,
            }
        }
        _ => OpenError::Connect(err),
    }
}

impl Net {
    /// Connects to the device `key` at `address`, up to its greeting and ours.
    pub(super) fn connect(&self, key: PeerKey, address: SocketAddr) -> Result<Opened, OpenError> {
        let deadline = Instant::now() + self.timing.handshake;
        let socket = TcpStream::connect_timeout(&address, self.timing.connect)
            .map_err(OpenError::Connect)?;
        let tls = self.tls.dial(key).map_err(|err| OpenError::Tls(err.to_string()))?;
        let mut opened = self.open(Arc::new(socket), tls, address, true, deadline)?;
        let theirs = opened.receive_greeting(deadline)?;
        opened.send_bytes(&Greeting { protocol: PROTOCOL }.encode())?;
        check(theirs)?;
        Ok(opened)
    }

    /// Takes a connection that somebody made, up to their greeting.
    pub(super) fn take(
        &self,
        socket: Arc<TcpStream>,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<Opened, OpenError> {
        let tls = self.tls.accept().map_err(|err| OpenError::Tls(err.to_string()))?;
        let mut opened = self.open(socket, tls, address, false, deadline)?;
        // A TLS 1.3 client believes that it is connected before its key was judged: this is how it
        // learns that it is.
        opened.send_bytes(&Greeting { protocol: PROTOCOL }.encode())?;
        check(opened.receive_greeting(deadline)?)?;
        Ok(opened)
    }

    pub(super) fn open(
        &self,
        socket: Arc<TcpStream>,
        mut tls: Connection,
        address: SocketAddr,
        dialled: bool,
        deadline: Instant,
    ) -> Result<Opened, OpenError> {
        let prepare = || {
            socket.set_nodelay(true)?;
            // Unanswered bytes end a connection whose other side has lost its power.
            let stall = u32::try_from(self.timing.stall.as_millis()).unwrap_or(u32::MAX);
            rustix::net::sockopt::set_tcp_user_timeout(&*socket, stall)?;
            Ok(())
        };
        prepare().map_err(OpenError::Connect)?;
        let key = tls::handshake(&mut tls, &socket, deadline).map_err(of_handshake)?;
        let challenge = tls
            .export_keying_material([0; 32], CHALLENGE_LABEL, None)
            .map_err(|err| OpenError::Tls(err.to_string()))?;
        let link = Link::new(socket, tls, self.timing.stall).map_err(OpenError::Connect)?;
        Ok(Opened { key, address, dialled, link, incoming: Incoming::new(), challenge })
    }
}

fn check(theirs: Greeting) -> Result<(), OpenError> {
    match theirs.protocol {
        PROTOCOL => Ok(()),
        theirs => Err(OpenError::Protocol { theirs }),
    }
}

impl Opened {
    fn send_bytes(&self, bytes: &[u8]) -> Result<(), OpenError> {
        self.link.send(bytes).map_err(|err| OpenError::Link(LinkError::Io(err)))
    }

    pub(super) fn receive_greeting(&mut self, deadline: Instant) -> Result<Greeting, OpenError> {
        let bytes = self.incoming.exactly(&self.link, Patience::until(deadline))?;
        Greeting::decode(bytes).ok_or(OpenError::Foreign)
    }

    /// Says something before there is a session.
    pub(super) fn send<T: Serialize>(&self, message: &T) -> Result<(), OpenError> {
        self.send_bytes(&frame::encode(message))
    }

    /// Hears something of at most `max` bytes before there is a session.
    pub(super) fn receive<T: DeserializeOwned>(
        &mut self,
        max: usize,
        deadline: Instant,
    ) -> Result<T, OpenError> {
        let body = self.incoming.next(&self.link, &|| max, Patience::until(deadline))?;
        Ok(frame::decode(&body)?)
    }

    /// Closes it when everything was said, and waits a moment for the other side to do so: what
    /// was said would be lost if it had sent something that was not read.
    pub(super) fn finish(mut self) {
        self.link.close_politely();
        let moment = Patience::until(Instant::now() + Duration::from_millis(500));
        // Whatever comes now is of no interest.
        drop(self.incoming.next(&self.link, &|| 0, moment));
        self.link.close();
    }
}
