//! `cairnfs peers`: the devices that share something with this one.

use cairnfs_store::DevicePublicKey;
use serde::Serialize;

use super::{
    Context,
    in_step::{self, Met},
};
use crate::{
    cli::JsonArgs,
    control::{Answer, Client, Limit, PeersReport, Request},
    exit::{Failure, Result},
    home::BucketName,
    net::{PeerReport, Transfer, said_removed},
    ui,
    values::{Size, Span, hex},
    when,
};

#[derive(Serialize)]
struct Peers {
    /// Where this device is reached.
    listening: Option<String>,
    /// Why it is not, if it is to be.
    not_listening: Option<String>,
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct Peer {
    name: String,
    key: String,
    connected: bool,
    connected_since: Option<String>,
    /// Whether this device made the connection.
    dialled: bool,
    address: Option<String>,
    last_seen: Option<String>,
    buckets: Vec<String>,
    /// How far it has met this device in each of them.
    met: Vec<Met>,
    /// Those of them from which this device was removed.
    removed_from: Vec<String>,
    fetching: Option<Fetching>,
    sent_bytes: u64,
    received_bytes: u64,
    last_error: Option<String>,
    last_error_time: Option<String>,
    /// In how many milliseconds it is tried again.
    next_try_ms: Option<u64>,
}

#[derive(Serialize)]
struct Fetching {
    bucket: String,
    pieces: u64,
    bytes: u64,
    lacking_pieces: u64,
}

pub(super) fn run(context: &Context, args: &JsonArgs) -> Result<()> {
    let report = match Client::connect_within(&context.home, Limit::soon())? {
        None => PeersReport::default(),
        Some(client) => match client.within(Limit::soon()).ask(&Request::Peers, &mut |_| ())? {
            Answer::Peers(report) => report,
            _ => return Err(Failure::unexpected_answer()),
        },
    };
    if args.json {
        return ui::json(&document(&report));
    }
    match (report.listening, &report.not_listening) {
        (Some(address), _) => ui::result(format_args!("listening on {address}")),
        (None, Some(why)) => ui::result(not_listening(why)),
        (None, None) => ui::result(not_listening(
            "nothing that is mounted or kept here is shared with another device",
        )),
    }
    for peer in &report.peers {
        ui::result("");
        print(peer);
    }
    Ok(())
}

/// `not listening: this machine has no address 192.0.2.7, as the setting 'listen' wants it`
pub(super) fn not_listening(why: &str) -> String {
    format!("not listening: {why}")
}

/// What a device is called.
pub(super) fn called(peer: &PeerReport) -> String {
    named(&peer.name, &peer.key)
}

/// What a device is called that has this name, or none if it is empty.
pub(super) fn named(name: &str, key: &DevicePublicKey) -> String {
    if name.is_empty() { format!("device {key}") } else { ui::shown(name.as_bytes()) }
}

/// What any of `peers` says if this device was removed from `bucket`.
pub(super) fn removal(bucket: &BucketName, peers: &[PeerReport]) -> Option<String> {
    let is_removed = peers.iter().any(|peer| peer.removed_from.contains(bucket));
    is_removed.then(|| said_removed(bucket))
}

/// As [`removal`], and what follows for what is mounted.
pub(super) fn removal_of_mount(
    bucket: &BucketName,
    read_only: bool,
    peers: &[PeerReport],
) -> Option<String> {
    let follows = if read_only {
        "what others change does not come here"
    } else {
        "what is changed here stays here"
    };
    removal(bucket, peers).map(|removal| format!("{removal}: {follows}"))
}

/// `receiving 'photos': 12.0 MiB in 30 pieces, 12 more are known of`
pub(super) fn receiving(transfer: &Transfer) -> String {
    let Transfer { bucket, blobs, bytes, lacking } = transfer;
    let more = if *lacking == 0 { String::new() } else { format!(", {lacking} more to come") };
    format!("receiving '{bucket}': {} in {blobs} pieces{more}", Size(*bytes).about())
}

fn print(peer: &PeerReport) {
    let row = |key: &str, value: String| ui::result(format_args!("  {key:<13} {value}"));
    let address = peer.address.map_or_else(String::new, |address| {
        let direction = if peer.dialled { "to" } else { "from" };
        let direction = if peer.connected.is_some() { direction } else { "at" };
        format!(" {direction} {address}")
    });
    let state = match (peer.connected, peer.last_seen) {
        (Some(since), _) => format!("connected{address} since {}", when::local(since)),
        (None, Some(_)) => {
            format!("not connected, last seen{address} {}", when::ago(peer.last_seen))
        }
        (None, None) => "not connected yet".to_owned(),
    };
    ui::result(format_args!("{} ({}): {state}", called(peer), peer.key));
    for step in &peer.buckets {
        row(step.bucket.as_str(), in_step::of_device(peer, step));
    }
    for bucket in &peer.removed_from {
        row("removed", said_removed(bucket));
    }
    if let Some(transfer) = &peer.transfer {
        row("in flight", receiving(transfer));
    }
    if peer.connected.is_some() {
        let (sent, received) = (Size(peer.sent_bytes), Size(peer.received_bytes));
        row("traffic", format!("{} sent, {} received", sent.about(), received.about()));
    }
    if let Some((error, at)) = &peer.last_error {
        row("last error", format!("{} ({})", ui::shown(error.as_bytes()), when::ago(Some(*at))));
    }
    if let Some(after) = peer.next_try {
        row("next try", format!("in {}", Span(after).about()));
    }
}

fn document(report: &PeersReport) -> Peers {
    let peers = report.peers.iter().map(|peer| Peer {
        name: peer.name.clone(),
        key: hex(&peer.key.0),
        connected: peer.connected.is_some(),
        connected_since: peer.connected.map(when::rfc3339),
        dialled: peer.dialled,
        address: peer.address.map(|address| address.to_string()),
        last_seen: peer.last_seen.map(when::rfc3339),
        buckets: peer.buckets.iter().map(|step| step.bucket.to_string()).collect(),
        met: peer.buckets.iter().map(Met::new).collect(),
        removed_from: peer.removed_from.iter().map(ToString::to_string).collect(),
        fetching: peer.transfer.as_ref().map(|transfer| Fetching {
            bucket: transfer.bucket.to_string(),
            pieces: transfer.blobs,
            bytes: transfer.bytes,
            lacking_pieces: transfer.lacking,
        }),
        sent_bytes: peer.sent_bytes,
        received_bytes: peer.received_bytes,
        last_error: peer.last_error.as_ref().map(|(error, _)| error.clone()),
        last_error_time: peer.last_error.as_ref().map(|(_, at)| when::rfc3339(*at)),
        next_try_ms: peer
            .next_try
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
    });
    Peers {
        listening: report.listening.map(|address| address.to_string()),
        not_listening: report.not_listening.clone(),
        peers: peers.collect(),
    }
}
