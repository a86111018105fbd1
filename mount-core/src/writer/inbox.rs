//! The way to the writer: a bounded channel in which nothing stays unanswered.
//!
//! A channel keeps what was sent for as long as it has senders, also if nobody will receive it. And
//! between the last look of a writer that ends and its end something may still be sent. So the
//! senders hold on to the receiving end too, and who finds the writer ended once it has sent
//! something refuses what is left.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Command;

/// Where commands are put in.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    commands: Sender<Command>,
    left: Receiver<Command>,
    has_ended: Arc<AtomicBool>,
}

/// Where the writer takes them out. Once this is dropped all that is left is refused, and all that
/// comes.
pub(crate) struct Commands {
    inbox: Receiver<Command>,
    has_ended: Arc<AtomicBool>,
}

/// A way with room for `len` commands.
pub(crate) fn inbox(len: usize) -> (Inbox, Commands) {
    let (commands, inbox) = bounded(len);
    let has_ended = Arc::default();
    let left = inbox.clone();
    (Inbox { commands, left, has_ended: Arc::clone(&has_ended) }, Commands { inbox, has_ended })
}

impl Inbox {
    /// Hands a command to the writer, once there is room; refuses it if the writer has ended.
    pub(crate) fn send(&self, command: Command) {
        if let Err(refused) = self.commands.send(command) {
            refused.into_inner().refuse();
        }
        // In one order with the end: either this sees that, or the writer's last look this command.
        if self.has_ended.load(SeqCst) {
            self.left.try_iter().for_each(Command::refuse);
        }
    }

    /// Has the writer look at the clock again. Where there is no room it is awake.
    pub(crate) fn wake(&self) {
        self.commands.try_send(Command::Wake).ok();
    }
}

impl Commands {
    pub(crate) const fn inbox(&self) -> &Receiver<Command> {
        &self.inbox
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.has_ended.store(true, SeqCst);
        self.inbox.try_iter().for_each(Command::refuse);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread, time::Duration};

    use super::*;
    use crate::Error;

    #[test]
    fn who_asks_as_the_writer_ends_is_answered() {
        for _ in 0..20_000 {
            let (inbox, commands) = inbox(2);
            let start = Barrier::new(2);
            let (reply, answer) = bounded(1);
            thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    inbox.send(Command::Publish(reply));
                });
                start.wait();
                drop(commands);
            });
            // The inbox lives on, and with it what is in the channel.
            let answer = answer.recv_timeout(Duration::from_secs(10));
            assert!(matches!(answer, Ok(Err(Error::Stopped))), "{answer:?}");
            drop(inbox);
        }
    }
}
