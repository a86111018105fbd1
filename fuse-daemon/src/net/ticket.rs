//! Tickets: one line that lets another device in.
//!
//! `cairnfs1-` and base32 (RFC 4648's letters in lower case, no padding) of: bucket id (16),
//! device key (32), secret (16), until when in seconds since 1970 (8), the addresses (one byte 4 or
//! 6, the address, the port), and the first 5 bytes of BLAKE3 of all that. Numbers are
//! little-endian. White space, case and hyphens within are of no meaning.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{
    fmt, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cairnfs_mount_core::BucketId;
use zeroize::Zeroizing;

use super::tls::PeerKey;
use crate::exit::{Code, Failure};

const PREFIX: &str = "cairnfs1";
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const CHECK_BYTES: usize = 5;
/// Longest text that is looked at.
const TEXT_MAX: usize = 1024;
/// More addresses make the line too long to read out.
pub(super) const ADDRESSES_MAX: usize = 8;

/// What proves that its holder was invited: 128 bits.
pub(super) type TicketSecret = Zeroizing<[u8; 16]>;

/// What is in a ticket. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) bucket: BucketId,
    pub(super) device: PeerKey,
    pub(super) secret: TicketSecret,
    pub(super) until: SystemTime,
    /// Where to find the device, best first.
    pub(super) addresses: Vec<SocketAddr>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.bucket)
    }
}

/// The text is no ticket.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadTicket {
    #[error("this is no ticket: a ticket begins with 'cairnfs1-'")]
    Foreign,
    #[error("this ticket is of a newer version of cairnfs than this one")]
    Newer,
    #[error("the ticket is mistyped or not complete")]
    Mistyped,
}

/// Which bucket a ticket is of, without looking whether it is good still.
///
/// # Errors
///
/// [`Code::WrongKey`] if it is none.
pub(crate) fn examine(text: &[u8]) -> Result<BucketId, Failure> {
    let ticket = str::from_utf8(text).unwrap_or_default().parse::<Ticket>();
    ticket.map(|ticket| ticket.bucket).map_err(|err| Failure::new(Code::WrongKey, err))
}

impl Ticket {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        bytes.extend_from_slice(&self.bucket.0);
        bytes.extend_from_slice(&self.device.0);
        bytes.extend_from_slice(&*self.secret);
        bytes.extend_from_slice(&seconds(self.until).to_le_bytes());
        for address in self.addresses.iter().take(ADDRESSES_MAX) {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&address.port().to_le_bytes());
        }
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, sum) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        if check(bytes) != *sum {
            return None;
        }
        let (bucket, bytes) = bytes.split_first_chunk()?;
        let (device, bytes) = bytes.split_first_chunk()?;
        let (secret, bytes) = bytes.split_first_chunk()?;
        let (until, mut bytes) = bytes.split_first_chunk()?;
        let until = UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_le_bytes(*until)))?;
        let mut addresses = Vec::new();
        while let Some((kind, rest)) = bytes.split_first() {
            let (ip, rest) = match kind {
                4 => {
                    let (octets, rest) = rest.split_first_chunk::<4>()?;
                    (IpAddr::from(Ipv4Addr::from(*octets)), rest)
                }
                6 => {
                    let (octets, rest) = rest.split_first_chunk::<16>()?;
                    (IpAddr::from(Ipv6Addr::from(*octets)), rest)
                }
                _ => return None,
            };
            let (port, rest) = rest.split_first_chunk()?;
            addresses.push(SocketAddr::new(ip, u16::from_le_bytes(*port)));
            bytes = rest;
        }
        Some(Self {
            bucket: BucketId(*bucket),
            device: PeerKey(*device),
            secret: Zeroizing::new(*secret),
            until,
            addresses,
        })
    }

    /// The line for people.
    pub(super) fn to_line(&self) -> String {
        format!("{PREFIX}-{}", base32(&self.encode()))
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let letters: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .filter(|c| !c.is_whitespace())
                .map(|c| c.to_ascii_lowercase())
                .take(TEXT_MAX)
                .collect(),
        );
        let Some(body) = letters.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-'))
        else {
            let newer = letters.strip_prefix("cairnfs").is_some_and(|rest| {
                rest.split_once('-').is_some_and(|(number, _)| number.parse::<u32>().is_ok())
            });
            return Err(if newer { BadTicket::Newer } else { BadTicket::Foreign });
        };
        let bytes = from_base32(body).ok_or(BadTicket::Mistyped)?;
        Self::decode(&bytes).ok_or(BadTicket::Mistyped)
    }
}

