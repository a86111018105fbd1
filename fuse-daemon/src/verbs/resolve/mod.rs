//! `cairnfs resolve`: says which version of a contested name is to stay.

mod over;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use cairnfs_mount_core::{ConflictInfo, ConflictKind, ConflictSide, Keep, Seen};

use self::over::Over;
use super::{
    Context,
    conflicts::{remaining, short_id, touching},
    target::Target,
};
use crate::{
    cli::ResolveArgs,
    control::{Answer, Client, Request, ResolveRequest, Resolved},
    exit::{Code, Failure, Result},
    home::BucketName,
    place, ui,
    values::hex,
};

/// Fewer digits than these do not name a version.
const ID_DIGITS_MIN: usize = 4;

/// How much of what was seen goes into one request, which takes 256 KiB.
const PORTION_BYTES: usize = 128 << 10;

/// What a conflict takes there besides its path and what was seen of it, at the most.
const ENTRY_BYTES: usize = 16;

/// What is to stay.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Choice {
    /// A version that is there.
    Version(Keep),
    /// What is in this file.
    File(PathBuf),
}

pub(super) fn run(context: &Context, args: &ResolveArgs) -> Result<()> {
    let Some(path) = &args.path else { return everywhere(context, args) };
    let target = if args.all {
        Target::find(context, path.as_os_str())?
    } else {
        Target::below(&context.mounts()?, path).map_err(|failure| or_all(context, path, failure))?
    };
    resolve(context, args, &target, path)
}

/// All that is mounted. What cannot be settled in one bucket does not keep the others from it.
fn everywhere(context: &Context, args: &ResolveArgs) -> Result<()> {
    let mounts = context.mounts()?;
    if mounts.is_empty() {
        ui::note("nothing is mounted: name a bucket to settle what conflicts in it");
    }
    let mut outcome: Result<()> = Ok(());
    for mount in &mounts {
        let resolved = resolve(context, args, &Target::of(mount), &mount.dir);
        // The last one ends it, and is said then.
        if let (Err(before), Err(_)) = (&outcome, &resolved) {
            ui::note(&before.message);
        }
        outcome = resolved.and(outcome);
    }
    outcome
}

/// What conflicts at `target`, which is called `shown`.
fn resolve(context: &Context, args: &ResolveArgs, target: &Target, shown: &Path) -> Result<()> {
    let all_keep =
        args.keep.to_str().is_some_and(|word| ["ours", "theirs", "both"].contains(&word));
    if args.all && !all_keep {
        return Err(Failure::usage(
            "with --all only ours, theirs or both can be kept: a version or file is of one path",
        ));
    }
    let list = || -> Result<_> {
        let mut found = touching(context, target, &args.passphrase, !args.dry_run)?;
        if !args.all {
            found.retain(|conflict| takes_part(conflict, &target.path));
        }
        leave_to_versions(&mut found);
        Ok(found)
    };
    let found = list()?;
    if found.is_empty() {
        let message = format!("{}: nothing conflicts", ui::shown_path(shown));
        if args.all {
            // All of nothing is settled.
            ui::note(message);
            return Ok(());
        }
        return Err(Failure::new(Code::Failed, message));
    }
    let choice = choose(args, target, &found)?;
    if args.dry_run {
        found.iter().for_each(|conflict| foretell(target, conflict, &choice));
        return Ok(());
    }
    let mut seen: BTreeMap<Vec<u8>, Seen> = BTreeMap::new();
    for conflict in &found {
        seen.entry(conflict.path.clone()).or_default().add(conflict);
    }
    match choice {
        Choice::Version(keep) => settle(context, args, target, seen, &keep),
        Choice::File(file) => {
            let path = &found[0].path;
            // Open until all is settled: what is written stays with its inode number that long.
            let over = Over::open(&file, &target.outside(path))?;
            let known = &seen[path];
            // Only now: what is open keeps its bytes, so whatever comes next is not what is written over.
            let listed = list()?;
            if listed.is_empty() || !listed.iter().all(|conflict| known.knows(conflict)) {
                return Err(changed(over.path()));
            }
            over.write()?;
            let settled = list().and_then(|listed| {
                // It has settled the conflict.
                let Some(conflict) = listed.first() else { return Ok(()) };
                let id = over.version(conflict, target)?;
                seen.entry(path.clone()).or_default().add_version(id);
                settle(context, args, target, seen, &Keep::Version(hex(&id)))
            });
            settled.map_err(|failure| over.but_written(&file, failure))
        }
    }
}

