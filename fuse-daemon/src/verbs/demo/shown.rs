//! What the demo shows, step by step.

use std::{fs, os::unix::ffi::OsStrExt};

use super::{
    sandbox::HERE,
    script::{Script, Step, check},
    tree::{self, Entry, SKIPPED, Tree},
    two,
};
use crate::{
    exit::{Code, Failure, Result},
    values::Size,
};

const STORY: &str = "At low tide the harbour of Cairnhaven smells of kelp and diesel.";
const PAGE: &str = "plans-for-the-summer.txt";
const LAST: &str = "written-at-the-last-moment.txt";

/// The main job.
pub(super) fn with_fuse() -> Vec<Step> {
    vec![
        Step { aim: "Make a bucket, sealed under a passphrase", act: create },
        Step { aim: "Mount it: from here on it is a folder like any other", act: mount },
        Step { aim: "Write a real source tree into it", act: write_tree },
        Step { aim: "Write a page, edit it, and keep both versions", act: edit_twice },
        Step { aim: "Is everything safe?", act: status },
        Step { aim: "Which versions are there?", act: versions },
        Step { aim: "Bring the first version of the page back", act: bring_back },
        Step { aim: "Is there anything to read in what is stored?", act: no_plaintext },
        Step { aim: "Write a file and kill the daemon with -9 at once", act: kill },
        Step { aim: "A dead mount is an error, never an empty folder", act: dead_mount },
        Step { aim: "Mount it again", act: mount_again },
        Step { aim: "Compare every byte with what was written", act: compare },
        Step { aim: "Read and verify everything that is stored", act: verify },
        Step { aim: "Invite a second device, which joins and mounts it too", act: two::join },
        Step { aim: "Write here, read there", act: two::follow },
        Step { aim: "Change one file on both while they are apart", act: two::apart },
        Step { aim: "Settle that", act: two::settle },
        Step { aim: "Stop the second device", act: two::leave },
        Step { aim: "Unmount it", act: unmount },
        Step { aim: "A wrong passphrase opens nothing", act: wrong_passphrase },
        Step { aim: "Stop the daemon", act: stop },
    ]
}

/// What needs no mount.
pub(super) fn without_fuse() -> Vec<Step> {
    vec![
        Step { aim: "Make a bucket, sealed under a passphrase", act: create },
        Step { aim: "List the buckets", act: list },
        Step { aim: "Seal its state as a version", act: publish },
        Step { aim: "Which versions are there?", act: all_versions },
        Step { aim: "A wrong passphrase opens nothing", act: wrong_passphrase },
        Step { aim: "Kill the daemon with -9; read and verify everything", act: kill_and_verify },
        Step { aim: "Is everything safe?", act: status },
        Step { aim: "Stop the daemon", act: stop },
    ]
}

fn create(script: &mut Script<'_>) -> Result<String> {
    script.run("cairnfs create photos --passphrase-file passphrase.txt")?;
    Ok("an encrypted bucket below home/buckets".into())
}

fn mount(script: &mut Script<'_>) -> Result<String> {
    script.run("mkdir photos")?;
    script.run("cairnfs mount photos photos --passphrase-file passphrase.txt")?;
    let line = script.run("findmnt -n -o TARGET,FSTYPE photos || mount | grep /photos")?;
    check(line.contains("cairnfs"), "the folder is not mounted")?;
    Ok("the mount can be used".into())
}

fn write_tree(script: &mut Script<'_>) -> Result<String> {
    let (dir, tree) = tree::find(&script.path("made"))?;
    let skipped: Vec<_> = SKIPPED.iter().map(|name| format!("--exclude='{name}'")).collect();
    let from = dir.display();
    script.run("mkdir photos/tree")?;
    script.run(&format!(
        "tar -C '{from}' {} -cf - . | tar -C photos/tree -xf - && du -sh photos/tree",
        skipped.join(" ")
    ))?;
    let said = format!(
        "{} files and folders, {} through the mount",
        tree.entries.len(),
        Size(tree.bytes).about()
    );
    script.source = Some((dir, tree));
    Ok(said)
}

