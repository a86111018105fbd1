//! Words of a case file: escapes, and names that contain the digits of a content's id.

use std::collections::BTreeMap;

use super::devices::Told;

/// What the ids of contents are known to be, in hex, by content. They are keyed, and so different
/// in each bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids(BTreeMap<String, String>);

/// A name as it is written in a case file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    Text(String),
    /// The first `count` digits of the id of the content `of`.
    Digits {
        count: usize,
        of: String,
    },
}

impl Ids {
    /// Notes that the content `text` has the id `id`.
    ///
    /// # Errors
    ///
    /// If another id was seen for it: devices would give one conflict copy two names.
    pub(super) fn learn(&mut self, text: &str, id: &str) -> Told {
        let known = self.0.entry(text.to_owned()).or_insert_with(|| id.to_owned());
        if known == id {
            return Ok(());
        }
        Err(format!("the content {text:?} has two ids, {known} and {id}"))
    }

    fn get(&self, text: &str) -> Option<&str> {
        self.0.get(text).map(String::as_str)
    }
}

impl Pattern {
    /// Reads a word of a case file.
    pub(super) fn parse(word: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = word;
        while let Some(at) = rest.find("@[") {
            let (before, tail) = rest.split_at(at);
            let Some((inside, after)) = tail[2..].split_once(']') else { break };
            let (of, count) = match inside.rsplit_once(':') {
                Some((of, count)) => (of, count.parse().unwrap_or(8)),
                None => (inside, 8),
            };
            parts.push(Part::Text(format!("{}@", unescape(before))));
            parts.push(Part::Digits { count, of: unescape(of) });
            rest = after;
        }
        parts.push(Part::Text(unescape(rest)));
        Self(parts)
    }

    /// The name of the conflict copy of `self` that holds `text`.
    pub(super) fn copy(&self, text: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(Part::Text("@".into()));
        parts.push(Part::Digits { count: 8, of: text.to_owned() });
        Self(parts)
    }

    /// The contents whose ids are needed to know the name.
    pub(super) fn contents(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Digits { of, .. } => Some(of.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The name itself.
    ///
    /// # Errors
    ///
    /// If the id of a content in it is not known.
    pub(super) fn resolve(&self, ids: &Ids) -> Told<String> {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Digits { count, of } => {
                    let digits = ids.get(of).and_then(|id| id.get(..*count));
                    name.push_str(digits.ok_or_else(|| format!("no id is known for {of:?}"))?);
                }
            }
        }
        Ok(name)
    }

    /// Whether `name` may be what is meant: with the digits of the content's id where that is
    /// known, else with as many digits.
    pub(super) fn matches(&self, name: &str, ids: &Ids) -> bool {
        let mut rest = name;
        for part in &self.0 {
            let tail = match part {
                Part::Text(text) => rest.strip_prefix(text.as_str()),
                Part::Digits { count, of } => match ids.get(of).and_then(|id| id.get(..*count)) {
                    Some(digits) => rest.strip_prefix(digits),
                    None => skip_digits(rest, *count),
                },
            };
            let Some(tail) = tail else { return false };
            rest = tail;
        }
        rest.is_empty()
    }

    /// The directories above, the outermost first.
    pub(super) fn parents(&self) -> Vec<Self> {
        let mut above = Vec::new();
        let mut found = Vec::new();
        for part in &self.0 {
            if let Part::Text(text) = part {
                for (at, _) in text.match_indices('/') {
                    let mut parts: Vec<_> = above.clone();
                    parts.push(Part::Text(text[..at].to_owned()));
                    found.push(Self(parts));
                }
            }
            above.push(part.clone());
        }
        found
    }
}

fn skip_digits(text: &str, count: usize) -> Option<&str> {
    let digits = text.get(..count)?;
    let hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    hex.then(|| &text[count..])
}

/// Expands `\n`, `\e`, `\s` and `\uXXXX`.
pub(super) fn unescape(word: &str) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, tail)) = rest.split_once('\\') {
        out.push_str(before);
        let code = tail.strip_prefix('u').and_then(|tail| tail.get(..4));
        let code = code.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        rest = match (tail.bytes().next(), code) {
            (Some(b'u'), Some(letter)) => {
                out.push(letter);
                &tail[5..]
            }
            (Some(b'n'), _) => {
                out.push('\n');
                &tail[1..]
            }
            (Some(b's'), _) => {
                out.push(' ');
                &tail[1..]
            }
            (Some(b'e'), _) => &tail[1..],
            _ => {
                out.push('\\');
                tail
            }
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{Ids, Pattern, unescape};

    #[test]
    fn escapes_stand_for_what_a_word_cannot_hold() {
        assert_eq!(unescape("a\\nb\\e\\sc\\u00e9"), "a\nb c\u{e9}");
        assert_eq!(unescape("e\\u0301 \\x \\"), "e\u{301} \\x \\");
    }

    #[test]
    fn digits_are_those_of_the_id_once_it_is_known() {
        let mut ids = Ids::default();
        let copy = Pattern::parse("d/t@[1]");
        assert!(copy.matches("d/t@0123abcd", &ids));
        for other in ["d/t@0123abc", "d/t@0123abcde", "d/t@0123ABCD", "d/t", "t@0123abcd"] {
            assert!(!copy.matches(other, &ids), "{other}");
        }
        assert!(copy.resolve(&ids).is_err());
        ids.learn("1", "ffff0000ffff0000ffff").unwrap();
        assert!(!copy.matches("d/t@0123abcd", &ids) && copy.matches("d/t@ffff0000", &ids));
        assert_eq!(Pattern::parse("t@[1:16]").resolve(&ids).unwrap(), "t@ffff0000ffff0000");
        assert!(Pattern::parse("t").copy("1").matches("t@ffff0000", &ids));
        ids.learn("1", "ffff0000ffff0000ffff").unwrap();
        assert!(ids.learn("1", "eeee").is_err());
    }

    #[test]
    fn the_directories_above_are_named() {
        let names = |word: &str| {
            let ids = Ids::default();
            let parents = Pattern::parse(word).parents();
            parents.iter().map(|parent| parent.resolve(&ids).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names("a/b/c@[1]"), ["a", "a/b"]);
        assert!(names("a@[1]").is_empty());
    }
}
