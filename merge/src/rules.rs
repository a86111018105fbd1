//! The strategies, and rules that choose one by path.

use globset::{GlobBuilder, GlobMatcher};

use crate::conflict::Conflict;
use crate::node::{Body, Content};
use crate::resolve::{ConflictResolver, Context, Resolution};

/// How conflicts are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Losers are shown as conflict files; nothing is decided. Equal on all peers at once.
    ConflictFile,
    /// As [`Self::ConflictFile`]; meant for those who read the list of what stays unresolved.
    ForkOnConflict,
    /// The version of the latest operation; the others are discarded. The latest one by its lamport
    /// time, a count of what its author had seen and done: of two that were written apart it need not
    /// be the one that was written last by the clock.
    LastWriteWins,
    /// The local version, the latest if none is local. Stable only where one side uses it: on two
    /// sides they answer differently, and the latest answer counts.
    BaseWins,
    /// The merged text if the edits are disjoint, else conflict files.
    MergeText,
}

impl<B: Body> ConflictResolver<B> for Strategy {
    fn resolve(&self, conflict: &Conflict<B>, context: &Context<'_, B>) -> Resolution<B> {
        match self {
            Self::ConflictFile | Self::ForkOnConflict => Resolution::KeepBoth,
            Self::LastWriteWins => {
                let latest = conflict.versions.iter().map(|version| version.op).max();
                latest.map_or(Resolution::KeepBoth, Resolution::UseVersion)
            }
            Self::BaseWins => Resolution::UseBase,
            Self::MergeText => {
                merged(conflict, context).map_or(Resolution::KeepBoth, Resolution::MergedText)
            }
        }
    }

    fn symmetric(&self) -> bool {
        *self != Self::BaseWins
    }
}

fn merged<B: Body>(conflict: &Conflict<B>, context: &Context<'_, B>) -> Option<Content<B>> {
    let contents = conflict.versions.iter().map(|version| version.entry.content.as_ref());
    let mut sides: Vec<&Content<B>> = contents.collect::<Option<_>>()?;
    if sides.len() < 2 {
        return None;
    }
    sides.sort_by_key(|content| content.id);
    context.text?.merge(conflict.hist_base?, &sides)
}

/// A glob that is none; its source says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{glob}` is not a glob")]
pub struct BadGlob {
    glob: String,
    source: globset::Error,
}

impl BadGlob {
    /// What was given.
    #[must_use]
    pub fn glob(&self) -> &str {
        &self.glob
    }
}

/// Strategies by path: the first glob that matches decides, else the default.
///
/// A glob without a slash matches the last name of a path in any directory, as in `.gitignore`. `*`,
/// `?` and `[!ab]` match no slash, `**` does; `[ab]`, `[!ab]` and `{a,b}` choose, and `\` takes what
/// follows as it is. In a path what is not UTF-8 counts as U+FFFD.
#[derive(Clone, Debug)]
pub struct PathRules {
    rules: Vec<(GlobMatcher, Strategy)>,
    default: Strategy,
}

impl PathRules {
    /// No rules yet.
    #[must_use]
    pub const fn new(default: Strategy) -> Self {
        Self { rules: Vec::new(), default }
    }

    /// Adds a rule behind the others.
    ///
    /// # Errors
    ///
    /// [`BadGlob`] if `glob` cannot be read.
    pub fn rule(mut self, glob: &str, strategy: Strategy) -> Result<Self, BadGlob> {
        let anywhere = if glob.contains('/') { glob.to_owned() } else { format!("**/{glob}") };
        let built = GlobBuilder::new(&anywhere).literal_separator(true).build();
        let built = built.map_err(|source| BadGlob { glob: glob.to_owned(), source })?;
        self.rules.push((built.compile_matcher(), strategy));
        Ok(self)
    }

    /// The strategy for `path`.
    #[must_use]
    pub fn strategy(&self, path: &[u8]) -> Strategy {
        let path = String::from_utf8_lossy(path);
        let rule = self.rules.iter().find(|(glob, _)| glob.is_match(&*path));
        rule.map_or(self.default, |(_, strategy)| *strategy)
    }
}

impl<B: Body> ConflictResolver<B> for PathRules {
    fn resolve(&self, conflict: &Conflict<B>, context: &Context<'_, B>) -> Resolution<B> {
        self.strategy(&conflict.path).resolve(conflict, context)
    }

    fn symmetric(&self) -> bool {
        let strategies = self.rules.iter().map(|(_, strategy)| strategy).chain([&self.default]);
        strategies.into_iter().all(ConflictResolver::<B>::symmetric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, path: &[u8]) -> bool {
        let rules = PathRules::new(Strategy::ConflictFile);
        let rules = rules.rule(glob, Strategy::LastWriteWins).unwrap();
        rules.strategy(path) == Strategy::LastWriteWins
    }

    #[test]
    fn globs_mean_what_the_docs_say() {
        assert!(matches("*.md", b"a.md") && matches("*.md", b"d/e/a.md"));
        assert!(!matches("d/*.md", b"d/e/a.md") && !matches("d/?", b"d//"));
        assert!(matches("d/**/a", b"d/a") && matches("d/**/a", b"d/e/f/a"));
        assert!(matches("[ab].{c,{h,hh}}", b"a.hh") && !matches("[!ab]", b"a"));
        assert!(!matches("d[!x]a", b"d/a"));
        assert!(matches("\\*", b"*") && !matches("\\*", b"a"));
        assert!(matches("a*", b"a\xff"));
    }

    #[test]
    fn what_is_no_glob_is_refused() {
        for glob in ["[a", "{a,b", "a\\"] {
            let refused = PathRules::new(Strategy::ConflictFile).rule(glob, Strategy::MergeText);
            assert_eq!(refused.unwrap_err().glob(), glob);
        }
    }
}
