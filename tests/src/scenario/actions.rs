//! What a device does in a scenario, in calls of a file system.

use std::collections::BTreeSet;

use super::{
    devices::{Device, Pace, Shown, Told},
    text::{Ids, Pattern, unescape},
};

/// Runs a list of actions as the case files write them.
pub(super) fn run(device: &mut dyn Device, actions: &str, ids: &Ids, pace: Pace) -> Told {
    for (index, action) in words(actions).into_iter().enumerate() {
        if index > 0 && pace == Pace::EachAction {
            device.publish()?;
        }
        run_one(device, &action, ids).map_err(|why| format!("{}: {why}", action.join(" ")))?;
    }
    Ok(())
}

/// The contents whose ids must be known to carry `actions` out.
pub(super) fn contents_in_names(actions: &str) -> BTreeSet<String> {
    let paths = words(actions).into_iter().flatten().map(Pattern::parse);
    paths.flat_map(|path| path.contents().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn words(actions: &str) -> Vec<Vec<&str>> {
    let actions = actions.split(';').map(|action| action.split_whitespace().collect::<Vec<_>>());
    actions.filter(|action| !action.is_empty()).collect()
}

fn run_one(device: &mut dyn Device, words: &[&str], ids: &Ids) -> Told {
    let [verb, path, rest @ ..] = words else { return Err("an action needs a path".into()) };
    let path = &*Pattern::parse(path).resolve(ids)?;
    match (*verb, rest) {
        ("w", []) => write(device, path, ""),
        ("w", [text]) => write(device, path, &unescape(text)),
        ("sv", [text]) => save(device, path, &unescape(text)),
        ("d", []) => make_dirs(device, path),
        ("rm", []) => device.unlink(path),
        ("rmr", []) => remove_all(device, path),
        ("mv", [to]) => device.rename(path, &Pattern::parse(to).resolve(ids)?),
        ("ln", [target]) => device.symlink(path, &unescape(target)),
        ("+x", []) => device.set_executable(path, true),
        ("-x", []) => device.set_executable(path, false),
        ("xa", [key, value]) => device.set_xattr(path, key, value),
        ("mt", [seconds]) => {
            device.set_mtime(path, seconds.parse().map_err(|_unreadable| "a time is a number")?)
        }
        ("res", [text]) => device.resolve(path, &unescape(text)),
        ("rmc", []) => copies(device, path)?.iter().try_for_each(|copy| device.unlink(copy)),
        ("wc", [text]) => {
            let text = unescape(text);
            copies(device, path)?.iter().try_for_each(|copy| device.write(copy, &text))
        }
        _ => Err("there is no such action".into()),
    }
}

fn write(device: &mut dyn Device, path: &str, text: &str) -> Told {
    make_parents(device, path)?;
    device.write(path, text)
}

/// Saves as editors do: a temporary file, renamed over the old one.
fn save(device: &mut dyn Device, path: &str, text: &str) -> Told {
    make_parents(device, path)?;
    let temp = format!("{path}.tmp~");
    device.write(&temp, text)?;
    device.rename(&temp, path)
}

fn make_parents(device: &mut dyn Device, path: &str) -> Told {
    path.rsplit_once('/').map_or(Ok(()), |(dir, _)| make_dirs(device, dir))
}

fn make_dirs(device: &mut dyn Device, path: &str) -> Told {
    let tree = device.tree()?;
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let lacking = ends.map(|end| &path[..end]).filter(|dir| !tree.contains_key(*dir));
    lacking.into_iter().try_for_each(|dir| device.mkdir(dir))
}

fn remove_all(device: &mut dyn Device, path: &str) -> Told {
    let below = format!("{path}/");
    // What is below a directory sorts after it.
    for (inside, shown) in device.tree()?.into_iter().rev() {
        if inside != path && !inside.starts_with(&below) {
            continue;
        }
        match shown {
            Shown::Dir => device.rmdir(&inside)?,
            Shown::File(_) | Shown::Link(_) => device.unlink(&inside)?,
        }
    }
    Ok(())
}

/// The conflict copies of `path`.
fn copies(device: &mut dyn Device, path: &str) -> Told<BTreeSet<String>> {
    let contested = device.conflicts()?.into_iter().filter(|conflict| conflict.path == path);
    let sides = contested.flat_map(|conflict| conflict.sides).map(|(side, _)| side);
    Ok(sides.filter(|side| side != path).collect())
}
