//! `cairnfs conflicts`: what was changed on two devices in different ways.

use cairnfs_mount_core::{ConflictInfo, ConflictSide};
use serde::Serialize;

use super::{Context, target::Target};
use crate::{
    cli::{ConflictsArgs, PassphraseArgs},
    control::{Client, ConflictsRequest, Event, Request},
    exit::{Code, Failure, Result},
    ui::{self, PathText},
    values::{Size, hex},
    when,
};

#[derive(Serialize)]
struct Conflicts {
    conflicts: Vec<Conflict>,
}

#[derive(Serialize)]
struct Conflict {
    bucket: String,
    /// Where the bucket is mounted.
    dir: Option<PathText>,
    path: String,
    /// The bytes of a path that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: String,
    versions: Vec<Version>,
}

#[derive(Serialize)]
struct Version {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    /// None for a directory.
    id: Option<String>,
    author: Option<String>,
    author_name: String,
    this_device: bool,
    time: String,
    bytes: u64,
}

pub(super) fn run(context: &Context, args: &ConflictsArgs) -> Result<()> {
    let targets = match &args.what {
        Some(what) => vec![Target::find(context, what)?],
        None => context.mounts()?.iter().map(Target::of).collect(),
    };
    if targets.is_empty() {
        ui::note("nothing is mounted: name a bucket to look into it");
    }
    let mut found = Vec::new();
    for target in &targets {
        let conflicts = touching(context, target, &args.passphrase)?;
        found.extend(conflicts.into_iter().map(|conflict| (target, conflict)));
    }
    if args.json {
        let conflicts = found.iter().map(|(target, conflict)| document(target, conflict));
        ui::json(&Conflicts { conflicts: conflicts.collect() })?;
    } else {
        found.iter().for_each(|(target, conflict)| print(target, conflict));
    }
    match found.len() {
        0 => {
            if !args.json && !targets.is_empty() {
                ui::note("no conflicts");
            }
            Ok(())
        }
        many => Err(remaining(many)),
    }
}

/// What conflicts at or below `target`, or has a version there.
pub(super) fn touching(
    context: &Context,
    target: &Target,
    passphrase: &PassphraseArgs,
) -> Result<Vec<ConflictInfo>> {
    let opening = context.opening(&target.bucket, passphrase)?;
    let client = Client::connect_or_start(&context.home, None)?;
    let mut found = Vec::new();
    let path = Some(target.path.clone()).filter(|path| !path.is_empty());
    client.ask(&Request::Conflicts(ConflictsRequest { opening, path }), &mut |event| {
        if let Event::Conflict(conflict) = event {
            found.push(*conflict);
        }
    })?;
    Ok(found)
}

/// The refusal to call it a day.
pub(super) fn remaining(many: usize) -> Failure {
    let what =
        if many == 1 { "1 conflict remains".into() } else { format!("{many} conflicts remain") };
    let message =
        format!("{what}: 'cairnfs resolve PATH --keep ours|theirs|both|VERSION|FILE' settles one");
    Failure::new(Code::Conflicts, message)
}

/// The first digits of a version's id.
pub(super) fn short_id(side: &ConflictSide) -> String {
    if side.id == [0; 32] { "folder".into() } else { hex(&side.id[..4]) }
}

fn print(target: &Target, conflict: &ConflictInfo) {
    let path = target.outside(&conflict.path);
    let what = explained(&conflict.kind);
    let shown = ui::shown(path.as_os_str().as_encoded_bytes());
    ui::result(format_args!("{shown}  {}{what}", conflict.kind));
    let names: Vec<_> = conflict.sides.iter().map(|side| name_beside(conflict, side)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (side, name) in conflict.sides.iter().zip(names) {
        ui::result(format_args!(
            "  {name:<width$}  {:<8}  {:>10}  {}  {}",
            short_id(side),
            Size(side.len).about(),
            when::local(side.time),
            author(side)
        ));
    }
}

/// The name of a version: without its folder, if that is the contested name's.
fn name_beside(conflict: &ConflictInfo, side: &ConflictSide) -> String {
    let folder = conflict.path.iter().rposition(|byte| *byte == b'/').map_or(0, |end| end + 1);
    let name = side.path.strip_prefix(&conflict.path[..folder]).unwrap_or(&side.path);
    ui::shown(name)
}

fn author(side: &ConflictSide) -> String {
    match (&*side.author_name, side.author) {
        _ if side.ours => "this device".to_owned(),
        ("", Some(key)) => format!("device {}", hex(&key[..4])),
        ("", None) => "a device that is no member".to_owned(),
        (name, _) => ui::shown(name.as_bytes()),
    }
}

fn explained(kind: &str) -> &'static str {
    match kind {
        "content" => ": written on two devices",
        "name" => ": two files of one name",
        "type" => ": two kinds of file of one name",
        "rename" => ": renamed to two names",
        "cycle" => ": moved into each other",
        "delmod" => ": removed here, changed there",
        "deladd" => ": the folder was removed, and something added to it",
        "meta" => ": attributes changed on two devices",
        "clash" => ": names that differ in case only",
        "orphan" => ": its folder is gone",
        _ => "",
    }
}

fn document(target: &Target, conflict: &ConflictInfo) -> Conflict {
    let versions = conflict.sides.iter().map(|side| Version {
        path: String::from_utf8_lossy(&side.path).into_owned(),
        path_hex: odd(&side.path),
        id: (side.id != [0; 32]).then(|| hex(&side.id)),
        author: side.author.map(|key| hex(&key)),
        author_name: side.author_name.clone(),
        this_device: side.ours,
        time: when::rfc3339(side.time),
        bytes: side.len,
    });
    Conflict {
        bucket: target.bucket.to_string(),
        dir: target.dir.clone().map(PathText),
        path: String::from_utf8_lossy(&conflict.path).into_owned(),
        path_hex: odd(&conflict.path),
        kind: conflict.kind.clone(),
        versions: versions.collect(),
    }
}

fn odd(path: &[u8]) -> Option<String> {
    str::from_utf8(path).is_err().then(|| hex(path))
}
