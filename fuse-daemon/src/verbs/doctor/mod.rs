//! `cairnfs doctor`: what this machine lacks, and how to mend it.

mod clock;
mod disk;
mod fuse;
mod state;

use std::fmt::Display;

use super::Context;
use crate::{
    exit::{Code, Failure, Result},
    ui,
};

/// How something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// As it should be.
    Good,
    /// It works, but not for everything or not for long.
    Doubtful,
    /// It does not work.
    Bad(Code),
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    /// What was looked at, and what was seen.
    what: String,
    /// What to do about it.
    mend: Option<String>,
}

impl Finding {
    fn good(what: impl Display) -> Self {
        Self { verdict: Verdict::Good, what: what.to_string(), mend: None }
    }

    fn doubtful(what: impl Display, mend: impl Display) -> Self {
        Self { verdict: Verdict::Doubtful, what: what.to_string(), mend: Some(mend.to_string()) }
    }

    fn bad(code: Code, what: impl Display, mend: impl Display) -> Self {
        Self { verdict: Verdict::Bad(code), what: what.to_string(), mend: Some(mend.to_string()) }
    }
}

pub(super) fn run(context: &Context) -> Result<()> {
    let mut findings = vec![fuse::device(), fuse::helper(), fuse::other_users(), clock::now()];
    findings.extend(disk::examine(context.home.data_dir()));
    findings.extend(state::examine(&context.home));
    for finding in &findings {
        let sign = match finding.verdict {
            Verdict::Good => ui::good("ok  "),
            Verdict::Doubtful => "note".to_owned(),
            Verdict::Bad(_) => ui::bad("BAD "),
        };
        ui::result(format_args!("{sign}  {}", finding.what));
        if let Some(mend) = &finding.mend {
            ui::result(format_args!("      {mend}"));
        }
    }
    let bad = findings.iter().find_map(|finding| match finding.verdict {
        Verdict::Bad(code) => Some(Failure::new(code, &finding.what)),
        Verdict::Good | Verdict::Doubtful => None,
    });
    bad.map_or(Ok(()), Err)
}
