//! Scenarios: lines of a case file, run on peers.

use std::collections::{BTreeMap, BTreeSet};

use cairnfs_merge::Kind;

use super::case_file::{Scenario, parse};
use super::peer::{Done, Peer, Refused, hash, split};

/// How a file of scenarios went.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) run: usize,
    pub(crate) skipped: usize,
    pub(crate) failures: Vec<String>,
}

/// Runs all scenarios of a file.
pub(crate) fn run_all(text: &str) -> Tally {
    let mut tally = Tally::default();
    for scenario in parse(text) {
        if !scenario.is_runnable() {
            tally.skipped += 1;
            continue;
        }
        tally.run += 1;
        let outcome = std::panic::catch_unwind(|| scenario.run());
        if let Err(why) = outcome.unwrap_or_else(|_said| Err("it panics".into())) {
            tally.failures.push(format!("{} {}: {why}", scenario.number, scenario.title));
        }
    }
    tally
}

impl Scenario {
    /// Lines for unit tests say only in words what is to happen.
    fn is_runnable(&self) -> bool {
        !["lib", "unit"].iter().any(|key| self.has(key))
    }

    pub(crate) fn run(&self) -> Result<(), String> {
        self.understood()?;
        let mut peers = self.peers().map_err(|err| err.0)?;
        for letter in ['A', 'B', 'C', 'D'] {
            if let Some(peer) = peers.get_mut(&letter) {
                run_ops(peer, self.field(&letter.to_string())).map_err(|err| err.0)?;
            }
        }
        let sync = Some(self.field("sync")).filter(|sync| !sync.is_empty()).unwrap_or("*");
        gossip(&mut peers, sync)?;
        for part in self.parts() {
            run_part(&mut peers, part)?;
        }
        gossip(&mut peers, "*")?;
        self.check(&peers)
    }

    fn peers(&self) -> Done<BTreeMap<char, Peer>> {
        let mut origin = Peer::new('0');
        let options = self.field("opt");
        origin.portable = options.contains("portable");
        origin.auto_merge = options.contains("automerge");
        run_ops(&mut origin, self.field("init"))?;
        let letters = self.letters().into_iter();
        Ok(letters
            .map(|letter| {
                let mut peer = origin.clone();
                peer.device = Peer::new(letter).device;
                peer.publish();
                (letter, peer)
            })
            .collect())
    }

    fn check(&self, peers: &BTreeMap<char, Peer>) -> Result<(), String> {
        let mut all = peers.values();
        let first = all.next().ok_or("no peers")?;
        if !all.all(|peer| peer.tree == first.tree) {
            return Err("the peers do not agree".into());
        }
        let tree = first.show();
        let wanted = self.field("=>");
        if !wanted.split(" OR ").any(|tree_text| matches(&tree, tree_text)) {
            return Err(format!("tree {tree:?}, wanted {wanted}"));
        }
        let kinds: BTreeSet<String> = first.kinds().iter().map(ToString::to_string).collect();
        let wanted = self.field("!").split_whitespace().filter(|kind| *kind != "-");
        let wanted: BTreeSet<String> = wanted.map(str::to_owned).collect();
        if kinds != wanted {
            return Err(format!("conflicts {kinds:?}, wanted {wanted:?}"));
        }
        for check in self.field("meta").split_whitespace() {
            let (place, values) = check.rsplit_once('=').ok_or("bad meta")?;
            let (path, key) = place.rsplit_once(':').ok_or("bad meta")?;
            let value = first.attr(&unescape(path), key).unwrap_or_default();
            if !values.split('|').any(|wanted| wanted == value) {
                return Err(format!("attribute {place} is {value:?}, wanted {values}"));
            }
        }
        Ok(())
    }
}

fn run_part(peers: &mut BTreeMap<char, Peer>, part: &str) -> Result<(), String> {
    if let Some(steps) = part.strip_prefix("sync ") {
        return gossip(peers, steps);
    }
    let (letter, ops) = part.split_once(':').ok_or_else(|| format!("bad part {part}"))?;
    let letter = letter.trim().chars().next().ok_or("no peer")?;
    let peer = peers.get_mut(&letter).ok_or_else(|| format!("no peer {letter}"))?;
    run_ops(peer, ops).map_err(|err| err.0)
}

/// Runs sync steps.
fn gossip(peers: &mut BTreeMap<char, Peer>, steps: &str) -> Result<(), String> {
    let letter = |text: &str| text.chars().next().ok_or_else(|| format!("bad step {steps}"));
    for step in steps.split_whitespace() {
        if step == "*" {
            return settle(peers);
        }
        if let Some((a, b)) = step.split_once("<>") {
            let (a, b) = (letter(a)?, letter(b)?);
            let before = peers.get(&a).cloned();
            pull(peers, a, b)?;
            if let (Some(peer), Some(other)) = (peers.get_mut(&b), before) {
                peer.pull(&other);
            }
        } else {
            let (from, to) = step.split_once('>').ok_or_else(|| format!("bad step {step}"))?;
            pull(peers, letter(to)?, letter(from)?)?;
        }
    }
    Ok(())
}

fn pull(peers: &mut BTreeMap<char, Peer>, to: char, from: char) -> Result<(), String> {
    let other = peers.get(&from).cloned().ok_or_else(|| format!("no peer {from}"))?;
    peers.get_mut(&to).ok_or_else(|| format!("no peer {to}"))?.pull(&other);
    Ok(())
}

