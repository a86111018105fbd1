//! How conflicts are treated: bounds of the settings, and what they mean to the merge.

use cairnfs_merge::PathRules;

use crate::{Error, Result, Settings, Strategy};

/// More rules than anybody writes.
const RULES_MAX: usize = 256;
/// Longest glob in bytes.
const GLOB_BYTES_MAX: usize = 255;

/// # Errors
///
/// [`Error::Invalid`] for too many or too long rules, and for a glob that is none.
pub(super) fn check(settings: &Settings) -> Result<()> {
    if settings.rules.len() > RULES_MAX {
        return Err(Error::Invalid("more than 256 rules"));
    }
    if settings.rules.iter().any(|(glob, _)| glob.len() > GLOB_BYTES_MAX) {
        return Err(Error::Invalid("a glob has at most 255 bytes"));
    }
    resolver(settings).map(drop)
}

/// What answers conflicts under `settings`.
///
/// # Errors
///
/// [`Error::Invalid`] for a glob that is none.
pub(crate) fn resolver(settings: &Settings) -> Result<PathRules> {
    let mut rules = PathRules::new(settings.strategy.into());
    for (glob, strategy) in &settings.rules {
        rules = rules
            .rule(glob, (*strategy).into())
            .map_err(|_source| Error::Invalid("a rule's glob cannot be read"))?;
    }
    Ok(rules)
}

impl From<Strategy> for cairnfs_merge::Strategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::ConflictFile => Self::ConflictFile,
            Strategy::LastWriteWins => Self::LastWriteWins,
            Strategy::BaseWins => Self::BaseWins,
            Strategy::Fork => Self::ForkOnConflict,
            Strategy::MergeText => Self::MergeText,
        }
    }
}