/// Whole seconds since 1970, rounded down.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut sum = [0; CHECK_BYTES];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut sum);
    sum
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(5) {
        let five = group.iter().copied().chain(iter::repeat(0)).take(5);
        let bits = five.fold(0_u64, |bits, byte| (bits << 8) | u64::from(byte));
        let count = group.len().saturating_mul(8).div_ceil(5);
        for index in 0..count {
            let shift = 35_usize.saturating_sub(index.saturating_mul(5));
            let letter = usize::try_from((bits >> shift) & 31).unwrap_or(0);
            text.push(char::from(LETTERS.get(letter).copied().unwrap_or(b'a')));
        }
    }
    text
}

fn from_base32(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text.bytes().filter(|letter| *letter != b'-') {
        let value = LETTERS.iter().position(|one| *one == letter)?;
        bits = (bits << 5) | u32::try_from(value).ok()?;
        count = count.saturating_add(5);
        if count >= 8 {
            count = count.saturating_sub(8);
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
            bits &= (1_u32 << count).saturating_sub(1);
        }
    }
    // What is left over is padding.
    (bits == 0 && count < 5).then_some(bytes)
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may fail this way"
)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            bucket: BucketId([7; 16]),
            device: PeerKey([8; 32]),
            secret: Zeroizing::new([9; 16]),
            until: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            addresses: vec![
                "192.168.1.20:40123".parse().unwrap(),
                "[fd00::1]:40123".parse().unwrap(),
            ],
        }
    }

    #[test]
    fn a_ticket_is_one_line_that_reads_back() {
        let line = ticket().to_line();
        assert!(line.starts_with("cairnfs1-") && line.len() < 200, "{line}");
        assert_eq!(line.parse(), Ok(ticket()));
        let typed = format!("  {}\n{} ", line[..30].to_uppercase(), &line[30..]);
        assert_eq!(typed.parse(), Ok(ticket()));
    }

    #[test]
    fn every_wrong_letter_is_noticed() {
        let line = ticket().to_line();
        for at in "cairnfs1-".len()..line.len() {
            let mut letters = line.clone().into_bytes();
            letters[at] = if letters[at] == b'q' { b'w' } else { b'q' };
            let typed = String::from_utf8(letters).unwrap();
            assert_eq!(typed.parse::<Ticket>(), Err(BadTicket::Mistyped), "letter {at}");
        }
        for len in "cairnfs1-".len()..line.len() {
            assert_eq!(line[..len].parse::<Ticket>(), Err(BadTicket::Mistyped), "{len} letters");
        }
        for bad in [&b"photos"[..], b"cairnfs1-abcd", b"\xff"] {
            assert_eq!(examine(bad).map_err(|failure| failure.code), Err(Code::WrongKey));
        }
        assert_eq!(examine(line.as_bytes()), Ok(ticket().bucket));
        assert_eq!("".parse::<Ticket>(), Err(BadTicket::Foreign));
        assert_eq!("photos".parse::<Ticket>(), Err(BadTicket::Foreign));
        assert_eq!("cairnfs2-abcd".parse::<Ticket>(), Err(BadTicket::Newer));
    }

    #[test]
    fn base32_is_that_of_the_standard() {
        // RFC 4648, section 10.
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(bytes.as_bytes()), text);
            assert_eq!(from_base32(text).unwrap().as_slice(), bytes.as_bytes());
        }
        assert!(from_base32("m1").is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", ticket()).contains("9, 9"));
    }
}
