//! `cairnfs conflicts`: what was changed on two devices in different ways.

use cairnfs_mount_core::{
    Author, ConflictInfo, ConflictKind, ConflictSetting, ConflictSide, OtherName, Setting,
};
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
    /// What was set, of a conflict about places or attributes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settings: Vec<Set>,
    /// Other names of the same file, which is listed once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_names: Vec<Other>,
}

#[derive(Serialize)]
struct Other {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    /// Where the versions are shown there, in their order.
    versions: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
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
    /// Whether a device, this one or another, has removed it before it saw this version.
    removed: bool,
    time: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Set {
    what: String,
    value: String,
    author: Option<String>,
    author_name: String,
    this_device: bool,
    shown: bool,
    /// None if it is not known any more.
    time: Option<String>,
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
        let conflicts = touching(context, target, &args.passphrase, false)?;
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

/// What conflicts at or below `target`, or has a version there; `to_settle` as in
/// [`ConflictsRequest`].
pub(super) fn touching(
    context: &Context,
    target: &Target,
    passphrase: &PassphraseArgs,
    to_settle: bool,
) -> Result<Vec<ConflictInfo>> {
    let opening = context.opening(&target.bucket, passphrase)?;
    let client = Client::connect_or_start(&context.home, None)?;
    let mut found = Vec::new();
    let path = Some(target.path.clone()).filter(|path| !path.is_empty());
    let request = Request::Conflicts(ConflictsRequest { opening, path, to_settle });
    client.ask(&request, &mut |event| {
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
    let what = explained(conflict);
    let shown = ui::shown(path.as_os_str().as_encoded_bytes());
    ui::result(format_args!("{shown}  {}: {what}", conflict.kind));
    for other in &conflict.other_names {
        let path = target.outside(&other.path);
        let shown = ui::shown(path.as_os_str().as_encoded_bytes());
        ui::result(format_args!("  also called {shown}"));
    }
    if !conflict.settings.is_empty() {
        return print_settings(&conflict.settings);
    }
    let names: Vec<_> = conflict.sides.iter().map(|side| name_beside(conflict, side)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (side, name) in conflict.sides.iter().zip(names) {
        ui::result(format_args!(
            "  {name:<width$}  {:<8}  {:>10}  {}  {}",
            short_id(side),
            Size(side.len).about(),
            when::local(side.time),
            named(&side.author)
        ));
    }
}

fn print_settings(settings: &[ConflictSetting]) {
    let told: Vec<_> = settings.iter().map(|it| described(&it.what)).collect();
    let texts: Vec<_> = told.iter().map(|(what, value)| format!("{what} {value}")).collect();
    let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    for (set, text) in settings.iter().zip(texts) {
        let shown = if set.shown { "shown" } else { "" };
        let time = set.time.map_or_else(|| "at a time not known".to_owned(), when::local);
        ui::result(format_args!("  {text:<width$}  {shown:<5}  {time}  {}", named(&set.author)));
    }
}

/// What was set, and to what.
fn described(what: &Setting) -> (&'static str, String) {
    match what {
        Setting::Path(path) => ("name", ui::shown(path)),
        Setting::Mode(mode) => ("mode", format!("{mode:04o}")),
        Setting::Owner(uid) => ("owner", uid.to_string()),
        Setting::Group(gid) => ("group", gid.to_string()),
        Setting::Modified(time) => ("time", when::rfc3339(*time)),
        Setting::Attribute(name, value) => {
            let value = value.as_ref().map_or_else(|| "removed".to_owned(), |it| ui::shown(it));
            ("attribute", format!("{} = {value}", ui::shown(name)))
        }
    }
}

/// The name of a version: without its folder, if that is the contested name's.
fn name_beside(conflict: &ConflictInfo, side: &ConflictSide) -> String {
    let folder = conflict.path.iter().rposition(|byte| *byte == b'/').map_or(0, |end| end + 1);
    let name = side.path.strip_prefix(&conflict.path[..folder]).unwrap_or(&side.path);
    ui::shown(name)
}

fn named(author: &Author) -> String {
    match (&*author.name, author.key) {
        _ if author.ours => "this device".to_owned(),
        ("", Some(key)) => format!("device {key}"),
        ("", None) => "a device that is no member".to_owned(),
        (name, _) => ui::shown(name.as_bytes()),
    }
}

fn explained(conflict: &ConflictInfo) -> String {
    match conflict.kind {
        ConflictKind::Content => "written on two devices".into(),
        ConflictKind::Name => "two files of one name".into(),
        ConflictKind::Type => "two kinds of file of one name".into(),
        ConflictKind::Rename => "renamed to two names".into(),
        ConflictKind::Cycle => "moved into each other".into(),
        ConflictKind::DeleteModify => {
            format!("changed {}, removed {}", where_changed(conflict), where_removed(conflict))
        }
        ConflictKind::DeleteAdd => format!(
            "something was added to the folder {}, and it was removed {}",
            where_changed(conflict),
            where_removed(conflict)
        ),
        ConflictKind::Meta => "attributes changed on two devices".into(),
        ConflictKind::Clash => "names that differ in case only".into(),
        ConflictKind::Orphan => "its folder is gone".into(),
    }
}

/// Where what was removed has been changed meanwhile.
fn where_changed(conflict: &ConflictInfo) -> String {
    let removed = conflict.sides.iter().filter(|side| side.removed);
    let mut places: Vec<_> = removed
        .map(|side| if side.author.ours { "here".into() } else { on(&side.author) })
        .collect();
    places.sort_unstable();
    places.dedup();
    if places.is_empty() { "on one device".into() } else { places.join(" and ") }
}

/// Where it was removed, which was at none of the places where it was changed.
fn where_removed(conflict: &ConflictInfo) -> String {
    let mut changed = conflict.sides.iter().filter(|side| side.removed);
    match &conflict.remover {
        Some(author) if author.ours => "here".into(),
        Some(author) => on(author),
        None if changed.any(|side| side.author.ours) => "on another device".into(),
        None => "here or on another device".into(),
    }
}

fn on(author: &Author) -> String {
    format!("on {}", named(author))
}

fn document(target: &Target, conflict: &ConflictInfo) -> Conflict {
    let versions = conflict.sides.iter().map(|side| Version {
        path: String::from_utf8_lossy(&side.path).into_owned(),
        path_hex: odd(&side.path),
        id: (side.id != [0; 32]).then(|| hex(&side.id)),
        author: side.author.key.map(|key| hex(&key.0)),
        author_name: side.author.name.clone(),
        this_device: side.author.ours,
        removed: side.removed,
        time: when::rfc3339(side.time),
        bytes: side.len,
    });
    Conflict {
        bucket: target.bucket.to_string(),
        dir: target.dir.clone().map(PathText),
        path: String::from_utf8_lossy(&conflict.path).into_owned(),
        path_hex: odd(&conflict.path),
        kind: conflict.kind.to_string(),
        versions: versions.collect(),
        settings: conflict.settings.iter().map(set).collect(),
        other_names: conflict.other_names.iter().map(other).collect(),
    }
}

fn other(name: &OtherName) -> Other {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let shown = name.shown.iter().map(|path| Shown { path: text(path), path_hex: odd(path) });
    Other { path: text(&name.path), path_hex: odd(&name.path), versions: shown.collect() }
}

fn set(setting: &ConflictSetting) -> Set {
    let (what, value) = described(&setting.what);
    Set {
        what: what.to_owned(),
        value,
        author: setting.author.key.map(|key| hex(&key.0)),
        author_name: setting.author.name.clone(),
        this_device: setting.author.ours,
        shown: setting.shown,
        time: setting.time.map(when::rfc3339),
    }
}

fn odd(path: &[u8]) -> Option<String> {
    str::from_utf8(path).is_err().then(|| hex(path))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn author(name: &str, ours: bool) -> Author {
        Author { key: None, name: name.into(), ours }
    }

    fn conflict(kind: ConflictKind, changed: &[Author]) -> ConflictInfo {
        let sides = changed.iter().map(|author| ConflictSide {
            path: b"f".to_vec(),
            id: [1; 32],
            author: author.clone(),
            removed: true,
            newest: true,
            time: SystemTime::UNIX_EPOCH,
            len: 1,
        });
        let (path, settings) = (b"f".to_vec(), Vec::new());
        ConflictInfo {
            path,
            kind,
            sides: sides.collect(),
            settings,
            remover: None,
            other_names: vec![],
        }
    }

    #[test]
    fn where_something_was_changed_that_another_removed_is_said_from_both_sides() {
        let (here, laptop) = (author("notebook", true), author("laptop", false));
        let said = |kind, by: &[Author]| explained(&conflict(kind, by));
        let file = ConflictKind::DeleteModify;
        assert_eq!(
            said(file, std::slice::from_ref(&here)),
            "changed here, removed on another device"
        );
        let there = said(file, std::slice::from_ref(&laptop));
        assert_eq!(there, "changed on laptop, removed here or on another device");
        let by = |remover: &Author, changed: &Author| {
            let conflict = conflict(file, std::slice::from_ref(changed));
            explained(&ConflictInfo { remover: Some(remover.clone()), ..conflict })
        };
        assert_eq!(by(&here, &laptop), "changed on laptop, removed here");
        assert_eq!(by(&laptop, &here), "changed here, removed on laptop");
        let both = said(file, &[laptop.clone(), here]);
        assert_eq!(both, "changed here and on laptop, removed on another device");
        let folder = said(ConflictKind::DeleteAdd, &[laptop]);
        assert!(folder.contains("added to the folder on laptop, and it was removed"), "{folder}");
    }

    #[test]
    fn what_was_set_is_told_in_words() {
        let time = SystemTime::UNIX_EPOCH;
        for (what, told) in [
            (Setting::Path(b"d/new".to_vec()), "name d/new"),
            (Setting::Mode(0o640), "mode 0640"),
            (Setting::Owner(1000), "owner 1000"),
            (Setting::Group(7), "group 7"),
            (Setting::Modified(time), "time 1970-01-01T00:00:00Z"),
            (Setting::Attribute(b"user.a".to_vec(), None), "attribute user.a = removed"),
        ] {
            let (what, value) = described(&what);
            assert_eq!(format!("{what} {value}"), told);
        }
    }
}
