//! `cairnfs resolve`: says which version of a contested name is to stay.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::IntoRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use cairnfs_mount_core::{ConflictInfo, ConflictSide, Keep};

use super::{
    Context,
    conflicts::{remaining, short_id, touching},
    target::Target,
};
use crate::{
    cli::ResolveArgs,
    control::{Answer, Client, Request, ResolveRequest},
    exit::{Code, Failure, Result},
    place, ui,
    values::hex,
};

/// Fewer digits than these do not name a version.
const ID_DIGITS_MIN: usize = 4;

/// What is to stay.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Choice {
    /// A version that is there.
    Version(Keep),
    /// What is in this file.
    File(PathBuf),
}

pub(super) fn run(context: &Context, args: &ResolveArgs) -> Result<()> {
    let target = if args.all {
        Target::find(context, args.path.as_os_str())?
    } else {
        Target::below(&context.mounts()?, &args.path)?
    };
    let mut found = touching(context, &target, &args.passphrase)?;
    if !args.all {
        found.retain(|conflict| takes_part(conflict, &target.path));
    }
    let shown = args.path.display();
    if found.is_empty() {
        return Err(Failure::new(Code::Failed, format_args!("{shown}: nothing conflicts")));
    }
    leave_to_versions(&mut found);
    let choice = choose(args, &target, &found)?;
    if args.dry_run {
        found.iter().for_each(|conflict| foretell(&target, conflict, &choice));
        return Ok(());
    }
    let keep = match choice {
        Choice::Version(keep) => keep,
        Choice::File(file) => {
            write_over(&file, &target.outside(&found[0].path))?;
            Keep::Shown
        }
    };
    let opening = context.opening(&target.bucket, &args.passphrase)?;
    let paths = found.into_iter().map(|conflict| conflict.path).collect();
    let request = Request::Resolve(ResolveRequest { opening, paths, keep });
    let client = Client::connect_or_start(&context.home, None)?;
    let Answer::Resolved(resolved) = client.ask(&request, &mut |_| ())? else {
        return Err(Failure::new(Code::Failed, "the daemon gave another answer"));
    };
    for conflict in &resolved.left {
        let path = target.outside(&conflict.path);
        ui::note(format_args!(
            "{}: still conflicts",
            ui::shown(path.as_os_str().as_encoded_bytes())
        ));
    }
    if resolved.left.is_empty() { Ok(()) } else { Err(remaining(resolved.left.len())) }
}

/// What else is disputed under a name is settled with which version of it is to stay.
fn leave_to_versions(found: &mut Vec<ConflictInfo>) {
    let of_versions = found.iter().filter(|conflict| conflict.is_of_versions());
    let paths: BTreeSet<_> = of_versions.map(|conflict| conflict.path.clone()).collect();
    found.retain(|conflict| conflict.is_of_versions() || !paths.contains(&conflict.path));
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
        _ if args.all => {
            return Err(Failure::usage(
                "with --all only ours, theirs or both can be kept: a version or file is of one path",
            ));
        }
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
            "{}: no version of it was written by {whose}: name one of {}",
            path.display(),
            known.join(", ")
        );
        return Err(Failure::new(Code::Failed, message));
    }
    Ok(Choice::Version(keep))
}

fn version_or_file(word: &OsStr, target: &Target, found: &[ConflictInfo]) -> Result<Choice> {
    let sides = || found.iter().flat_map(|conflict| &conflict.sides);
    let version = |side: &ConflictSide| Ok(Choice::Version(Keep::Version(hex(&side.id))));
    // A name that is shown, as it is listed or as a path.
    let named = inside(target, Path::new(word));
    let is_named = |side: &&ConflictSide| {
        let name = side.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name == word.as_bytes() || named.as_ref() == Some(&side.path)
    };
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
        Err(_) => Err(Failure::usage(format_args!(
            "--keep {}: write ours, theirs, both, a version's id or the name of a file",
            file.display()
        ))),
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
            (true, Keep::Ours) if !conflict.is_of_versions() => {
                "would stay, as this device has it".to_owned()
            }
            (true, Keep::Theirs) if !conflict.is_of_versions() => {
                "would stay, as the other device has it".to_owned()
            }
            (true, _) if !conflict.is_of_versions() => "would stay, as it is shown".to_owned(),
            (true, Keep::Both) => "would stay, as a file of its own".to_owned(),
            (true, _) if has_folder => format!("would stay, as {}", name(&side.path)),
            (true, _) => format!("would stay, as {path}"),
            (false, _) => "would go".to_owned(),
        };
        ui::result(format_args!("{} ({}): {fate}", name(&side.path), short_id(side)));
    }
}

/// Makes the content of `file` that of the contested file at `path` in the mount.
fn write_over(file: &Path, path: &Path) -> Result<()> {
    let mut from = File::open(file).map_err(|err| Failure::file("read", file, &err))?;
    let failed = |err: &io::Error| Failure::file("write", path, err);
    let (source, meta) = from
        .metadata()
        .and_then(|source| Ok((source, fs::symlink_metadata(path)?)))
        .map_err(|err| failed(&err))?;
    if !meta.is_file() {
        let message = format!("{}: only a regular file can take a content", path.display());
        return Err(Failure::usage(message));
    }
    if (source.dev(), source.ino()) == (meta.dev(), meta.ino()) {
        return Ok(());
    }
    let mut to =
        OpenOptions::new().write(true).truncate(true).open(path).map_err(|err| failed(&err))?;
    io::copy(&mut from, &mut to).map_err(|err| failed(&err))?;
    rustix::fs::fsync(&to).map_err(|err| failed(&err.into()))?;
    nix::unistd::close(to.into_raw_fd()).map_err(|err| failed(&err.into()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn side(path: &str, id: u8, ours: bool, age: u64) -> ConflictSide {
        ConflictSide {
            path: path.into(),
            id: [id; 32],
            author: None,
            author_name: String::new(),
            ours,
            newest: true,
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(100 - age),
            len: 1,
        }
    }

    fn conflict() -> ConflictInfo {
        ConflictInfo {
            path: b"d/f".to_vec(),
            kind: "content".into(),
            sides: vec![
                side("d/f", 0x1a, true, 5),
                side("d/f@2a2a2a2a", 0x2a, false, 7),
                side("d/f@2b2b2b2b", 0x2b, false, 6),
            ],
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
    fn a_file_replaces_the_content_and_nothing_but_a_file_does() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "merged by hand").unwrap();
        fs::write(&to, "what was there, which is longer").unwrap();
        write_over(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"merged by hand");
        write_over(&to, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"merged by hand");
        assert_eq!(write_over(&from, dir.path()).unwrap_err().code, Code::Usage);
        assert_eq!(meant(from.to_str().unwrap()), Ok(Choice::File(from)));
        assert!(meant(dir.path().to_str().unwrap()).is_err());
    }
}
