//! What is said between two devices, and the bounds of it. FORMAT.md, "The wire", has the bytes.
//!
//! ```text
//!   dials                              accepts
//!     <---------- TLS 1.3 ------------>
//!     <- Greeting ---------------------     the first byte says that the handshake was accepted
//!     -- Greeting, Knock ------------->
//!     <- Admission --------------------     none if the key is unknown: the connection just ends
//!     <- Say -------------------- Say ->    both sides, as they like
//! ```

use std::{fmt, marker::PhantomData, net::SocketAddr};

use cairnfs_mount_core::VersionId;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_bytes::ByteBuf;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::tls::PeerKey;

/// The protocol of this program; raised whenever a message changes.
pub(super) const PROTOCOL: u32 = 3;

/// Longest knock in bytes.
pub(super) const KNOCK_BYTES_MAX: usize = 1 << 10;
/// Longest admission in bytes: as many secrets as there are epochs.
pub(super) const ADMISSION_BYTES_MAX: usize = 4 << 20;
/// Longest message in bytes of somebody of whom nothing was asked.
pub(super) const SAY_BYTES_MAX: usize = 64 << 10;
/// Longest message in bytes of somebody who is to answer: the largest blob as it is sealed, with
/// what is around it.
pub(super) const ANSWER_BYTES_MAX: usize = (16 << 20) + (64 << 10);

/// Blobs asked for at once.
pub(super) const IDS_MAX: usize = 512;
/// Versions in one list.
pub(super) const VERSIONS_MAX: usize = 1024;
/// Secrets in one answer.
pub(super) const SECRETS_MAX: usize = 1 << 16;
/// Epochs named in one request.
pub(super) const EPOCHS_MAX: usize = 1024;
/// Other devices of which a peer is told at once where they are.
pub(super) const WHERE_MAX: usize = 64;
/// Addresses named of each.
pub(super) const WHERE_ADDRESSES_MAX: usize = 4;
/// Requests of a peer that wait to be answered.
pub(super) const REQUESTS_MAX: usize = 64;
/// Buckets that a peer may offer.
pub(super) const OFFERS_MAX: usize = 1024;
/// Bytes of blobs after which an answer is sent in parts.
pub(super) const PART_BYTES: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"cairnfs\0";

/// What both sides say first, once the keys are proved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Greeting {
    pub(super) protocol: u32,
}

impl Greeting {
    pub(super) const BYTES: usize = 12;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..].copy_from_slice(&self.protocol.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, protocol @ ..] = bytes;
        let known = [m0, m1, m2, m3, m4, m5, m6, m7] == MAGIC;
        known.then(|| Self { protocol: u32::from_le_bytes(protocol) })
    }
}

/// A process of a device, so that one that was started anew is told from one that hangs.
pub(super) type Instance = [u8; 16];

/// Who dialled says why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Knock {
    /// Both have a bucket.
    Member {
        instance: Instance,
        /// Where it listens, if it does.
        port: Option<u16>,
    },
    /// It was invited.
    Ticket {
        secret: [u8; 16],
        /// What it is called.
        name: String,
        port: Option<u16>,
    },
}

/// The answer to a knock.
#[derive(Serialize, Deserialize)]
pub(super) enum Admission {
    /// Messages may follow.
    Member { instance: Instance, port: Option<u16> },
    /// There is a connection already, and it is to stay.
    Duplicate,
    /// The ticket was good: the device is a member now. Nothing follows.
    Joined {
        bucket: [u8; 16],
        /// What the bucket is called there.
        bucket_name: String,
        /// What the device is called.
        device_name: String,
        #[serde(deserialize_with = "bounded::<_, _, SECRETS_MAX>")]
        secrets: Vec<GivenSecret>,
    },
    /// The ticket is not good. Nothing follows.
    Refused(Refusal),
    /// The device was removed from the buckets with these marks. Nothing follows.
    Removed {
        #[serde(deserialize_with = "bounded::<_, _, OFFERS_MAX>")]
        marks: Vec<[u8; 32]>,
    },
}

