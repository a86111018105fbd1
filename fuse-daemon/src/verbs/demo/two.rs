//! The part of the demo with a second device: another home, with a daemon and a mount of its own.

use std::{collections::BTreeMap, fs};

use rustix::process::Pid;

use super::{
    sandbox::{HERE, THERE, wait_until_stopped},
    script::{Script, check},
};
use crate::exit::{Failure, Result};

const NOTE: &str = "ferry-times.txt";
/// How often both sides are looked at, a quarter of a second apart, until they are equal.
const LOOKS: u32 = 120;

pub(super) fn join(script: &mut Script<'_>) -> Result<String> {
    script.run("cairnfs invite photos > ticket.txt")?;
    script.run(&there("join \"$(cat ticket.txt)\" --no-passphrase"))?;
    script.run("mkdir photos-there")?;
    script.run(&there("mount photos photos-there"))?;
    script.run("diff -r photos photos-there && echo equal")?;
    Ok("a member with everything that is in the bucket".into())
}

pub(super) fn follow(script: &mut Script<'_>) -> Result<String> {
    script.run(&format!("echo 'The ferry leaves at nine.' > photos/{NOTE}"))?;
    until_equal(script)?;
    script.run(&format!("cat photos-there/{NOTE}"))?;
    Ok("what is closed here is readable there".into())
}

/// While one stands still the other goes on: they know nothing of each other.
pub(super) fn apart(script: &mut Script<'_>) -> Result<String> {
    let (here, elsewhere) = (script.sandbox.daemon(HERE)?, script.sandbox.daemon(THERE)?);
    stop(script, elsewhere)?;
    script
        .run(&format!("echo 'The ferry leaves at ten.' > photos/{NOTE}; cairnfs publish photos"))?;
    stop(script, here)?;
    go_on(script, elsewhere)?;
    script.run(&format!("echo 'No ferry on Sundays.' >> photos-there/{NOTE}"))?;
    script.run(&there("publish photos"))?;
    go_on(script, here)?;
    until_equal(script)?;
    script.run(&format!("ls photos/{NOTE}* photos-there/{NOTE}*"))?;
    let versions = versions(script, "photos")?;
    check(versions.len() == 2, format_args!("{} versions instead of 2", versions.len()))?;
    let mut texts: Vec<_> = versions.values().map(String::as_str).collect();
    texts.sort_unstable();
    let expected =
        ["The ferry leaves at nine.\nNo ferry on Sundays.\n", "The ferry leaves at ten.\n"];
    check(texts == expected, "one of the two edits is lost")?;
    script.expect("cairnfs conflicts photos", 10)?;
    Ok("both edits stand, under the same names on both devices".into())
}

fn stop(script: &mut Script<'_>, daemon: Pid) -> Result<()> {
    script.run(&format!("kill -STOP {}", daemon.as_raw_nonzero()))?;
    wait_until_stopped(daemon)
}

fn go_on(script: &mut Script<'_>, daemon: Pid) -> Result<()> {
    script.run(&format!("kill -CONT {}", daemon.as_raw_nonzero())).map(drop)
}

pub(super) fn settle(script: &mut Script<'_>) -> Result<String> {
    script.run(&format!("cairnfs resolve photos/{NOTE} --keep ours"))?;
    until_equal(script)?;
    script.run(&there("conflicts photos"))?;
    check(versions(script, "photos-there")?.len() == 1, "the conflict is still there")?;
    Ok("settled here, and so there".into())
}

pub(super) fn leave(script: &mut Script<'_>) -> Result<String> {
    script.run(&there("stop"))?;
    Ok("saved, published, unmounted".into())
}

/// A command on the other device.
fn there(arguments: &str) -> String {
    format!("CAIRNFS_HOME=$PWD/{THERE} cairnfs {arguments}")
}

/// The versions of the note in `mount`: by name.
fn versions(script: &Script<'_>, mount: &str) -> Result<BTreeMap<String, String>> {
    let failed = |err: &std::io::Error| Failure::io("cannot read the mount", err);
    let mut versions = BTreeMap::new();
    for entry in fs::read_dir(script.path(mount)).map_err(|err| failed(&err))? {
        let name = entry.map_err(|err| failed(&err))?.file_name().to_string_lossy().into_owned();
        if name.starts_with(NOTE) {
            let text = fs::read_to_string(script.path(mount).join(&name));
            versions.insert(name, text.map_err(|err| failed(&err))?);
        }
    }
    Ok(versions)
}

/// Waits until the note is the same on both: what `sync` says on both sides.
fn until_equal(script: &Script<'_>) -> Result<()> {
    script.run("cairnfs sync photos --timeout 30s")?;
    for _ in 0..LOOKS {
        if versions(script, "photos")? == versions(script, "photos-there")? {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
    check(false, "the two devices do not agree")
}
