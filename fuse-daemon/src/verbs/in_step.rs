//! How far other devices have met this one, in words, and as a document: for `peers` and `status`.
//!
//! Nothing is said that is not known: of who is not connected what it last said, and when.

use serde::Serialize;

use super::peers::called;
use crate::{
    home::BucketName,
    net::{Known, PeerReport, Step},
    values::hex,
    when,
};

/// What only this device has for certain.
const UNPUBLISHED: &str = "what is not published yet";

/// How far a device has met this one in one bucket, as a document.
#[derive(Serialize)]
pub(super) struct Met {
    bucket: String,
    /// Whether it is connected, shares the bucket, and neither lacks anything of the other's.
    in_step: bool,
    /// When what follows was known; null if it is known now, and if nothing is.
    as_of: Option<String>,
    /// Whether it has all that was published here; null if that is not known.
    has_all: Option<bool>,
    /// If not, the version of here up to which it has all.
    has_up_to: Option<String>,
    has_up_to_time: Option<String>,
    /// Why it does not take what is newer, if it says so.
    why: Option<String>,
    /// Whether all that it published is here; null if that is not known.
    all_is_here: Option<bool>,
    /// Whether something was changed here that is not published: no other device has it.
    unpublished: bool,
}

impl Met {
    pub(super) fn new(step: &Step) -> Self {
        let up_to = step.up_to.as_ref();
        let is_known = step.known != Known::Never;
        Self {
            bucket: step.bucket.to_string(),
            in_step: step.is_in_step(),
            as_of: match step.known {
                Known::Then(at) => Some(when::rfc3339(at)),
                Known::Now | Known::Never => None,
            },
            has_all: step.all_there.filter(|_| is_known),
            has_up_to: up_to.map(|(version, _)| hex(version)),
            has_up_to_time: up_to.and_then(|(_, time)| *time).map(when::rfc3339),
            why: step.why.clone(),
            all_is_here: step.all_here,
            unpublished: step.unpublished,
        }
    }
}

/// Which devices that have `bucket` are in step with this one, and what the others lack.
pub(super) fn of_bucket(bucket: &BucketName, peers: &[PeerReport]) -> String {
    let steps = || peers.iter().filter_map(|peer| Some((peer, peer.step(bucket)?)));
    let met: Vec<_> = steps().filter(|(_, step)| step.has_met()).map(|it| called(it.0)).collect();
    let all = steps().count();
    let of_all = if met.len() < all { format!(" of {all}") } else { String::new() };
    let devices = if all == 1 { "device" } else { "devices" };
    let mut parts = match met.len() {
        0 => vec!["in step with none".to_owned()],
        some => vec![format!("in step with {some}{of_all} {devices}: {}", met.join(", "))],
    };
    let others = steps().filter(|(_, step)| !step.has_met());
    parts.extend(others.map(|(peer, step)| format!("{} {}", called(peer), of_device(peer, step))));
    if steps().any(|(_, step)| step.unpublished) {
        parts.push(format!("no other device has {UNPUBLISHED}"));
    }
    parts.join("; ")
}

/// How far one device has met this one in one bucket.
pub(super) fn of_device(peer: &PeerReport, step: &Step) -> String {
    let away = if peer.connected.is_some() { "does not share it now" } else { "not connected" };
    match step.known {
        Known::Now => now(step),
        Known::Then(at) => format!("{away}: at {} it {}", when::local(at), then(step)),
        Known::Never => format!("{away}: not known what it has"),
    }
}

fn now(step: &Step) -> String {
    let there = match (step.all_there, step.all_here) {
        (Some(true), _) if step.unpublished => format!("has all that is here but {UNPUBLISHED}"),
        (Some(true), _) => "has all that is here".to_owned(),
        (Some(false), _) => format!("lacks {}", lacking(step)),
        (None, None) => "has not said yet what it has".to_owned(),
        (None, Some(_)) => "has not said yet whether it has all that is here".to_owned(),
    };
    let here = match (step.all_there, step.all_here) {
        (_, Some(false)) => ", and has changes that are not here yet",
        (Some(true), Some(true)) => ", and has published nothing else",
        (Some(true), None) => ", and has not said yet what else it has",
        (Some(false) | None, Some(true) | None) => "",
    };
    format!("{there}{here}")
}

/// What was so when it was last heard of.
fn then(step: &Step) -> String {
    let there = match (step.all_there, &step.up_to) {
        (Some(true), _) if step.unpublished => format!("had all that is here but {UNPUBLISHED}"),
        (Some(true), _) => "had all that is here".to_owned(),
        (Some(false), Some(_)) => format!("had what was here, but not {}", lacking(step)),
        (Some(false), None) => format!("lacked {}", lacking(step)),
        (None, _) => "had not said whether it has all that is here".to_owned(),
    };
    let here = match step.all_here {
        Some(false) => ", and had changes that are not here",
        Some(true) | None => "",
    };
    format!("{there}{here}")
}

