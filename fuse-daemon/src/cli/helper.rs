//! The form in which mount(8) and `/etc/fstab` call a file system.
//!
//! `mount -t fuse.cairnfs NAME DIR -o save=flush` runs either `mount.fuse.cairnfs NAME DIR -o
//! OPTIONS`, if there is such a link to this program, or, by way of `mount.fuse3`, `cairnfs NAME
//! DIR -o OPTIONS`. Both become `cairnfs mount NAME DIR -o OPTIONS`.

use std::{ffi::OsString, path::Path};

use clap::CommandFactory;

use super::Cli;

/// The words as `cairnfs mount ...` if they are in the form of a mount helper, else as they are.
pub(crate) fn rewrite(words: Vec<OsString>) -> Vec<OsString> {
    let called_as = words.first().and_then(|word| Path::new(word).file_name()?.to_str());
    let is_helper = called_as.is_some_and(|name| name.starts_with("mount."));
    if !is_helper && !is_fuse_form(&words) {
        return words;
    }
    let mut places = Vec::new();
    let mut rest = Vec::new();
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            // Said by mount(8) to all helpers: sloppy, do not write mtab, verbose.
            Some("-s" | "-n" | "-v" | "-sn" | "-nv") => (),
            // The type is known, and a namespace is not ours to enter.
            Some("-t" | "-N") => drop(words.next()),
            // Fake: do as if.
            Some("-f") if is_helper => rest.push("--dry-run".into()),
            Some("-o") => {
                rest.push(word);
                rest.extend(words.next());
            }
            Some(flag) if flag.starts_with('-') => rest.push(word),
            _ => places.push(word),
        }
    }
    let mut all: Vec<OsString> = vec!["cairnfs".into(), "mount".into()];
    all.extend(rest);
    all.push("--".into());
    all.extend(places);
    all
}

/// Whether the words are `cairnfs NAME DIR -o OPTIONS`: no verb but `mount` takes `-o`, so that a
/// bucket may be called like a verb.
fn is_fuse_form(words: &[OsString]) -> bool {
    let Some(name) = words.get(1).and_then(|word| word.to_str()) else { return false };
    let with_options = words.get(3).is_some_and(|word| word == "-o");
    let verb = Cli::command().find_subcommand(name).is_some();
    with_options && !name.starts_with('-') && (!verb || (name != "mount" && words.len() == 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let words = line.split(' ').map(Into::into).collect();
        rewrite(words).iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_forms_of_mount_become_the_verb() {
        let verb = "cairnfs mount -o rw,save=flush -- photos /mnt";
        assert_eq!(rewritten("/sbin/mount.fuse.cairnfs photos /mnt -o rw,save=flush"), verb);
        assert_eq!(rewritten("mount.cairnfs photos /mnt -sn -v -o rw,save=flush"), verb);
        assert_eq!(rewritten("cairnfs photos /mnt -o rw,save=flush"), verb);
        assert_eq!(
            rewritten("mount.fuse3 photos /mnt -o a -t fuse.cairnfs"),
            "cairnfs mount -o a -- photos /mnt"
        );
        assert_eq!(rewritten("mount.cairnfs photos /mnt"), "cairnfs mount -- photos /mnt");
    }

    #[test]
    fn a_bucket_may_be_called_like_a_verb() {
        assert_eq!(rewritten("cairnfs list /mnt -o rw"), "cairnfs mount -o rw -- list /mnt");
    }

    #[test]
    fn verbs_stay_what_they_are() {
        for line in [
            "cairnfs",
            "cairnfs list",
            "cairnfs mount photos -o rw /mnt",
            "cairnfs mount -o rw photos /mnt",
            "cairnfs photos /mnt",
        ] {
            assert_eq!(rewritten(line), line);
        }
    }
}
