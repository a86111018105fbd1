//! `cairnfs strategy`: shows or sets how conflicts are treated.

use std::collections::BTreeSet;

use cairnfs_mount_core::Settings;
use serde::Serialize;

use super::Context;
use crate::{
    cli::StrategyArgs,
    control::{Answer, Client, Request, SettingsRequest},
    exit::{Failure, Result},
    ui,
};

#[derive(Serialize)]
struct Shown {
    bucket: String,
    strategy: String,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    glob: String,
    strategy: String,
}

pub(super) fn run(context: &Context, args: &StrategyArgs) -> Result<()> {
    refuse_two_rules_for_one_glob(args)?;
    let opening = context.opening(&args.bucket, &args.passphrase)?;
    let client = Client::connect_or_start(&context.home, None)?;
    let request = Request::Settings(opening.clone());
    let Answer::Settings(before) = client.ask(&request, &mut |_| ())? else {
        return Err(Failure::unexpected_answer());
    };
    let after = changed(&before, args)?;
    if after != before && !args.dry_run {
        let request = SettingsRequest { opening, settings: after.clone() };
        let client = Client::connect_or_start(&context.home, None)?;
        client.ask(&Request::SetSettings(request), &mut |_| ())?;
    }
    if args.json {
        return ui::json(&document(args, &after));
    }
    ui::result(after.strategy);
    for (glob, strategy) in &after.rules {
        ui::result(format_args!("{strategy} for {}", ui::shown(glob.as_bytes())));
    }
    if args.dry_run && after != before {
        ui::note("nothing was changed: this is what would hold");
    }
    Ok(())
}

/// Which of two was meant cannot be told.
fn refuse_two_rules_for_one_glob(args: &StrategyArgs) -> Result<()> {
    let mut globs = BTreeSet::new();
    match args.rules.iter().find(|rule| !globs.insert(&rule.glob)) {
        Some(rule) => {
            let message = format!("--rule: two are given for '{}', one can hold", rule.glob);
            Err(Failure::usage(message))
        }
        None => Ok(()),
    }
}

/// The settings with what the command line changes.
fn changed(before: &Settings, args: &StrategyArgs) -> Result<Settings> {
    let mut after = before.clone();
    after.strategy = args.strategy.unwrap_or(before.strategy);
    for glob in &args.removed_rules {
        let len = after.rules.len();
        after.rules.retain(|(known, _)| known != glob);
        if after.rules.len() == len {
            return Err(Failure::usage(format_args!("there is no rule for '{glob}'")));
        }
    }
    for rule in &args.rules {
        match after.rules.iter_mut().find(|(glob, _)| *glob == rule.glob) {
            // Its place counts: the first that matches applies.
            Some((_, strategy)) => *strategy = rule.strategy,
            None => after.rules.push((rule.glob.clone(), rule.strategy)),
        }
    }
    Ok(after)
}

fn document(args: &StrategyArgs, settings: &Settings) -> Shown {
    let rules = settings
        .rules
        .iter()
        .map(|(glob, strategy)| Rule { glob: glob.clone(), strategy: strategy.to_string() });
    Shown {
        bucket: args.bucket.to_string(),
        strategy: settings.strategy.to_string(),
        rules: rules.collect(),
    }
}

#[cfg(test)]
mod tests {
    use cairnfs_mount_core::Strategy;

    use super::*;
    use crate::{cli::PassphraseArgs, exit::Code};

    fn args(strategy: Option<Strategy>, rules: &[&str], removed: &[&str]) -> StrategyArgs {
        StrategyArgs {
            bucket: "b".parse().unwrap(),
            strategy,
            rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            removed_rules: removed.iter().map(|&glob| glob.to_owned()).collect(),
            dry_run: false,
            json: false,
            passphrase: PassphraseArgs::default(),
        }
    }

    #[test]
    fn a_rule_keeps_its_place_when_it_changes() {
        let before = Settings::default();
        let two = changed(&before, &args(None, &["*.md=merge-text", "*=fork"], &[])).unwrap();
        assert_eq!(two.strategy, Strategy::ConflictFile);
        let again = args(Some(Strategy::LastWriteWins), &["*.md=base-wins"], &[]);
        let again = changed(&two, &again).unwrap();
        assert_eq!(again.strategy, Strategy::LastWriteWins);
        let rules = [("*.md".to_owned(), Strategy::BaseWins), ("*".to_owned(), Strategy::Fork)];
        assert_eq!(again.rules, rules);
        let one = changed(&again, &args(None, &[], &["*.md"])).unwrap();
        assert_eq!(one.rules, rules[1..]);
        assert_eq!(changed(&one, &args(None, &[], &["*.md"])).unwrap_err().code, Code::Usage);
    }
}