/// All pairs until quiet; four rounds at most.
fn settle(peers: &mut BTreeMap<char, Peer>) -> Result<(), String> {
    let letters: Vec<char> = peers.keys().copied().collect();
    for _ in 0..5 {
        let before: Vec<_> = peers.values().map(|peer| peer.tree.state().vv.clone()).collect();
        for to in &letters {
            for from in letters.iter().filter(|from| *from != to) {
                pull(peers, *to, *from)?;
            }
        }
        let after: Vec<_> = peers.values().map(|peer| peer.tree.state().vv.clone()).collect();
        if before == after {
            return Ok(());
        }
    }
    Err("not quiet after four rounds".into())
}

/// Runs a list of operations as the case files write them.
pub(crate) fn run_ops(peer: &mut Peer, ops: &str) -> Done {
    for op in ops.split(';').map(str::trim).filter(|op| !op.is_empty()) {
        let words: Vec<String> = op.split_whitespace().map(unescape).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["w", path] => with_parents(peer, path, |peer| peer.write(path, ""))?,
            ["w", path, text] => with_parents(peer, path, |peer| peer.write(path, text))?,
            ["sv", path, text] => with_parents(peer, path, |peer| peer.save(path, text))?,
            ["d", path] => make_dirs(peer, path)?,
            ["rm", path] => peer.rm(path)?,
            ["rmr", path] => peer.rmr(path)?,
            ["mv", from, to] => peer.mv(from, to)?,
            ["ln", path, target] => peer.put(path, target, Kind::Symlink)?,
            ["res", path, text] => peer.resolve(path, text)?,
            ["+x", path] => peer.set_attr(path, "x", "1")?,
            ["-x", path] => peer.set_attr(path, "x", "0")?,
            ["xa", path, key, value] => peer.set_attr(path, &format!("xa.{key}"), value)?,
            ["mt", path, time] => peer.set_attr(path, "mt", time)?,
            ["rmc", path] => {
                for copy in peer.copies(path)? {
                    peer.rm(&copy)?;
                }
            }
            ["wc", path, text] => {
                for copy in peer.copies(path)? {
                    peer.write(&copy, text)?;
                }
            }
            _ => return Err(Refused(format!("unknown operation {op}"))),
        }
    }
    Ok(())
}

fn with_parents(peer: &mut Peer, path: &str, act: impl FnOnce(&mut Peer) -> Done) -> Done {
    make_dirs(peer, split(path).0)?;
    act(peer)
}

fn make_dirs(peer: &mut Peer, path: &str) -> Done {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in ends.filter(|end| *end > 0) {
        if peer.find(&path[..end])?.is_none() {
            peer.mkdir(&path[..end])?;
        }
    }
    Ok(())
}

/// Expands `\n`, `\e`, `\s`, `\uXXXX` and `@[text]`.
fn unescape(word: &str) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some(next) = rest.chars().next() {
        if let Some((text, tail)) = rest.strip_prefix("@[").and_then(|tail| tail.split_once(']')) {
            let (text, digits) = match text.rsplit_once(':') {
                Some((text, digits)) => (text, digits.parse().unwrap_or(8)),
                None => (text, 8),
            };
            out.push('@');
            let hex = hash(&unescape(text)).to_hex();
            out.push_str(hex.get(..digits).unwrap_or(&hex));
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("\\n") {
            out.push('\n');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("\\s") {
            out.push(' ');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("\\e") {
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("\\u") {
            let code = tail.get(..4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
            out.extend(code.and_then(char::from_u32));
            rest = tail.get(4..).unwrap_or("");
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
}

type Shown = BTreeMap<String, Option<String>>;

/// Whether `tree` is what `text` says.
fn matches(tree: &Shown, text: &str) -> bool {
    let mut options = vec![Shown::new()];
    for token in text.split_whitespace().filter(|token| *token != "(empty)") {
        if let Some((path, versions)) = token.split_once("=<") {
            let path = unescape(path);
            let versions: Vec<String> =
                versions.trim_end_matches('>').split('|').map(unescape).collect();
            options = options.iter().flat_map(|option| winners(option, &path, &versions)).collect();
        } else {
            let (path, text) = match (token.split_once("->"), token.split_once('=')) {
                (Some((path, target)), _) => {
                    (unescape(path), Some(format!("->{}", unescape(target))))
                }
                (None, Some((path, text))) => (unescape(path), Some(unescape(text))),
                (None, None) => (format!("{}/", unescape(token.trim_end_matches('/'))), None),
            };
            for option in &mut options {
                option.insert(path.clone(), text.clone());
            }
        }
    }
    options.into_iter().map(with_all_parents).any(|option| option == *tree)
}

/// One option for each version that may hold the name.
fn winners(option: &Shown, path: &str, versions: &[String]) -> Vec<Shown> {
    let with = |winner: &String| {
        let mut tree = option.clone();
        tree.insert(path.to_owned(), Some(winner.clone()));
        for loser in versions.iter().filter(|loser| *loser != winner) {
            let copy = format!("{path}@{}", &hash(loser.trim_start_matches("->")).to_hex()[..8]);
            tree.insert(copy, Some(loser.clone()));
        }
        tree
    };
    versions.iter().map(with).collect()
}

fn with_all_parents(tree: Shown) -> Shown {
    let parents: Vec<String> = tree
        .keys()
        .flat_map(|path| {
            path.match_indices('/').map(|(at, _)| path[..=at].to_owned()).collect::<Vec<_>>()
        })
        .collect();
    tree.into_iter().chain(parents.into_iter().map(|parent| (parent, None))).collect()
}