fn edit_twice(script: &mut Script<'_>) -> Result<String> {
    script.run(&format!("echo '{STORY}' > photos/{PAGE}"))?;
    let first = script.run("cairnfs publish photos")?;
    script.run(&format!("echo 'In August we row to the island.' >> photos/{PAGE}"))?;
    let second = script.run("cairnfs publish photos")?;
    script.run(&format!("sed -i s/August/July/ photos/{PAGE}"))?;
    let third = script.run("cairnfs publish photos")?;
    check(first != second && second != third, "an edit made no new version")?;
    script.first = first.trim().to_owned();
    script.written.insert(PAGE, format!("{STORY}\nIn July we row to the island.\n"));
    Ok("three versions of the page".into())
}

fn status(script: &mut Script<'_>) -> Result<String> {
    let said = script.run("cairnfs status photos --wait-safe")?;
    check(said.starts_with("safe: yes"), "not everything is safe")?;
    Ok("everything written is saved".into())
}

fn versions(script: &mut Script<'_>) -> Result<String> {
    script.run("cairnfs log photos --limit 3 --changes 3")?;
    let said = script.run(&format!("cairnfs log photos {PAGE}"))?;
    let versions = said.lines().filter(|line| !line.starts_with(' ')).count();
    check(versions >= 3, format_args!("the page has {versions} versions instead of 3"))?;
    Ok(format!("{versions} versions changed the page"))
}

fn bring_back(script: &mut Script<'_>) -> Result<String> {
    let first = script.first.get(..16).unwrap_or_default();
    let said = script.run(&format!(
        "cairnfs restore photos {PAGE} --at {first} --to first-page.txt && cat first-page.txt"
    ))?;
    check(said.lines().last() == Some(STORY), "the page is not what it was at first")?;
    Ok("the page as it was before the edits; in the folder nothing has changed".into())
}

/// Lines and names from the bucket, looked for in every stored byte.
fn no_plaintext(script: &mut Script<'_>) -> Result<String> {
    let names =
        script.source.iter().flat_map(|(_, tree)| &tree.entries).filter_map(|(path, it)| {
            let name = path.file_name()?.to_str()?;
            (matches!(it, Entry::File { .. }) && name.len() >= 12).then(|| name.to_owned())
        });
    let mut needles: Vec<_> = names.take(500).collect();
    needles.extend([STORY.to_owned(), PAGE.to_owned(), "row to the island".to_owned()]);
    for path in ["README.md", "Cargo.toml", "stdio.h", "string.h"] {
        let text = fs::read_to_string(script.path("photos/tree").join(path)).unwrap_or_default();
        needles.extend(text.lines().filter(|line| line.len() >= 24).take(50).map(Into::into));
    }
    let count = needles.len();
    fs::write(script.path("secrets.txt"), needles.join("\n") + "\n")
        .map_err(|err| Failure::io("cannot write the list", &err))?;
    // In the mount they are found, so they would be found below it too.
    let found = script.run("grep -raFf secrets.txt photos | wc -l")?;
    check(found.trim().parse().is_ok_and(|lines: u64| lines > 0), "the search itself is broken")?;
    script.expect("grep -raFf secrets.txt home", 1)?;
    script.run("find home | grep -cFf secrets.txt | grep -x 0")?;
    let bytes = Tree::read(&script.path("home/buckets"))
        .map(|stored| stored.bytes)
        .map_err(|err| Failure::io("cannot read what is stored", &err))?;
    Ok(format!("none of {count} lines and names is in the {} stored", Size(bytes).about()))
}

