//! TLS 1.3 between two device keys: raw public keys (RFC 7250), no certificate, no name.
//!
//! # Invariants
//!
//! 1. After [`handshake`] the other side has proved that it holds the key that is returned.
//! 2. A device that dials proves nothing to another key than the one it dials.
//! 3. Nothing is resumed: each connection proves both keys anew, and no early data is taken.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Instant,
};

use cairnfs_store::{DeviceKey, keys};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct,
    DistinguishedName, Error, PeerIncompatible, ServerConfig, ServerConnection, SignatureAlgorithm,
    SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, Signer, SigningKey},
    version::TLS13,
};

/// The name of a device that is met here.
pub(super) use cairnfs_store::DevicePublicKey as PeerKey;

/// What a `SubjectPublicKeyInfo` of an Ed25519 key begins with (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Never sent (no SNI), but rustls wants one.
const NO_NAME: &str = "device.invalid";

fn spki_of(key: &PeerKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], &key.0].concat()
}

fn key_of(spki: &CertificateDer<'_>) -> Result<PeerKey, Error> {
    let key = spki.as_ref().strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
    key.map(PeerKey).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// This device's half of a handshake.
#[derive(Clone, Debug)]
struct Identity(Arc<DeviceKey>);

impl SigningKey for Identity {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let known = offered.contains(&SignatureScheme::ED25519);
        known.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki_of(&self.0.public()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Identity {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// What is asked of the other side's key: to be this one, or only to be proved.
#[derive(Debug)]
struct Expect(Option<PeerKey>);

impl Expect {
    fn key(&self, spki: &CertificateDer<'_>) -> Result<(), Error> {
        let key = key_of(spki)?;
        match self.0 {
            Some(expected) if expected != key => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(()),
        }
    }

    fn signature(
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = signed.scheme == SignatureScheme::ED25519
            && keys::verify(&key_of(spki)?, message, signed.signature());
        if valid {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
    }
}

/// Only TLS 1.3 is built in and asked for.
fn tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for Expect {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.key(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Expect {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.key(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What is the same for all connections of this device.
#[derive(Debug)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(device: &Arc<DeviceKey>) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let spki = CertificateDer::from(spki_of(&device.public()));
        let identity = Arc::new(Identity(Arc::clone(device)));
        let certified = Arc::new(CertifiedKey::new(vec![spki], identity));
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&certified));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(Expect(None)))
            .with_cert_resolver(Arc::new(resolver));
        // Invariant 3.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { provider, certified, server: Arc::new(server) })
    }

    /// A connection that somebody else made.
    pub(super) fn accept(&self) -> Result<Connection, Error> {
        ServerConnection::new(Arc::clone(&self.server)).map(Into::into)
    }

    /// A connection that this device makes to the device `key`, and to no other.
    pub(super) fn dial(&self, key: PeerKey) -> Result<Connection, Error> {
        let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.certified));
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Expect(Some(key))))
            .with_client_cert_resolver(Arc::new(resolver));
        client.enable_sni = false;
        // Invariant 3.
        client.resumption = Resumption::disabled();
        let name = ServerName::try_from(NO_NAME).expect("because it is a domain name");
        ClientConnection::new(Arc::new(client), name).map(Into::into)
    }
}

/// Finishes the handshake, for as long as there is time; says whose key the other side proved.
pub(super) fn handshake(
    tls: &mut Connection,
    socket: &TcpStream,
    deadline: Instant,
) -> io::Result<PeerKey> {
    let mut timed = Timed { socket, deadline };
    while tls.is_handshaking() {
        if tls.wants_write() {
            tls.write_tls(&mut timed)?;
        } else if tls.read_tls(&mut timed)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        } else if let Err(err) = tls.process_new_packets() {
            // The other side is told why, if it listens.
            tls.write_tls(&mut timed).ok();
            return Err(io::Error::new(io::ErrorKind::InvalidData, err));
        }
    }
    while tls.wants_write() {
        tls.write_tls(&mut timed)?;
    }
    let proved = tls.peer_certificates().and_then(|certificates| certificates.first());
    let proved = proved.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    key_of(proved).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
}

/// A socket all of whose calls must have ended by a moment.
#[derive(Debug)]
pub(super) struct Timed<'a> {
    pub(super) socket: &'a TcpStream,
    pub(super) deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<std::time::Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        (&*self.socket).read(buf)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        (&*self.socket).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread, time::Duration};

    use super::*;

    type Shaken = io::Result<(PeerKey, [u8; 32])>;

    /// Both sides' ends of a handshake in which the dialler expects `expected`.
    fn shake(dialler: &Tls, acceptor: &Tls, expected: PeerKey) -> (Shaken, Shaken) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let finish = move |mut tls: Connection, socket: TcpStream| {
            let key = handshake(&mut tls, &socket, deadline)?;
            let exported = tls.export_keying_material([0; 32], b"test", None).unwrap();
            Ok((key, exported))
        };
        thread::scope(|scope| {
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let dialled = scope.spawn(move || finish(dialler.dial(expected).unwrap(), socket));
            let (socket, _) = listener.accept().unwrap();
            let accepted = finish(acceptor.accept().unwrap(), socket);
            (dialled.join().unwrap(), accepted)
        })
    }

    fn device() -> (Arc<DeviceKey>, Tls) {
        let key = Arc::new(DeviceKey::generate().unwrap());
        let tls = Tls::new(&key).unwrap();
        (key, tls)
    }

    #[test]
    fn both_sides_learn_each_others_key_and_the_same_secret() {
        let [(one, one_tls), (other, other_tls)] = [device(), device()];
        let (dialled, accepted) = shake(&one_tls, &other_tls, other.public());
        let ((seen_by_one, exported), (seen_by_other, same)) =
            (dialled.unwrap(), accepted.unwrap());
        assert_eq!((seen_by_one, seen_by_other), (other.public(), one.public()));
        assert_eq!(exported, same);
    }

    #[test]
    fn who_dials_one_key_does_not_talk_to_another() {
        let [(_, one_tls), (_, other_tls), (third, _)] = [device(), device(), device()];
        let (dialled, accepted) = shake(&one_tls, &other_tls, third.public());
        assert_eq!(dialled.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(accepted.is_err());
    }

    #[test]
    fn a_silent_socket_ends_with_the_deadline() {
        let (_, tls) = device();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        let err = handshake(&mut tls.accept().unwrap(), &socket, deadline).unwrap_err();
        assert!(matches!(err.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock));
    }
}
