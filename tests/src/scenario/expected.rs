//! The trees that a case file asks for.

use std::collections::BTreeMap;

use super::{
    devices::Shown,
    text::{Ids, Pattern, unescape},
};

/// Whether `tree` is one of those that `wanted` names.
pub(super) fn matches(tree: &BTreeMap<String, Shown>, wanted: &str, ids: &Ids) -> bool {
    wanted.split(" OR ").flat_map(trees).any(|option| is_this(tree, &option, ids))
}

/// Each thing that must be shown matches one that is, and nothing is left over.
fn is_this(tree: &BTreeMap<String, Shown>, option: &Wanted, ids: &Ids) -> bool {
    let mut rest = tree.clone();
    for (pattern, shown) in option {
        let found = rest.iter().find(|(path, is)| *is == shown && pattern.matches(path, ids));
        let Some(path) = found.map(|(path, _)| path.clone()) else { return false };
        rest.remove(&path);
    }
    rest.is_empty()
}

type Wanted = BTreeMap<Pattern, Shown>;

/// All trees that one alternative stands for.
fn trees(text: &str) -> Vec<Wanted> {
    let mut options = vec![Wanted::new()];
    for token in text.split_whitespace().filter(|token| *token != "(empty)") {
        if let Some((path, versions)) = token.split_once("=<") {
            let path = Pattern::parse(path);
            let versions: Vec<&str> = versions.trim_end_matches('>').split('|').collect();
            options = options.iter().flat_map(|option| winners(option, &path, &versions)).collect();
            continue;
        }
        let (path, shown) = match (token.split_once("->"), token.split_once('=')) {
            (Some((path, target)), _) => (path, Shown::Link(unescape(target))),
            (None, Some((path, text))) => (path, Shown::File(unescape(text))),
            (None, None) => (token.trim_end_matches('/'), Shown::Dir),
        };
        for option in &mut options {
            option.insert(Pattern::parse(path), shown.clone());
        }
    }
    options.into_iter().map(with_parents).collect()
}

/// One tree for each version that may hold the name.
fn winners(option: &Wanted, path: &Pattern, versions: &[&str]) -> Vec<Wanted> {
    let with = |winner: &&str| {
        let mut tree = option.clone();
        tree.insert(path.clone(), version(winner));
        for loser in versions.iter().filter(|loser| *loser != winner) {
            let text = unescape(loser.trim_start_matches("->"));
            tree.insert(path.copy(&text), version(loser));
        }
        tree
    };
    versions.iter().map(with).collect()
}

fn version(word: &str) -> Shown {
    match word.strip_prefix("->") {
        Some(target) => Shown::Link(unescape(target)),
        None => Shown::File(unescape(word)),
    }
}

fn with_parents(mut tree: Wanted) -> Wanted {
    let parents: Vec<_> = tree.keys().flat_map(Pattern::parents).collect();
    for parent in parents {
        tree.entry(parent).or_insert(Shown::Dir);
    }
    tree
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::text::Ids, Shown, matches};

    fn tree(entries: &[(&str, &str)]) -> BTreeMap<String, Shown> {
        let shown = |text: &str| match (text, text.strip_prefix("->")) {
            ("/", _) => Shown::Dir,
            (_, Some(target)) => Shown::Link(target.into()),
            (text, None) => Shown::File(text.into()),
        };
        entries.iter().map(|(path, text)| ((*path).to_owned(), shown(text))).collect()
    }

    #[test]
    fn a_tree_is_exactly_what_is_named() {
        let ids = Ids::default();
        let is = |entries: &[(&str, &str)], wanted: &str| matches(&tree(entries), wanted, &ids);
        assert!(is(&[], "(empty)") && !is(&[("a", "1")], "(empty)"));
        let both = [("d", "/"), ("d/a", "1"), ("l", "->d")];
        assert!(is(&both, "d/a=1 l->d") && is(&both, "x=1 OR d/a=1 l->d"));
        assert!(!is(&both, "d/a=1") && !is(&both, "d/a=2 l->d") && !is(&both, "d/a=1 l->d e/"));
        let contested = [("t", "2"), ("t@0123abcd", "1")];
        assert!(is(&contested, "t=<1|2>") && !is(&contested, "t=<1|2|3>"));
        assert!(!is(&[("t", "2"), ("t@0123abcd", "2")], "t=<1|2>"));
        assert!(!is(&[("t", "2"), ("t@readme", "1")], "t=<1|2>"));
        assert!(is(&[("t", ""), ("t@01234567", "2")], "t=<|2>"));
        assert!(is(&[("x", "->t"), ("x@01234567", "1")], "x->t x@[1]=1"));
    }
}