/// The refusal of a path that leads into no mount; the name of a bucket is none.
fn or_all(context: &Context, path: &Path, failure: Failure) -> Failure {
    let name = path.to_str().and_then(|text| text.parse::<BucketName>().ok());
    match name.filter(|name| context.home.bucket_dir(name).exists()) {
        Some(name) if failure.code == Code::NotFound => Failure::usage(format_args!(
            "'{name}' is a bucket: add --all to settle everything in it, or name a path below its \
             mount point"
        )),
        _ => failure,
    }
}

/// Has the daemon settle what was `seen`.
fn settle(
    context: &Context,
    args: &ResolveArgs,
    target: &Target,
    seen: BTreeMap<Vec<u8>, Seen>,
    keep: &Keep,
) -> Result<()> {
    let opening = context.opening(&target.bucket, &args.passphrase)?;
    let paths: BTreeSet<_> = seen.keys().cloned().collect();
    let mut resolved = Resolved::default();
    let settled = portions(seen).into_iter().try_for_each(|seen| {
        let (opening, keep) = (opening.clone(), keep.clone());
        let portion = settle_portion(context, ResolveRequest { opening, seen, keep })?;
        resolved.settled += portion.settled;
        resolved.left.extend(portion.left);
        resolved.changed.extend(portion.changed);
        Ok(())
    });
    for conflict in &resolved.left {
        let path = target.outside(&conflict.path);
        ui::note(format_args!(
            "{}: still conflicts{}",
            ui::shown(path.as_os_str().as_encoded_bytes()),
            or_remove(conflict)
        ));
    }
    if let Err(failure) = settled {
        for path in &resolved.changed {
            ui::note(changed(&target.outside(path)).message);
        }
        // Of the portion that failed some may be settled too.
        let settled = match touching(context, target, &args.passphrase, true) {
            Ok(listed) => {
                let still: BTreeSet<_> = listed.into_iter().map(|it| it.path).collect();
                paths.difference(&still).count()
            }
            Err(_) => usize::try_from(resolved.settled).unwrap_or(usize::MAX),
        };
        return Err(but_settled(failure, settled));
    }
    let many = resolved.left.len() + resolved.changed.len();
    let mut refused = resolved.changed.iter().map(|path| changed(&target.outside(path)));
    match refused.next() {
        Some(refusal) if many == 1 => return Err(refusal),
        first => first.into_iter().chain(refused).for_each(|refusal| ui::note(refusal.message)),
    }
    if many == 0 { Ok(()) } else { Err(remaining(many)) }
}

fn settle_portion(context: &Context, request: ResolveRequest) -> Result<Resolved> {
    let client = Client::connect_or_start(&context.home, None)?;
    match client.ask(&Request::Resolve(request), &mut |_| ())? {
        Answer::Resolved(resolved) => Ok(resolved),
        _ => Err(Failure::unexpected_answer()),
    }
}

/// The failure to settle more than so many.
fn but_settled(failure: Failure, settled: usize) -> Failure {
    let were = match settled {
        0 => return failure,
        1 => "1 was".to_owned(),
        many => format!("{many} were"),
    };
    let Failure { code, message } = failure;
    Failure::new(code, format_args!("{message}; {were} settled: run it again for the rest"))
}

/// What was seen, as much at a time as a request takes.
fn portions(seen: BTreeMap<Vec<u8>, Seen>) -> Vec<BTreeMap<Vec<u8>, Seen>> {
    let mut portions = vec![BTreeMap::new()];
    let mut bytes = 0;
    for (path, seen) in seen {
        bytes += path.len() + seen.bytes() + ENTRY_BYTES;
        if bytes > PORTION_BYTES {
            portions.push(BTreeMap::new());
            bytes = path.len() + seen.bytes() + ENTRY_BYTES;
        }
        portions.last_mut().expect("because there is one at least").insert(path, seen);
    }
    portions
}

