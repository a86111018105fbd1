//! A sentence for each kind of work, from its figures.

use super::report::{Policy, Row};
use crate::{jobs::Kind, ui};

/// Less than this share of the time is not worth a choice.
const WORTH: f64 = 0.9;

/// What to choose for this kind of work.
pub(super) fn of(kind: Kind, rows: &[Row]) -> String {
    let mut ours: Vec<(&Row, &Policy)> =
        rows.iter().filter_map(|row| Some((row, row.policy.as_ref()?))).collect();
    let Some(flush) = ours.iter().find(|(_, policy)| policy.name == "flush").copied() else {
        return String::new();
    };
    // Whole runs, not medians: a copy has all its waiting in its last step.
    ours.sort_by(|a, b| b.0.steps_per_s.median.total_cmp(&a.0.steps_per_s.median));
    let unit = kind.unit();
    let share = |row: &Row| flush.0.steps_per_s.median / row.steps_per_s.median;
    let safest = ours.iter().map(|(_, policy)| seconds(policy)).fold(f64::INFINITY, f64::min);
    let kept = |policy: &Policy| seconds(policy) <= safest + 0.5;
    let quickest = ours[0];
    let best = ours.iter().find(|(_, policy)| kept(policy)).copied().unwrap_or(flush);
    let what = if safest == 0.0 {
        format!("nothing was lost in {} cuts", best.1.cuts.len())
    } else {
        let most = best.1.cuts.iter().map(|cut| cut.lost).max().unwrap_or(0);
        format!(
            "at most the last {most} ({unit}) were lost, which no policy prevents: {}",
            why(kind)
        )
    };
    if kept(flush.1) && share(best.0) > WORTH && share(quickest.0) > WORTH {
        return format!(
            "**Advice:** `flush`, the default: {what}, and no policy is quicker by a tenth."
        );
    }
    if best.1.name == "flush" || (kept(flush.1) && share(best.0) > WORTH) {
        let worst = quickest.1.worst();
        return format!(
            "**Advice:** `flush`: {what}. `{}` takes {:.0} % of its time, and a crash then cost up to \
             {:.1} s of work ({}).",
            quickest.1.name,
            share(quickest.0) * 100.0,
            worst.lost_s,
            ui::bytes(worst.lost_bytes),
        );
    }
    let but =
        if kind.fsyncs() { "" } else { " But `close` then does not tell whether that worked." };
    format!(
        "**Advice:** `{}`: {what}, and a {unit} takes {:.0} % of the time that it takes under \
         `flush`.{but}",
        best.1.name,
        share(best.0) * 100.0
    )
}

/// How far a crash threw the work back at worst.
fn seconds(policy: &Policy) -> f64 {
    policy.worst().lost_s
}

/// Why even the safest policy loses something.
const fn why(kind: Kind) -> &'static str {
    match kind {
        Kind::EditorReplace => "the program does not ask for its rename to be saved",
        Kind::Copy => "what is not closed yet is saved once a second",
        Kind::Database => {
            "sqlite3 does not sync the removal of its journal unless `pragma synchronous` is `extra`"
        }
        _ => "the program does not ask for it to be saved",
    }
}
