//! Somebody at a terminal, who answers questions.

use std::{process::Command, time::Duration};

use crate::{Home, Outcome, binary, need, run::run};

/// Answers each prompt with the next line; 99 if there were fewer prompts.
const TERMINAL: &str = "
import os, pty, sys, select, termios, time
answers = sys.argv[1].split(',')
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
said = b''
seen = 0
deadline = time.time() + 60
while time.time() < deadline:
    try:
        ready = select.select([fd], [], [], 1)[0]
        if not ready: continue
        part = os.read(fd, 1000)
    except OSError:
        break
    if not part: break
    said += part
    while said.rstrip(b' ').endswith(b':') and len(said) > seen and answers:
        seen = len(said)
        # As slow as a person: not before what is typed is hidden, if it is a passphrase.
        hidden = not said.rstrip(b' ').endswith(b'[y/N]:')
        while hidden and termios.tcgetattr(fd)[3] & termios.ECHO and time.time() < deadline: time.sleep(0.01)
        os.write(fd, answers.pop(0).encode() + b'\\n')
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if not answers else 99)
";

/// Runs `cairnfs ARGS` in a terminal and types `answers`, which have no commas in them. What it says
/// on the terminal is the outcome's stdout.
pub fn typed(home: &Home, answers: &[&str], args: &[&str]) -> Outcome {
    need::program("python3", "python3");
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, &answers.join(",")]).arg(binary::path()).args(args);
    run(home.settle(&mut command), Duration::from_secs(90))
}
