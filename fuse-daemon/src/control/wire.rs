//! How it is said: a greeting of fixed length, then frames of `u32` length and postcard.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// Longest frame in bytes; a longer one is an error before it is read.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// Longest request in bytes: some thousand contested names with the ids of their versions.
const MAX_REQUEST_BYTES: usize = 256 << 10;

const MAGIC: [u8; 8] = *b"cairnfs\0";

/// What both sides say first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    /// The protocol, raised whenever a message changes.
    pub(crate) protocol: u32,
    /// Who speaks.
    pub(crate) pid: u32,
}

impl Hello {
    /// The protocol of this program.
    pub(crate) const PROTOCOL: u32 = 9;

    /// What this process says.
    pub(crate) fn ours() -> Self {
        Self { protocol: Self::PROTOCOL, pid: std::process::id() }
    }

    pub(crate) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.protocol.to_le_bytes());
        bytes[12..].copy_from_slice(&self.pid.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: [u8; 16]) -> Option<Self> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, p0, p1, p2, p3, i0, i1, i2, i3] = bytes;
        ([m0, m1, m2, m3, m4, m5, m6, m7] == MAGIC).then_some(Self {
            protocol: u32::from_le_bytes([p0, p1, p2, p3]),
            pid: u32::from_le_bytes([i0, i1, i2, i3]),
        })
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Channel<S = UnixStream> {
    stream: S,
}

impl<S: Read + Write> Channel<S> {
    /// Over a connected socket.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream }
    }

    /// The socket.
    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Says hello and hears who is there.
    pub(crate) fn greet(&mut self) -> io::Result<Hello> {
        self.stream.write_all(&Hello::ours().encode())?;
        let mut bytes = [0; 16];
        self.stream.read_exact(&mut bytes)?;
        Hello::decode(bytes).ok_or_else(|| garbage("no greeting"))
    }

    /// Sends one message.
    pub(crate) fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let body = postcard::to_stdvec(message).map_err(garbage)?;
        self.send_frame(&body)
    }

    /// Sends one message of which no copy may stay in memory.
    pub(crate) fn send_secret<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut buffer = Zeroizing::new(vec![0; MAX_REQUEST_BYTES]);
        let body = postcard::to_slice(message, &mut buffer).map_err(garbage)?;
        self.send_frame(body)
    }

    fn send_frame(&mut self, body: &[u8]) -> io::Result<()> {
        let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME_BYTES);
        let len = len.ok_or_else(|| garbage("message too long"))?;
        self.stream.write_all(&len.to_le_bytes())?;
        self.stream.write_all(body)
    }

    /// Waits for one message.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.receive_up_to(MAX_FRAME_BYTES)
    }

    /// Waits for one message that is short, and of which no copy may stay in memory.
    pub(crate) fn receive_secret<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.receive_up_to(MAX_REQUEST_BYTES)
    }

    fn receive_up_to<T: DeserializeOwned>(&mut self, max_bytes: usize) -> io::Result<T> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = usize::try_from(u32::from_le_bytes(len)).map_err(garbage)?;
        if len > max_bytes {
            return Err(garbage("message too long"));
        }
        let mut body = Zeroizing::new(vec![0; len]);
        self.stream.read_exact(&mut body)?;
        decode(&body)
    }
}

/// The message in the body of a frame.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    postcard::from_bytes(body).map_err(garbage)
}

fn garbage(err: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

    use super::*;
    use crate::control::{Event, Opening, Progress, Request};
    use crate::secret::Secret;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one), Channel::new(other))
    }

    #[test]
    fn a_greeting_tells_protocol_and_process() {
        let (mut one, mut other) = pair();
        other.stream.write_all(&Hello { protocol: 7, pid: 9 }.encode()).unwrap();
        assert_eq!(one.greet().unwrap(), Hello { protocol: 7, pid: 9 });
        assert_eq!(other.greet().unwrap(), Hello::ours());
        let (mut one, mut other) = pair();
        other.stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert_eq!(one.greet().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (mut one, mut other) = pair();
        let opening =
            Opening { bucket: "b".parse().unwrap(), secret: Some(Secret::new(b"word".to_vec())) };
        one.send_secret(&Request::Publish(opening)).unwrap();
        let Request::Publish(opening) = other.receive_secret().unwrap() else {
            panic!("another request")
        };
        assert_eq!(opening.secret.unwrap().expose(), b"word");
        other.send(&Event::Progress(Progress::Checking { done: 1, total: 2 })).unwrap();
        assert!(matches!(one.receive().unwrap(), Event::Progress(_)));
    }

    #[test]
    fn a_path_arrives_whatever_its_bytes_are() {
        let (mut one, mut other) = pair();
        let dir = Path::new(OsStr::from_bytes(b"/m\xff"));
        one.send_secret(&Request::AwaitEnd(dir.to_owned())).unwrap();
        let Request::AwaitEnd(got) = other.receive_secret().unwrap() else {
            panic!("another request")
        };
        assert_eq!(got, dir);
    }

    #[test]
    fn garbage_is_an_error_and_takes_no_memory() {
        let (mut one, mut other) = pair();
        one.stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
        let err = other.receive::<Event>().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidData);
        one.send_frame(&[0xff; 30]).unwrap();
        let err = other.receive::<Event>().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidData);
        drop(one);
        let err = other.receive::<Event>().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof);
    }
}