/// A secret of a bucket, on its way. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct GivenSecret {
    pub(super) epoch: u16,
    pub(super) secret: [u8; 32],
}

impl fmt::Debug for GivenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GivenSecret({})", self.epoch)
    }
}

impl GivenSecret {
    /// For the wire.
    pub(super) fn pack(secrets: &[(u16, Zeroizing<[u8; 32]>)]) -> Vec<Self> {
        secrets.iter().map(|(epoch, secret)| Self { epoch: *epoch, secret: **secret }).collect()
    }

    /// From the wire.
    pub(super) fn unpack(given: &[Self]) -> Vec<(u16, Zeroizing<[u8; 32]>)> {
        given.iter().map(|one| (one.epoch, Zeroizing::new(one.secret))).collect()
    }
}

/// Why a ticket is not good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    /// No such ticket was made, or it was taken back.
    Unknown,
    /// Too late.
    Expired,
    /// Others have used it.
    UsedUp,
    /// The bucket is not open there now.
    NotServed,
    /// It could not be done there now.
    Failed,
    /// The device was removed from the bucket, and the ticket was made without knowing of that.
    Removed,
}

/// What is said on a connection between members. Buckets are called by numbers that the side
/// which speaks has given them in its offers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Say {
    /// Nothing, to show that somebody is there.
    Ping,
    /// A bucket that the other side is a member of; `mark` can be computed only by who has it.
    Offer { bucket: u32, mark: [u8; 32] },
    /// The bucket is offered no longer.
    Withdraw { bucket: u32 },
    /// The version that the side which speaks stands on.
    Head { bucket: u32, version: VersionId },
    /// Everything in the version that the other side announced is here.
    Seen { bucket: u32, version: VersionId },
    /// Something is wanted. `request` is answered under the same number.
    Ask { request: u32, bucket: u32, ask: Ask },
    /// What was wanted, or a part of it.
    Answer { request: u32, answer: Answer },
    /// Where other members of the bucket may be found.
    Where {
        bucket: u32,
        #[serde(deserialize_with = "bounded::<_, _, WHERE_MAX>")]
        others: Vec<Whereabouts>,
    },
    /// The version that the other side announced does not come to be here, for now or for good.
    Unseen { bucket: u32, version: VersionId, why: Unseen },
    /// The other side was removed from the bucket with this mark; others are shared.
    Removed { mark: [u8; 32] },
}

/// Why a version that was announced is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Unseen {
    /// It is not believed.
    Rejected,
    /// The side that announced it does not give all of it; it is asked for again.
    NotGiven,
    /// The disk is full; it is tried again.
    NoSpace,
    /// Nothing may be changed.
    ReadOnly,
    /// Something else went wrong; it is tried again.
    Failed,
}

impl Unseen {
    /// Whether it is tried again without being asked to.
    pub(super) fn passes(self) -> bool {
        matches!(self, Self::NotGiven | Self::NoSpace | Self::Failed)
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => {
                "it does not believe what was published here ('cairnfs peers' there \
                               says why)"
            }
            Self::NotGiven => {
                "it did not get all of what was published here ('cairnfs check' here \
                               finds damage)"
            }
            Self::NoSpace => "it has no space left for what was published here",
            Self::ReadOnly => "it is read-only there, and cannot take what was published here",
            Self::Failed => {
                "it cannot store what was published here ('cairnfs peers' there says \
                             why)"
            }
        })
    }
}

/// Where a device may be found, as another one says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Whereabouts {
    pub(super) device: PeerKey,
    #[serde(deserialize_with = "bounded::<_, _, WHERE_ADDRESSES_MAX>")]
    pub(super) addresses: Vec<SocketAddr>,
}