/// What settles a conflict of a file that was removed, and is no version of it.
fn or_remove(conflict: &ConflictInfo) -> &'static str {
    if conflict.kind == ConflictKind::DeleteModify {
        ", or remove it with 'rm' to keep the removal"
    } else {
        ""
    }
}

/// The refusal to decide on what was not seen.
fn changed(path: &Path) -> Failure {
    let path = ui::shown(path.as_os_str().as_encoded_bytes());
    let message = format!(
        "{path}: has changed since it was looked at, so no version was dropped: look again with \
         'cairnfs conflicts'"
    );
    Failure::new(Code::Conflicts, message)
}

/// What else is disputed under a name is settled with which version of it is to stay.
fn leave_to_versions(found: &mut Vec<ConflictInfo>) {
    let of_versions = found.iter().filter(|conflict| conflict.kind.is_of_versions());
    let names = |conflict: &ConflictInfo| {
        let others = conflict.other_names.iter().map(|other| other.path.clone());
        others.chain([conflict.path.clone()]).collect::<Vec<_>>()
    };
    let paths: BTreeSet<_> = of_versions.flat_map(names).collect();
    found.retain_mut(|conflict| {
        if conflict.kind.is_of_versions() || !paths.contains(&conflict.path) {
            return true;
        }
        // Of another name of the file it may be all that is disputed.
        let mut others = conflict.other_names.drain(..).filter(|it| !paths.contains(&it.path));
        let Some(other) = others.next() else { return false };
        drop(others);
        conflict.path = other.path;
        for (side, path) in conflict.sides.iter_mut().zip(other.shown) {
            side.path = path;
        }
        true
    });
}

/// Whether `path` is the contested name or one of the names that are shown for it.
fn takes_part(conflict: &ConflictInfo, path: &[u8]) -> bool {
    conflict.path == path || conflict.sides.iter().any(|side| side.path == path)
}

/// What the person means by `--keep`; refuses what cannot be kept.
fn choose(args: &ResolveArgs, target: &Target, found: &[ConflictInfo]) -> Result<Choice> {
    let word = args.keep.to_str().unwrap_or_default();
    let keep = match word {
        "ours" => Keep::Ours,
        "theirs" => Keep::Theirs,
        "both" => Keep::Both,
        _ => return version_or_file(&args.keep, target, found),
    };
    // With --all, what has no such version is left and said.
    if !args.all
        && let Some(conflict) = found.iter().find(|conflict| kept(conflict, &keep).is_empty())
    {
        let whose = if keep == Keep::Ours { "this device" } else { "another device" };
        let path = target.outside(&conflict.path);
        let known: Vec<_> = conflict.sides.iter().map(short_id).collect();
        let message = format!(
            "{}: no version of it was written by {whose}: name one of {}{}",
            path.display(),
            known.join(", "),
            or_remove(conflict)
        );
        return Err(Failure::new(Code::Failed, message));
    }
    Ok(Choice::Version(keep))
}

