//! `cairnfs resolve`: says which version of a contested name is to stay.

mod keep;
mod over;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use cairnfs_mount_core::{ConflictInfo, Keep, Seen};

use self::{
    keep::{Choice, choose, foretell, or_remove},
    over::Over,
};
use super::{
    Context,
    conflicts::{remaining, touching},
    target::Target,
};
use crate::{
    cli::ResolveArgs,
    control::{Answer, Client, Request, ResolveRequest, Resolved},
    exit::{Code, Failure, Result},
    home::BucketName,
    ui,
    values::hex,
};

/// How much of what was seen goes into one request, which takes 256 KiB.
const PORTION_BYTES: usize = 128 << 10;

/// What a conflict takes there besides its path and what was seen of it, at the most.
const ENTRY_BYTES: usize = 16;

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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use cairnfs_mount_core::{Author, ConflictKind, ConflictSide};

    use super::*;

    pub(super) fn side(path: &str, id: u8, ours: bool, age: u64) -> ConflictSide {
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

    pub(super) fn conflict() -> ConflictInfo {
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
}
