//! `cairnfs demo`: the main job before the user's eyes, in a throw-away home.
//!
//! What is shown as a command is what is run, by a shell, in the folder and with the environment
//! that are shown first. What came of it is checked here, not believed.

mod sandbox;
mod script;
mod shown;
mod tree;
mod two;

use std::{fs, path::Path};

use crate::{
    cli::DemoArgs,
    exit::{Code, Failure, Result},
    ui,
};

use sandbox::Sandbox;
use script::Script;

pub(super) fn run(args: &DemoArgs) -> Result<()> {
    if !args.no_fuse && !Path::new("/dev/fuse").exists() {
        return Err(Failure::new(
            Code::NoFuse,
            "there is no /dev/fuse, so nothing can be mounted ('cairnfs doctor' says how to mend \
             that; 'cairnfs demo --no-fuse' shows what works without)",
        ));
    }
    let sandbox = Sandbox::new()?;
    ui::result("A throw-away home; everything below happens in it, and it is removed at the end:");
    ui::result(format_args!("  $ cd {}", sandbox.root().display()));
    ui::result("  $ export CAIRNFS_HOME=$PWD/home");
    fs::write(sandbox.root().join("passphrase.txt"), "correct horse battery staple\n")
        .map_err(|err| Failure::io("cannot write the passphrase", &err))?;

    let steps = if args.no_fuse { shown::without_fuse() } else { shown::with_fuse() };
    let total = steps.len();
    let mut script = Script::new(&sandbox, total);
    let mut failed = None;
    for step in steps {
        if let Err(failure) = script.play(&step) {
            ui::result(format_args!("  {} {}", ui::bad("FAILED:"), failure.message));
            failed = Some(failure);
            break;
        }
    }
    let done = script.done();
    if failed.is_some() {
        ui::note(sandbox.daemon_log());
    }
    // Before the last word, so that it is true of the cleaning up too.
    let cleaned = sandbox.clean_up();
    ui::result("");
    ui::result(format_args!("demo: {done} of {total} steps ok"));
    match failed {
        Some(failure) => {
            Err(Failure::new(failure.code, format_args!("the demo failed: {}", failure.message)))
        }
        None => cleaned,
    }
}
