//! Plays the scenarios of a case file; see `cairnfs_tests::scenario` for its format.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what it is for")]

use std::{panic::catch_unwind, process::ExitCode, time::Instant};

use cairnfs_tests::scenario::{self, Daemons, InProcess, Pace, Scenario, Told};
use parking_lot::Mutex;

const USAGE: &str =
    "usage: scenarios FILE [--in-process] [--at-once] [--only NNN,NNN...] [--jobs N]";

struct Request {
    file: String,
    in_process: bool,
    pace: Pace,
    only: Vec<String>,
    jobs: usize,
}

enum Outcome {
    Passed,
    Skipped(&'static str),
    Failed(String),
}

fn main() -> ExitCode {
    let wanted = parse(std::env::args().skip(1)).and_then(|request| {
        let scenarios = chosen(&request)?;
        Ok((request, scenarios))
    });
    match wanted {
        Ok((request, scenarios)) => run(&request, &scenarios),
        Err(why) => {
            eprintln!("scenarios: {why}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Told<Request> {
    let mut request = Request {
        file: String::new(),
        in_process: false,
        pace: Pace::EachAction,
        only: Vec::new(),
        jobs: 1,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value; {USAGE}"));
        match arg.as_str() {
            "--in-process" => request.in_process = true,
            "--at-once" => request.pace = Pace::AllAtOnce,
            "--only" => request.only = value()?.split(',').map(str::to_owned).collect(),
            "--jobs" => {
                let jobs = value()?;
                request.jobs =
                    jobs.parse().ok().filter(|jobs| (1..=64).contains(jobs)).ok_or_else(|| {
                        format!("--jobs is a number from 1 to 64, not {jobs}; {USAGE}")
                    })?;
            }
            _ if arg.starts_with('-') => return Err(format!("there is no {arg}; {USAGE}")),
            _ if !request.file.is_empty() => return Err(format!("one file at a time; {USAGE}")),
            _ => request.file = arg,
        }
    }
    if request.file.is_empty() {
        return Err(format!("which file? {USAGE}"));
    }
    Ok(request)
}

/// The scenarios that were asked for.
fn chosen(request: &Request) -> Told<Vec<Scenario>> {
    let text = std::fs::read_to_string(&request.file)
        .map_err(|err| format!("cannot read {}: {err}", request.file))?;
    let all = scenario::parse(&text);
    if all.is_empty() {
        return Err(format!("{} holds no scenario", request.file));
    }
    if let Some(unknown) =
        request.only.iter().find(|wanted| !all.iter().any(|scenario| scenario.number == **wanted))
    {
        return Err(format!("{} has no scenario {unknown}", request.file));
    }
    let wanted = |it: &Scenario| request.only.is_empty() || request.only.contains(&it.number);
    Ok(all.into_iter().filter(wanted).collect())
}

fn run(request: &Request, scenarios: &[Scenario]) -> ExitCode {
    let start = Instant::now();
    let queue = Mutex::new(scenarios.iter());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..request.jobs {
            scope.spawn(|| {
                loop {
                    let Some(scenario) = queue.lock().next() else { return };
                    let outcome = play(scenario, request);
                    report(scenario, &outcome);
                    outcomes.lock().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner();
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    let failed = count(|it| matches!(it, Outcome::Failed(_)));
    println!(
        "{} scenarios: {} passed, {failed} failed, {} skipped, in {:.1} s",
        outcomes.len(),
        count(|it| matches!(it, Outcome::Passed)),
        count(|it| matches!(it, Outcome::Skipped(_))),
        start.elapsed().as_secs_f64(),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(scenario: &Scenario, request: &Request) -> Outcome {
    if let Some(why) = scenario.lacks() {
        return Outcome::Skipped(why);
    }
    // The harness of the daemons panics as a test does.
    let played = catch_unwind(|| {
        if request.in_process {
            scenario.play(&mut InProcess::new()?, request.pace)
        } else {
            scenario.play(&mut Daemons::new(), request.pace)
        }
    });
    match played {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(why)) => Outcome::Failed(why),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Outcome::Failed(said.unwrap_or("a panic without words").to_owned())
        }
    }
}

fn report(scenario: &Scenario, outcome: &Outcome) {
    let Scenario { number, title, .. } = scenario;
    match outcome {
        Outcome::Passed => (),
        Outcome::Skipped(why) => println!("{number} {title}: skipped: {why}"),
        Outcome::Failed(why) => println!("{number} {title}: FAILED: {why}"),
    }
}
