//! Which scenarios of a case file can be played.

use super::Scenario;

impl Scenario {
    /// Why it cannot be played; `None` if it can.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        if ["lib", "unit"].iter().any(|key| self.has(key)) {
            return Some("says only in words what is to happen");
        }
        let portable = self.field("opt").contains("portable");
        portable.then_some("needs names to be compared without case, for which there is no setting")
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn what_is_said_in_words_or_asks_for_other_names_is_not_played() {
        let text = "001 | played | A: w t 1 | => t=1\n\
                    002 | in words | lib: merge both ways | => equal\n\
                    003 | in words | unit: of names | => equal\n\
                    005 | names without case | opt: portable | => t=1\n";
        let played: Vec<_> = parse(text).iter().map(|it| it.lacks().is_none()).collect();
        assert_eq!(played, [true, false, false, false]);
    }
}