/// `what is new here since version 015123ebb9dfd241 (2026-11-22 14:23:56)`
fn lacking(step: &Step) -> String {
    let since = step.up_to.map_or_else(String::new, |(version, time)| {
        let time = time.map_or_else(String::new, |time| format!(" ({})", when::local(time)));
        format!(" since version {}{time}", hex(&version[..8]))
    });
    let why = step.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    format!("what is new here{since}{why}")
}

#[cfg(test)]
mod tests {
    use cairnfs_mount_core::Time;

    use cairnfs_store::DevicePublicKey;

    use super::*;

    fn met() -> Step {
        Step {
            bucket: bucket(),
            known: Known::Now,
            all_there: Some(true),
            up_to: None,
            why: None,
            all_here: Some(true),
            unpublished: false,
        }
    }

    fn bucket() -> BucketName {
        "notes".parse().unwrap()
    }

    fn peer(name: &str, step: Step) -> PeerReport {
        let is_connected = step.known == Known::Now;
        PeerReport {
            key: DevicePublicKey([1; 32]),
            name: name.to_owned(),
            address: None,
            connected: is_connected.then_some(Time::default()),
            dialled: false,
            buckets: vec![step],
            removed_from: Vec::new(),
            transfer: None,
            sent_bytes: 0,
            received_bytes: 0,
            last_error: None,
            last_seen: None,
            next_try: None,
        }
    }

    /// What is said of a device that is connected unless nothing is known now.
    fn said(step: Step) -> String {
        let peer = peer("nas", step);
        of_device(&peer, &peer.buckets[0])
    }

    fn then() -> (Known, String) {
        (Known::Then(Time::default()), when::local(Time::default()))
    }

    fn behind() -> Step {
        let up_to = Some(([0xab; 32], Some(Time::default())));
        Step { all_there: Some(false), up_to, ..met() }
    }

    #[test]
    fn who_is_connected_has_what_it_says() {
        assert_eq!(said(met()), "has all that is here, and has published nothing else");
        let unpublished = Step { unpublished: true, ..met() };
        assert!(!unpublished.is_in_step());
        let but =
            "has all that is here but what is not published yet, and has published nothing else";
        assert_eq!(said(unpublished), but);
        let changed = Step { all_here: Some(false), ..met() };
        assert_eq!(said(changed), "has all that is here, and has changes that are not here yet");
        let silent = Step { all_there: None, all_here: None, ..met() };
        assert_eq!(said(silent), "has not said yet what it has");
        let fetching = Step { all_there: None, ..met() };
        assert_eq!(said(fetching), "has not said yet whether it has all that is here");
    }

    #[test]
    fn who_lacks_something_lacks_it_since_a_version() {
        let since = format!("since version abababababababab ({})", then().1);
        assert_eq!(said(behind()), format!("lacks what is new here {since}"));
        let both = said(Step { all_here: Some(false), ..behind() });
        assert_eq!(
            both,
            format!("lacks what is new here {since}, and has changes that are not here yet")
        );
        let full = Step { up_to: None, why: Some("it is full".into()), ..behind() };
        assert_eq!(said(full), "lacks what is new here: it is full");
    }

    #[test]
    fn of_who_is_away_it_is_said_when_that_was_known() {
        let (known, at) = then();
        let away = |step| said(Step { known, ..step });
        assert_eq!(away(met()), format!("not connected: at {at} it had all that is here"));
        let since = format!("since version abababababababab ({at})");
        assert_eq!(
            away(behind()),
            format!(
                "not connected: at {at} it had what was here, but not what is new here {since}"
            )
        );
        let never = Step { known: Known::Never, all_there: Some(true), ..met() };
        assert!(!never.has_met());
        assert_eq!(said(never.clone()), "not connected: not known what it has");
        assert!(Met::new(&never).has_all.is_none());
    }

    #[test]
    fn a_bucket_is_in_step_with_those_that_have_met() {
        let line = |peers: &[PeerReport]| of_bucket(&bucket(), peers);
        let (laptop, nas) = (peer("laptop", met()), peer("nas", met()));
        assert_eq!(line(std::slice::from_ref(&nas)), "in step with 1 device: nas");
        assert_eq!(line(&[laptop.clone(), nas.clone()]), "in step with 2 devices: laptop, nas");
        let phone = peer("phone", Step { known: then().0, ..met() });
        let away = format!("phone not connected: at {} it had all that is here", then().1);
        assert_eq!(
            line(&[laptop, nas, phone.clone()]),
            format!("in step with 2 of 3 devices: laptop, nas; {away}")
        );
        assert_eq!(line(&[phone]), format!("in step with none; {away}"));
        let unpublished = peer("nas", Step { unpublished: true, ..met() });
        assert_eq!(
            line(&[unpublished]),
            "in step with 1 device: nas; no other device has what is not published yet"
        );
    }
}
