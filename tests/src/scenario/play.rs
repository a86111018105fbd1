//! Playing a scenario.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Scenario, actions,
    devices::{Devices, Listed, Pace, Shown, Told},
    expected,
    text::{Ids, unescape},
};

impl Scenario {
    /// Plays it on `devices`, of which there are none yet.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub fn play(&self, devices: &mut dyn Devices, pace: Pace) -> Told {
        self.understood()?;
        Play { scenario: self, letters: self.letters(), devices, pace, ids: Ids::default() }.run()
    }
}

struct Play<'p> {
    scenario: &'p Scenario,
    letters: Vec<char>,
    devices: &'p mut dyn Devices,
    pace: Pace,
    ids: Ids,
}

impl Play<'_> {
    fn run(&mut self) -> Told {
        self.begin()?;
        for letter in self.letters.clone() {
            self.act(letter, self.scenario.field(&letter.to_string()))?;
        }
        let steps = Some(self.scenario.field("sync")).filter(|steps| !steps.is_empty());
        self.sync(steps.unwrap_or("*"))?;
        for part in self.scenario.parts() {
            match part.split_once(':') {
                _ if part.starts_with("sync ") => self.sync(&part["sync ".len()..])?,
                Some((who, actions)) => self.act(letter(who)?, actions)?,
                None => return Err(format!("{part} is neither actions nor sync")),
            }
        }
        self.sync("*")?;
        self.check()?;
        let before = self.shown()?;
        self.devices.restart()?;
        if self.shown()? != before {
            return Err("something else is shown after a restart".into());
        }
        Ok(())
    }

    fn begin(&mut self) -> Told {
        self.devices.admit('A')?;
        if self.scenario.field("opt").contains("automerge") {
            self.devices.device('A')?.merge_texts()?;
        }
        let named = actions::contents_in_names(self.scenario.field("init"));
        if named.is_empty() {
            self.act('A', self.scenario.field("init"))?;
            return self.letters[1..].iter().try_for_each(|who| self.devices.admit(*who));
        }
        for who in &self.letters[1..] {
            self.devices.admit(*who)?;
        }
        for text in named {
            self.find_id(&text)?;
        }
        self.act('A', self.scenario.field("init"))?;
        self.sync("*")
    }

    /// Learns the id of a content from a conflict, and leaves nothing of it behind.
    fn find_id(&mut self, text: &str) -> Told {
        self.devices.device('A')?.write("probe", text)?;
        self.devices.device('B')?.write("probe", &format!("not {text}"))?;
        self.sync("A<>B")?;
        self.act('A', "rmc probe; rm probe")?;
        self.sync("*")
    }

    fn act(&mut self, who: char, actions: &str) -> Told {
        actions::run(self.devices.device(who)?, actions, &self.ids, self.pace)
            .map_err(|why| format!("{who}: {why}"))
    }

    fn sync(&mut self, steps: &str) -> Told {
        for step in steps.split_whitespace() {
            if step == "*" {
                self.devices.settle()?;
            } else if let Some((a, b)) = step.split_once("<>") {
                let (a, b) = (letter(a)?, letter(b)?);
                self.devices.pull(&[(a, b), (b, a)])?;
            } else {
                let (from, to) = step.split_once('>').ok_or_else(|| format!("{step}: no step"))?;
                self.devices.pull(&[(letter(to)?, letter(from)?)])?;
            }
        }
        self.learn_ids()
    }

    /// Lists of conflicts tell the ids of contents.
    fn learn_ids(&mut self) -> Told {
        for who in &self.letters {
            let device = self.devices.device(*who)?;
            let conflicts = device.conflicts()?;
            let tree = if conflicts.is_empty() { BTreeMap::new() } else { device.tree()? };
            for (path, id) in conflicts.into_iter().flat_map(|conflict| conflict.sides) {
                if let Some(Shown::File(text) | Shown::Link(text)) = tree.get(&path) {
                    self.ids.learn(text, &id)?;
                }
            }
        }
        Ok(())
    }

    /// What is shown and what conflicts, which must be the same on all devices.
    fn shown(&mut self) -> Told<(BTreeMap<String, Shown>, Vec<Listed>)> {
        let mut first = None;
        for who in &self.letters {
            let device = self.devices.device(*who)?;
            let mut conflicts = device.conflicts()?;
            conflicts.iter_mut().for_each(|conflict| conflict.sides.sort());
            conflicts.sort();
            let this = (device.tree()?, conflicts);
            match &first {
                None => first = Some(this),
                Some(first) if *first == this => (),
                Some(first) => return Err(format!("A shows {first:?} and {who} shows {this:?}")),
            }
        }
        first.ok_or_else(|| "nobody takes part".into())
    }

    fn check(&mut self) -> Told {
        let (tree, conflicts) = self.shown()?;
        self.devices.agree()?;
        let wanted = self.scenario.field("=>");
        if !expected::matches(&tree, wanted, &self.ids) {
            return Err(format!("shows {tree:?}, wanted {wanted}"));
        }
        let kinds: BTreeSet<&str> =
            conflicts.iter().map(|conflict| conflict.kind.as_str()).collect();
        let wanted = self.scenario.field("!").split_whitespace().filter(|kind| *kind != "-");
        let wanted: BTreeSet<&str> = wanted.collect();
        if kinds != wanted {
            return Err(format!("conflicts {kinds:?}, wanted {wanted:?}, showing {tree:?}"));
        }
        self.check_attributes()
    }

    fn check_attributes(&mut self) -> Told {
        for check in self.scenario.field("meta").split_whitespace() {
            let no_check = || format!("{check} is no check of an attribute");
            let (place, values) = check.rsplit_once('=').ok_or_else(no_check)?;
            let (path, key) = place.rsplit_once(':').ok_or_else(no_check)?;
            let path = unescape(path);
            for who in &self.letters {
                let device = self.devices.device(*who)?;
                let value = match key.strip_prefix("xa.") {
                    Some(name) => device.xattr(&path, name)?,
                    None if key == "x" => device.executable(&path)?,
                    None if key == "mt" => device.mtime(&path)?,
                    None => return Err(no_check()),
                };
                if !values.split('|').any(|wanted| wanted == value) {
                    return Err(format!("{place} is {value:?} on {who}, wanted {values}"));
                }
            }
        }
        Ok(())
    }
}

fn letter(word: &str) -> Told<char> {
    match word.trim().as_bytes() {
        [letter @ b'A'..=b'D'] => Ok(char::from(*letter)),
        _ => Err(format!("{word} is no device")),
    }
}
