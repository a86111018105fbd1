//! `cairnfs umount`: waits for what is unsaved, publishes, unmounts.

use super::{Context, show};
use crate::{
    at_start,
    cli::UmountArgs,
    control::{Client, Limit, Request, UnmountRequest},
    exit::{Code, Failure, Result},
    noted, place, ui,
    ui::ProgressLine,
    values::Span,
};

pub(super) fn run(context: &Context, args: &UmountArgs) -> Result<()> {
    let dir = place::resolve(&args.dir)?;
    let timeout = args.timeout.or_else(|| context.settings.get("timeout", None));
    let timeout = timeout.map(|Span(time)| time);
    let request =
        UnmountRequest { dir: dir.clone(), timeout, discard: args.discard, detach_busy: false };
    let limit = timeout.map_or(Limit::NONE, |time| Limit::after(time, Code::Unsaved));
    let asked = match Client::connect_within(&context.home, limit)? {
        Some(client) => {
            let client = client.within(limit.later());
            let mut line = ProgressLine::new();
            let asked = client.ask(&Request::Unmount(request), &mut |event| show(&mut line, event));
            asked.map(drop)
        }
        None => Err(Failure::new(Code::NotFound, "no daemon runs")),
    };
    // What stays mounted is still to be mounted at start.
    let is_gone = match &asked {
        Ok(()) => true,
        Err(failure) => match failure.code {
            Code::NotFound => true,
            Code::Unsaved => args.discard,
            _ => false,
        },
    };
    let forgotten = args.forget && is_gone && at_start::forget(&context.home, &dir)?;
    match asked {
        // Not one of the daemon's; perhaps a daemon before it left it.
        Err(failure) if failure.code == Code::NotFound => match place::take_away(&dir) {
            Ok(dead) => {
                noted::remove(&context.home, &dead.name(), &dir);
                ui::note(format_args!(
                    "its daemon had died; took away the dead mount at {}. What was saved is safe.",
                    ui::shown_path(&dir)
                ));
                Ok(())
            }
            Err(failure) if failure.code == Code::NotFound && forgotten => Ok(()),
            Err(failure) => Err(failure),
        },
        other => other,
    }
}
