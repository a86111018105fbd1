//! `cairnfs log`: the versions of a bucket, newest first.

use std::path::Path;

use cairnfs_store::DevicePublicKey;
use serde::Serialize;

use super::{Context, show, target::joined};
use crate::{
    cli::LogArgs,
    control::{Answer, Client, Event, LogRequest, Request, VersionReport},
    exit::{Code, Failure, Result},
    home::BucketName,
    place, ui,
    ui::ProgressLine,
    values::hex,
    when,
};

#[derive(Serialize)]
struct Log {
    bucket: String,
    /// Whether something in the bucket has changed that is in no version yet.
    unpublished: bool,
    versions: Vec<Version>,
}

#[derive(Serialize)]
struct Version {
    id: String,
    time: String,
    author: String,
    author_name: String,
    this_device: bool,
    /// Several for a merge, which lists no changes of its own.
    parents: Vec<String>,
    /// Whether all that it holds is on this device.
    whole: bool,
    changes: Vec<Change>,
    more_changes: bool,
}

#[derive(Serialize)]
struct Change {
    change: &'static str,
    path: String,
    /// The bytes of a path that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

pub(super) fn run(context: &Context, args: &LogArgs) -> Result<()> {
    let opening = context.opening(&args.bucket, &args.passphrase)?;
    let path = args.path.as_deref().map(|path| inside(context, &args.bucket, path)).transpose()?;
    let request = LogRequest {
        opening,
        path: path.filter(|path| !path.is_empty()),
        limit: args.limit,
        max_changes: args.changes,
    };
    let device = context.home.device_key()?.public();
    let mut line = ProgressLine::new();
    let mut versions = Vec::new();
    let client = Client::connect_or_start(&context.home, None)?;
    let answer = client.ask(&Request::Log(request), &mut |event| match event {
        Event::Version(version) => versions.push(version),
        event => show(&mut line, event),
    })?;
    let Answer::Logged { unpublished } = answer else { return Err(Failure::unexpected_answer()) };
    if args.json {
        let versions = versions.iter().map(|version| document(version, device)).collect();
        ui::json(&Log { bucket: args.bucket.to_string(), unpublished, versions })?;
    } else {
        versions.iter().for_each(|version| print(version, device));
    }
    let bucket = &args.bucket;
    if versions.is_empty()
        && let Some(path) = &args.path
    {
        let not_yet = if unpublished { ": what was changed last is not published yet" } else { "" };
        let message =
            format!("no version of bucket '{bucket}' changed '{}'{not_yet}", path.display());
        return Err(Failure::new(Code::Failed, message));
    }
    if unpublished && !args.json {
        ui::note(format_args!(
            "what was changed last is not published yet ('cairnfs publish {bucket}' does that)"
        ));
    }
    if versions.len() == usize::try_from(args.limit).unwrap_or(usize::MAX) {
        ui::note(format_args!("there may be older versions: see --limit"));
    }
    Ok(())
}

/// The path inside the bucket of what a person wrote: a path below its mount point, also from where
/// the person stands, or else one in the bucket.
pub(super) fn inside(context: &Context, bucket: &BucketName, path: &Path) -> Result<Vec<u8>> {
    let mounts = context.mounts()?;
    let mount = mounts.iter().find(|mount| mount.bucket == *bucket);
    let resolved = place::resolve_parent(path)?;
    let below = mount.and_then(|mount| resolved.strip_prefix(&mount.dir).ok());
    joined(below.unwrap_or(path), path)
}

fn document(version: &VersionReport, device: DevicePublicKey) -> Version {
    let changes = version.changes.iter().map(|(sign, path)| Change {
        change: match sign {
            '+' => "added",
            '-' => "removed",
            _ => "changed",
        },
        path: String::from_utf8_lossy(path).into_owned(),
        path_hex: str::from_utf8(path).is_err().then(|| hex(path)),
    });
    Version {
        id: hex(&version.id),
        time: when::rfc3339(version.time),
        author: hex(&version.author.0),
        author_name: version.author_name.clone(),
        this_device: version.author == device,
        parents: version.parents.iter().map(|id| hex(id)).collect(),
        whole: version.is_whole,
        changes: changes.collect(),
        more_changes: version.more_changes,
    }
}

fn print(version: &VersionReport, device: DevicePublicKey) {
    let author = if version.author == device {
        "this device".to_owned()
    } else if !version.author_name.is_empty() {
        ui::shown(version.author_name.as_bytes())
    } else {
        format!("device {}", version.author)
    };
    let id = hex(&version.id[..8]);
    ui::result(format_args!("{id}  {}  {author}", when::local(version.time)));
    if version.parents.len() > 1 {
        let parents: Vec<_> = version.parents.iter().map(|id| hex(&id[..8])).collect();
        ui::result(format_args!("  merge of {}", parents.join(" and ")));
    }
    if !version.is_whole {
        ui::result("  not whole: parts of it are not on this device");
    }
    for (sign, path) in &version.changes {
        ui::result(format_args!("  {sign} {}", ui::shown(path)));
    }
    if version.more_changes {
        ui::result("  ...");
    }
}
