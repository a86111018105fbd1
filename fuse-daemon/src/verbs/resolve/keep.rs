//! What `--keep` means, and what would become of each version.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use cairnfs_mount_core::{ConflictInfo, ConflictKind, ConflictSide, Keep};

use super::super::{conflicts::short_id, target::Target};
use crate::{
    cli::ResolveArgs,
    exit::{Code, Failure, Result},
    place, ui,
    values::hex,
};

/// Fewer digits than these do not name a version.
const ID_DIGITS_MIN: usize = 4;

/// What is to stay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// A version that is there.
    Version(Keep),
    /// What is in this file.
    File(PathBuf),
}

/// What the person means by `--keep`; refuses what cannot be kept.
pub(super) fn choose(
    args: &ResolveArgs,
    target: &Target,
    found: &[ConflictInfo],
) -> Result<Choice> {
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

pub(super) fn foretell(target: &Target, conflict: &ConflictInfo, choice: &Choice) {
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

/// What settles a conflict of a file that was removed, and is no version of it.
pub(super) fn or_remove(conflict: &ConflictInfo) -> &'static str {
    if conflict.kind == ConflictKind::DeleteModify {
        ", or remove it with 'rm' to keep the removal"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{conflict, side},
        *,
    };
    use crate::cli::PassphraseArgs;

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
    fn a_content_is_named_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("from");
        fs::write(&file, "merged by hand").unwrap();
        assert_eq!(meant(file.to_str().unwrap()), Ok(Choice::File(file)));
        assert!(meant(dir.path().to_str().unwrap()).is_err());
    }
}
