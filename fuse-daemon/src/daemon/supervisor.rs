//! What systemd hears of the daemon (`Type=notify`); nothing, where there is none.

use sd_notify::NotifyState;

/// Microseconds for which a last save may go on without another word.
const EXTENSION_US: u32 = 60_000_000;

/// Mounts at start are done.
pub(super) fn ready(mounts: usize) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status(mounts))]);
}

/// The number of mounts changed.
pub(super) fn serving(mounts: usize) {
    tell(&[NotifyState::Status(&status(mounts))]);
}

/// The last saves begin.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("saving")]);
}

/// The last saves take their time, but get on.
pub(super) fn still_saving() {
    tell(&[NotifyState::ExtendTimeoutUsec(EXTENSION_US)]);
}

fn status(mounts: usize) -> String {
    format!("{mounts} mounted")
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(err) = sd_notify::notify(states) {
        log::warn!("notify reason={err}");
    }
}