/// What can be wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// The versions from `head` back to those that are in `have`.
    Ancestry {
        head: VersionId,
        #[serde(deserialize_with = "bounded::<_, _, VERSIONS_MAX>")]
        have: Vec<VersionId>,
    },
    /// These blobs.
    Blobs(#[serde(deserialize_with = "bounded::<_, _, IDS_MAX>")] Vec<[u8; 32]>),
    /// The secrets of epochs that are not among these.
    Secrets(#[serde(deserialize_with = "bounded::<_, _, EPOCHS_MAX>")] Vec<u16>),
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The versions, newest first.
    Ancestry(#[serde(deserialize_with = "bounded::<_, _, VERSIONS_MAX>")] Vec<VersionId>),
    /// Blobs as they are sealed, and the names of those that are not there.
    Blobs {
        #[serde(deserialize_with = "bounded::<_, _, IDS_MAX>")]
        blobs: Vec<ByteBuf>,
        #[serde(deserialize_with = "bounded::<_, _, IDS_MAX>")]
        missing: Vec<[u8; 32]>,
        /// Whether another part follows.
        more: bool,
    },
    /// The secrets.
    Secrets(#[serde(deserialize_with = "bounded::<_, _, SECRETS_MAX>")] Vec<GivenSecret>),
    /// It cannot be given: the bucket was withdrawn, or could not be read.
    Refused,
}

impl Answer {
    /// Whether the request is done with this.
    pub(super) fn is_last(&self) -> bool {
        !matches!(self, Self::Blobs { more: true, .. })
    }

    /// About how much memory it takes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Ancestry(versions) => versions.len() * 32,
            Self::Blobs { blobs, missing, .. } => {
                blobs.iter().map(|blob| blob.len() + 64).sum::<usize>() + missing.len() * 32
            }
            Self::Secrets(secrets) => secrets.len() * 40,
            Self::Refused => 0,
        }
    }
}

/// A list of at most `MAX`: bytes of a peer can claim many more elements than they have bytes of
/// memory.
fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(one) = seq.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                list.push(one);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::frame::{HEAD_BYTES, decode, encode};

    fn read_back(say: &Say) -> Say {
        decode(&encode(say)[HEAD_BYTES..]).unwrap()
    }

    fn whereabouts(count: usize) -> Whereabouts {
        let address = "[2001:db8::1]:65535".parse().unwrap();
        Whereabouts { device: PeerKey([7; 32]), addresses: vec![address; count] }
    }

    #[test]
    fn messages_read_back() {
        let secrets = vec![GivenSecret { epoch: 7, secret: [9; 32] }];
        for say in [
            Say::Ping,
            Say::Offer { bucket: 1, mark: [2; 32] },
            Say::Withdraw { bucket: 1 },
            Say::Head { bucket: 1, version: [3; 32] },
            Say::Seen { bucket: 1, version: [3; 32] },
            Say::Unseen { bucket: 1, version: [3; 32], why: Unseen::Failed },
            Say::Removed { mark: [4; 32] },
            Say::Ask {
                request: 1,
                bucket: 2,
                ask: Ask::Ancestry { head: [1; 32], have: vec![[2; 32]] },
            },
            Say::Ask { request: 1, bucket: 2, ask: Ask::Blobs(vec![[1; 32], [2; 32]]) },
            Say::Ask { request: 1, bucket: 2, ask: Ask::Secrets(vec![0, 65535]) },
            Say::Answer { request: 1, answer: Answer::Ancestry(vec![[1; 32]]) },
            Say::Answer {
                request: 1,
                answer: Answer::Blobs {
                    blobs: vec![ByteBuf::from(vec![1, 2, 3])],
                    missing: vec![[4; 32]],
                    more: true,
                },
            },
            Say::Answer { request: 1, answer: Answer::Secrets(secrets) },
            Say::Answer { request: 1, answer: Answer::Refused },
            Say::Where { bucket: 1, others: vec![whereabouts(2), whereabouts(0)] },
        ] {
            assert_eq!(read_back(&say), say);
        }
    }

    /// The bytes of FORMAT.md: a change of them is a change of the protocol.
    #[test]
    fn the_bytes_are_those_of_the_format() {
        assert_eq!(Greeting { protocol: 2 }.encode(), *b"cairnfs\0\x02\0\0\0");
        assert_eq!(encode(&Say::Ping), [1, 0, 0, 0, 0]);
        assert_eq!(encode(&Say::Withdraw { bucket: 300 }), [3, 0, 0, 0, 2, 0xac, 2]);
        let unseen = encode(&Say::Unseen { bucket: 1, version: [7; 32], why: Unseen::NoSpace });
        assert_eq!((&unseen[..6], unseen[38]), (&[35, 0, 0, 0, 8, 1][..], 2));
        let ask = Say::Ask { request: 5, bucket: 1, ask: Ask::Secrets(vec![2]) };
        assert_eq!(encode(&ask), [6, 0, 0, 0, 5, 5, 1, 2, 1, 2]);
        let answer = Say::Answer {
            request: 5,
            answer: Answer::Blobs {
                blobs: vec![ByteBuf::from(vec![8, 9])],
                missing: vec![],
                more: false,
            },
        };
        assert_eq!(encode(&answer), [9, 0, 0, 0, 6, 5, 1, 1, 2, 8, 9, 0, 0]);
        let [four, six] = ["1.2.3.4:5", "[::9]:300"].map(|text| text.parse().unwrap());
        let at = Whereabouts { device: PeerKey([7; 32]), addresses: vec![four, six] };
        let bytes = encode(&Say::Where { bucket: 1, others: vec![at] });
        assert_eq!(bytes[..7], [61, 0, 0, 0, 7, 1, 1]);
        assert_eq!(bytes[7..39], [7; 32]);
        assert_eq!(bytes[39..47], [2, 0, 1, 2, 3, 4, 5, 1]);
        assert_eq!(bytes[47..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0xac, 2]);
    }

    #[test]
    fn whatever_is_said_is_short_enough_and_no_list_in_it_is_longer() {
        let ask = |ask: Ask| encode(&Say::Ask { request: u32::MAX, bucket: u32::MAX, ask });
        let epochs = |count| ask(Ask::Secrets(vec![u16::MAX; count]));
        let versions = |count| ask(Ask::Ancestry { head: [9; 32], have: vec![[9; 32]; count] });
        let ids = |count| ask(Ask::Blobs(vec![[9; 32]; count]));
        let all = |others, addresses| {
            encode(&Say::Where { bucket: u32::MAX, others: vec![whereabouts(addresses); others] })
        };
        let addresses = WHERE_ADDRESSES_MAX;
        for (longest, longer) in [
            (all(WHERE_MAX, addresses), all(WHERE_MAX + 1, addresses)),
            (all(WHERE_MAX, addresses), all(1, addresses + 1)),
            (epochs(EPOCHS_MAX), epochs(EPOCHS_MAX + 1)),
            (versions(VERSIONS_MAX), versions(VERSIONS_MAX + 1)),
            (ids(IDS_MAX), ids(IDS_MAX + 1)),
        ] {
            assert!(longest.len() - HEAD_BYTES <= SAY_BYTES_MAX);
            assert!(decode::<Say>(&longest[HEAD_BYTES..]).is_ok());
            assert!(decode::<Say>(&longer[HEAD_BYTES..]).is_err());
        }
    }

    #[test]
    fn a_list_is_refused_by_its_count_not_by_its_memory() {
        // A million blobs of no bytes would be a megabyte on the wire and 24 in memory.
        let mut bytes = vec![6, 5, 1];
        bytes.extend([0xc0, 0x84, 0x3d]);
        bytes.resize(bytes.len() + 1_000_000, 0);
        assert!(decode::<Say>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_message_decoder_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            drop(decode::<Say>(&bytes));
            drop(decode::<Knock>(&bytes));
            drop(decode::<Admission>(&bytes));
        }

        #[test]
        fn a_changed_message_is_another_or_none_but_no_panic(
            at in 0_usize..80, bit in 0_u8..8,
        ) {
            let ask = Ask::Blobs(vec![[1; 32], [2; 32]]);
            let mut bytes = encode(&Say::Ask { request: 1, bucket: 2, ask })[HEAD_BYTES..].to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            drop(decode::<Say>(&bytes));
        }
    }
}