fn kill(script: &mut Script<'_>) -> Result<String> {
    let pid = script.sandbox.daemon(HERE)?;
    let text = "This file was closed a moment before.";
    script.run(&format!("echo '{text}' > photos/{LAST}; kill -9 {}", pid.as_raw_nonzero()))?;
    script.sandbox.wait_for_daemon()?;
    script.written.insert(LAST, format!("{text}\n"));
    Ok(format!("process {} is gone, without a chance to save", pid.as_raw_nonzero()))
}

fn dead_mount(script: &mut Script<'_>) -> Result<String> {
    let command = "ls photos 2>&1; test $? -ne 0";
    script.run(command)?;
    Ok("a backup that runs now fails, instead of mirroring an empty folder".into())
}

fn mount_again(script: &mut Script<'_>) -> Result<String> {
    script.run("cairnfs mount photos photos --passphrase-file passphrase.txt && ls photos")?;
    Ok("the dead mount was taken away, the bucket recovered".into())
}

fn compare(script: &mut Script<'_>) -> Result<String> {
    let failed = |err: &std::io::Error| Failure::io("cannot read the mount", err);
    let (dir, before) = script
        .source
        .as_ref()
        .ok_or_else(|| Failure::new(Code::Failed, "there is nothing to compare with"))?;
    let after = Tree::read(&script.path("photos/tree")).map_err(|err| failed(&err))?;
    if let Some(path) = before.difference(&after) {
        let shown = crate::ui::shown(path.as_os_str().as_bytes());
        let message = format!("{shown} is not what it was in {}", dir.display());
        return Err(Failure::new(Code::Failed, message));
    }
    for (name, text) in &script.written {
        script.run(&format!("cat photos/{name}"))?;
        let read = fs::read_to_string(script.path("photos").join(name));
        check(read.map_err(|err| failed(&err))? == *text, format_args!("{name} has changed"))?;
    }
    Ok(format!(
        "{} files and folders, {}, equal by checksum; the last file is there too",
        after.entries.len(),
        Size(after.bytes).about()
    ))
}

fn verify(script: &mut Script<'_>) -> Result<String> {
    script.run("cairnfs check photos")?;
    Ok("no damage".into())
}

fn unmount(script: &mut Script<'_>) -> Result<String> {
    script.run("cairnfs umount photos")?;
    let left = fs::read_dir(script.path("photos")).map(Iterator::count).unwrap_or(1);
    check(left == 0, "the folder is still mounted")?;
    Ok("saved, published, unmounted".into())
}

fn wrong_passphrase(script: &mut Script<'_>) -> Result<String> {
    script
        .expect("cairnfs log photos --passphrase-command 'echo correct horse battery stable'", 4)?;
    Ok("refused".into())
}

fn stop(script: &mut Script<'_>) -> Result<String> {
    script.run("cairnfs stop")?;
    check(script.sandbox.daemon(HERE).is_err(), "the daemon still runs")?;
    Ok("nothing runs any more".into())
}

fn list(script: &mut Script<'_>) -> Result<String> {
    let said = script.run("cairnfs list")?;
    check(said.contains("photos"), "the bucket is not listed")?;
    Ok("one bucket".into())
}

fn publish(script: &mut Script<'_>) -> Result<String> {
    let id = script.run("cairnfs publish photos --passphrase-file passphrase.txt")?;
    check(id.trim().len() == 64, "that is no version's id")?;
    Ok("that is the version's id".into())
}

fn all_versions(script: &mut Script<'_>) -> Result<String> {
    let said = script.run("cairnfs log photos --passphrase-file passphrase.txt")?;
    check(!said.is_empty(), "there is no version")?;
    Ok("every version is signed by the device that made it".into())
}

fn kill_and_verify(script: &mut Script<'_>) -> Result<String> {
    let pid = script.sandbox.daemon(HERE)?;
    script.run(&format!("kill -9 {}", pid.as_raw_nonzero()))?;
    script.sandbox.wait_for_daemon()?;
    script.run("cairnfs check photos --passphrase-file passphrase.txt")?;
    Ok("no damage".into())
}
