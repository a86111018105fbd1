//! Case files: what is on a line of them. Shared with the tests that play them on real mounts.

#![allow(unreachable_pub, reason = "one of the two that share it passes it on")]

use std::collections::BTreeMap;

/// One line of a case file, by field.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its number, three digits.
    pub number: String,
    /// What it is about.
    pub title: String,
    fields: BTreeMap<String, String>,
    /// What the line says that nobody understands, or twice.
    strange: Option<String>,
}

const COLON_FIELDS: [&str; 14] = [
    "init", "A", "B", "C", "D", "sync", "then", "then2", "then3", "opt", "meta", "note", "lib",
    "unit",
];

const OTHER_FIELDS: [&str; 5] = ["=>", "!", "F", "CH", "goal"];

/// Reads the scenarios of a file; lines that do not begin with a number are prose.
#[must_use]
pub fn parse(text: &str) -> Vec<Scenario> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Scenario> {
    let mut parts = line.split(" | ").map(str::trim);
    let number = parts.next()?.to_owned();
    if number.len() != 3 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let title = parts.next()?.to_owned();
    let (mut fields, mut strange) = (BTreeMap::new(), None);
    for part in parts {
        let colon = part.split_once(':').filter(|(key, _)| COLON_FIELDS.contains(key));
        let (key, value) = colon.or_else(|| part.split_once(' ')).unwrap_or((part, ""));
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        let known = colon.is_some() || OTHER_FIELDS.contains(&key.as_str());
        if fields.insert(key, value).is_some() || !known {
            strange = Some(part.to_owned());
        }
    }
    Some(Scenario { number, title, fields, strange })
}

impl Scenario {
    /// Fails for a line that says something nobody understands, or not how it is to end.
    pub(crate) fn understood(&self) -> Result<(), String> {
        match &self.strange {
            Some(part) => Err(format!("what is `{part}`?")),
            None if !self.has("=>") => Err("it has no outcome".into()),
            None => Ok(()),
        }
    }

    /// Whether the line has the field `key`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// The field `key`; empty if the line has none.
    pub(crate) fn field(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    /// The devices that take part.
    pub(crate) fn letters(&self) -> Vec<char> {
        let steps = ["sync", "then", "then2", "then3"].map(|key| self.field(key));
        let takes_part = |letter: &char| {
            "AB".contains(*letter)
                || self.has(&letter.to_string())
                || steps.iter().any(|step| step.contains(*letter))
        };
        "ABCD".chars().filter(takes_part).collect()
    }

    /// What happens after the first exchange, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &str> {
        let fields = ["then", "then2", "then3"].into_iter();
        let parts = fields.flat_map(|key| self.field(key).split("//").map(str::trim));
        parts.filter(|part| !part.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_line_is_read_by_field_and_prose_is_passed_over() {
        let text = "# prose | with bars\n\n\
                    011 | edit/edit | init: w t 0 | A: w t 1 | C: w t 2 | sync: A>C * \
                    | then: A: res t 3 // sync * | => t=<1|2> OR x=1 | ! content | F a note\n\
                    201 | in words | lib: merge both ways | => equal | F\n\
                    9 | too short | => a=1\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].number.as_str(), found[0].title.as_str()), ("011", "edit/edit"));
        assert_eq!(found[0].field("init"), "w t 0");
        assert_eq!(found[0].field("=>"), "t=<1|2> OR x=1");
        assert_eq!(found[0].field("!"), "content");
        assert_eq!(found[0].letters(), ['A', 'B', 'C']);
        assert_eq!(found[0].parts().collect::<Vec<_>>(), ["A: res t 3", "sync *"]);
        assert!(found[1].has("lib") && !found[0].has("lib"));
    }
}
