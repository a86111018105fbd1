//! What decodes the bytes of peers, and the files about them.

use std::path::Path;

use super::{
    addresses,
    frame::{self, Frames},
    invites,
    message::{ANSWER_BYTES_MAX, Admission, Greeting, Knock, Say},
    ticket::Ticket,
};
use crate::{decoders::Decoder, durable};

/// Each with its name.
pub(crate) const ALL: [Decoder; 8] = [
    ("greeting", |bytes| <[u8; _]>::try_from(bytes).is_ok_and(|it| Greeting::decode(it).is_some())),
    ("frames", frames),
    ("knock", |bytes| frame::decode::<Knock>(bytes).is_ok()),
    ("admission", |bytes| frame::decode::<Admission>(bytes).is_ok()),
    ("say", |bytes| frame::decode::<Say>(bytes).is_ok_and(|say| weigh(&say, bytes.len()))),
    ("ticket", |bytes| str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ticket>().is_ok())),
    ("peers", |bytes| is_file::<addresses::Contents>(bytes)),
    ("invites", |bytes| is_file::<invites::Contents>(bytes)),
];

/// As they come from a socket: whether there is one that is whole, and no one that is too long.
fn frames(bytes: &[u8]) -> bool {
    let mut frames = Frames::default();
    let mut found = false;
    for some in bytes.chunks(61) {
        frames.push(some);
        loop {
            match frames.next(ANSWER_BYTES_MAX) {
                Ok(Some(body)) => found |= frame::decode::<Say>(&body).is_ok(),
                Ok(None) => break,
                Err(_too_long) => return false,
            }
        }
    }
    found
}

/// Always true: what an answer is said to weigh is near to what it took on the wire.
fn weigh(say: &Say, len: usize) -> bool {
    if let Say::Answer { answer, .. } = say {
        assert!(answer.weight() <= 64 * (len + 1), "{len} bytes are said to weigh more");
    }
    true
}

fn is_file<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| durable::parse::<T>(Path::new("file"), text).is_ok())
}

/// Bytes that each of them accepts, with the decoder's name.
#[cfg(test)]
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    use std::time::{Duration, UNIX_EPOCH};

    use cairnfs_mount_core::BucketId;
    use serde_bytes::ByteBuf;
    use zeroize::Zeroizing;

    use super::{
        frame::{HEAD_BYTES, encode},
        message::{Answer, Ask, GivenSecret, PROTOCOL, Whereabouts},
        tls::PeerKey,
    };

    let addresses = ["10.0.0.1:4000", "[fd00::1]:4000"].map(|text| text.parse().unwrap()).to_vec();
    let [knock_member, knock_ticket] = [
        Knock::Member { instance: [1; 16], port: Some(4000) },
        Knock::Ticket { secret: [2; 16], name: "laptop".into(), port: None },
    ]
    .map(|knock| encode(&knock)[HEAD_BYTES..].to_vec());
    let secrets = vec![GivenSecret { epoch: 1, secret: [3; 32] }];
    let joined = Admission::Joined {
        bucket: [4; 16],
        bucket_name: "photos".into(),
        device_name: "desk".into(),
        secrets: secrets.clone(),
    };
    let blobs = Answer::Blobs {
        blobs: vec![ByteBuf::from([5; 40]), ByteBuf::new()],
        missing: vec![[6; 32]],
        more: true,
    };
    let others = vec![Whereabouts { device: PeerKey([7; 32]), addresses: addresses.clone() }];
    let said = [
        Say::Offer { bucket: 1, mark: [8; 32] },
        Say::Ask {
            request: 2,
            bucket: 1,
            ask: Ask::Ancestry { head: [9; 32], have: vec![[10; 32]] },
        },
        Say::Answer { request: 2, answer: blobs },
        Say::Answer { request: 3, answer: Answer::Secrets(secrets) },
        Say::Where { bucket: 1, others },
    ];
    let ticket = Ticket {
        bucket: BucketId([11; 16]),
        device: PeerKey([12; 32]),
        secret: Zeroizing::new([13; 16]),
        until: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        addresses,
    };
    let peers = "port = 4000\n[[peer]]\nkey = \"00ff\"\naddresses = [\"10.0.0.1:4000\"]\n";
    let invites = "[[invite]]\nhash = \"00\"\nbucket = \"01\"\nrole = \"Writer\"\n\
                   until = 1800000000\nleft = 1\nused_by = [\"02\"]\nremovals = [\"03\"]\n";
    let mut samples = vec![
        ("greeting", Greeting { protocol: PROTOCOL }.encode().to_vec()),
        ("frames", said.iter().flat_map(encode).collect()),
        ("knock", knock_member),
        ("knock", knock_ticket),
        ("admission", encode(&joined)[HEAD_BYTES..].to_vec()),
        ("ticket", ticket.to_line().into_bytes()),
        ("peers", peers.into()),
        ("invites", invites.into()),
    ];
    samples.extend(said.iter().map(|say| ("say", encode(say)[HEAD_BYTES..].to_vec())));
    samples
}