fn version_or_file(word: &OsStr, target: &Target, found: &[ConflictInfo]) -> Result<Choice> {
    let sides = || found.iter().flat_map(|conflict| &conflict.sides);
    let version = |side: &ConflictSide| Ok(Choice::Version(Keep::Version(hex(&side.id))));
    fn name(side: &ConflictSide) -> &[u8] {
        side.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
    // A name that is shown, as it is listed or as a path.
    let named = inside(target, Path::new(word));
    let is_named =
        |side: &&ConflictSide| name(side) == word.as_bytes() || named.as_ref() == Some(&side.path);
    if let Some(side) = sides().find(is_named) {
        return version(side);
    }
    let digits = word.to_str().unwrap_or_default().to_ascii_lowercase();
    let is_id = (ID_DIGITS_MIN..=64).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        let mut ids: Vec<_> = sides().filter(|side| hex(&side.id).starts_with(&digits)).collect();
        ids.sort_by_key(|side| side.id);
        ids.dedup_by_key(|side| side.id);
        return match ids.as_slice() {
            [one] => version(one),
            [] => {
                let known: Vec<_> = sides().map(short_id).collect();
                let message =
                    format!("no version {digits} takes part: there are {}", known.join(", "));
                Err(Failure::usage(message))
            }
            _ => Err(Failure::usage(format_args!("more than one version begins with {digits}"))),
        };
    }
    let file = PathBuf::from(word);
    match fs::metadata(&file) {
        Ok(meta) if meta.is_file() => Ok(Choice::File(file)),
        Ok(_) => Err(Failure::usage(format_args!("{}: not a regular file", file.display()))),
        Err(_) => {
            let mut names: Vec<_> = sides().map(|side| ui::shown(name(side))).collect();
            names.dedup();
            Err(Failure::usage(format_args!(
                "--keep {}: no such copy or version takes part ({} do), and there is no such file: write \
                 ours, theirs, both, a version's id or the name of a file",
                ui::shown_path(&file),
                names.join(", ")
            )))
        }
    }
}

/// The path in the target's bucket, if `path` leads there.
fn inside(target: &Target, path: &Path) -> Option<Vec<u8>> {
    let place = place::resolve_parent(path).ok()?;
    let below = place.strip_prefix(target.dir.as_ref()?).ok()?;
    Some(below.as_os_str().as_bytes().to_vec())
}

/// The places of the versions that stay. More than one that is meant is none: `version_or_file` has
/// seen to that.
fn kept(conflict: &ConflictInfo, keep: &Keep) -> Vec<usize> {
    conflict.kept(keep).unwrap_or_default()
}

/// A folder has no version's id.
fn is_folder(side: &ConflictSide) -> bool {
    side.id == [0; 32]
}

fn foretell(target: &Target, conflict: &ConflictInfo, choice: &Choice) {
    let name = |path: &[u8]| {
        let path = target.outside(path);
        ui::shown(path.as_os_str().as_encoded_bytes())
    };
    let path = name(&conflict.path);
    let keep = match choice {
        Choice::Version(keep) => keep,
        Choice::File(file) => {
            return ui::result(format_args!(
                "{path}: would become what is in {}; no other version would stay",
                file.display()
            ));
        }
    };
    let kept = kept(conflict, keep);
    if kept.is_empty() {
        return ui::result(format_args!("{path}: would be left: there is no such version"));
    }
    // A folder stays under its name, and a file beside it under that which it is shown under.
    let has_folder = conflict.sides.first().is_some_and(is_folder);
    for (place, side) in conflict.sides.iter().enumerate() {
        let fate = match (kept.contains(&place), keep) {
            _ if is_folder(side) => "would stay".to_owned(),
            (true, Keep::Ours) if !conflict.kind.is_of_versions() => {
                "would stay, as this device has it".to_owned()
            }
            (true, Keep::Theirs) if !conflict.kind.is_of_versions() => {
                "would stay, as the other device has it".to_owned()
            }
            (true, _) if !conflict.kind.is_of_versions() => "would stay, as it is shown".to_owned(),
            (true, Keep::Both) => "would stay, as a file of its own".to_owned(),
            (true, _) if has_folder => format!("would stay, as {}", name(&side.path)),
            (true, _) => format!("would stay, as {path}"),
            (false, _) => "would go".to_owned(),
        };
        ui::result(format_args!("{} ({}): {fate}", name(&side.path), short_id(side)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use cairnfs_mount_core::Author;

    use super::*;
    use crate::cli::PassphraseArgs;

    fn side(path: &str, id: u8, ours: bool, age: u64) -> ConflictSide {
        ConflictSide {
            path: path.into(),
            id: [id; 32],
            author: Author { ours, ..Author::default() },
            removed: false,
            newest: true,
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(100 - age),
            len: 1,
        }
    }

    fn conflict() -> ConflictInfo {
        ConflictInfo {
            path: b"d/f".to_vec(),
            kind: ConflictKind::Content,
            sides: vec![
                side("d/f", 0x1a, true, 5),
                side("d/f@2a2a2a2a", 0x2a, false, 7),
                side("d/f@2b2b2b2b", 0x2b, false, 6),
            ],
            settings: Vec::new(),
            remover: None,
            other_names: Vec::new(),
        }
    }

    fn target() -> Target {
        Target { bucket: "b".parse().unwrap(), dir: None, path: b"d/f".to_vec() }
    }

    fn meant(word: &str) -> Result<Choice> {
        version_or_file(OsStr::new(word), &target(), &[conflict()])
    }

    #[test]
    fn a_version_is_named_by_its_id_or_by_the_name_it_is_shown_under() {
        let version = |id: u8| Choice::Version(Keep::Version(hex(&[id; 32])));
        assert_eq!(meant("1A1A"), Ok(version(0x1a)));
        assert_eq!(meant("f@2b2b2b2b"), Ok(version(0x2b)));
        assert_eq!(meant("2b2b2b2b2b"), Ok(version(0x2b)));
        for (word, says) in [("9999", "1a1a1a1a, 2a2a2a2a"), ("1a1", "ours, theirs")] {
            let failure = meant(word).unwrap_err();
            assert!(failure.message.contains(says), "{}", failure.message);
            assert_eq!(failure.code, Code::Usage);
        }
        let mut one = conflict();
        one.sides[2].id = [0x2a; 32];
        one.sides[2].id[31] = 0;
        let both = version_or_file(OsStr::new("2a2a"), &target(), &[one]).unwrap_err();
        assert!(both.message.contains("more than one"), "{}", both.message);
    }

    #[test]
    fn who_means_a_removal_is_told_what_keeps_it() {
        let changed = ConflictInfo {
            kind: ConflictKind::DeleteModify,
            sides: vec![side("d/f", 0x2a, false, 7)],
            ..conflict()
        };
        let args = ResolveArgs {
            path: None,
            keep: "ours".into(),
            all: false,
            dry_run: false,
            passphrase: PassphraseArgs::default(),
        };
        let refused = |conflict| choose(&args, &target(), &[conflict]).unwrap_err().message;
        let message = refused(changed.clone());
        assert!(
            message.ends_with("2a2a2a2a, or remove it with 'rm' to keep the removal"),
            "{message}"
        );
        let message = refused(ConflictInfo { kind: ConflictKind::Content, ..changed });
        assert!(message.ends_with("name one of 2a2a2a2a"), "{message}");
    }

    #[test]
    fn what_was_seen_of_many_conflicts_goes_in_portions() {
        let mut one = Seen::default();
        one.add(&conflict());
        let seen: BTreeMap<_, _> =
            (0..10_000).map(|n| (format!("d/{n}").into_bytes(), one.clone())).collect();
        let all = portions(seen.clone());
        for portion in &all {
            let bytes = postcard::to_stdvec(portion).unwrap().len();
            assert!(bytes <= PORTION_BYTES, "{bytes}");
        }
        assert!(all.len() < 20, "{}", all.len());
        assert_eq!(all.into_iter().flatten().collect::<BTreeMap<_, _>>(), seen);
    }

    #[test]
    fn a_failure_says_how_many_were_settled_before_it() {
        let after = |settled| but_settled(Failure::new(Code::NoSpace, "d/f: no space"), settled);
        assert_eq!(after(0).message, "d/f: no space");
        assert_eq!(after(1).message, "d/f: no space; 1 was settled: run it again for the rest");
        assert_eq!(after(9).message, "d/f: no space; 9 were settled: run it again for the rest");
        assert_eq!(after(9).code, Code::NoSpace);
    }

    #[test]
    fn a_content_is_named_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("from");
        fs::write(&file, "merged by hand").unwrap();
        assert_eq!(meant(file.to_str().unwrap()), Ok(Choice::File(file)));
        assert!(meant(dir.path().to_str().unwrap()).is_err());
    }
}
