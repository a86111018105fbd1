//! Mounted versions, as `list` and `status` show them.

use serde::Serialize;

use crate::{
    control::ViewReport,
    home::BucketName,
    ui::{self, PathText},
    values::hex,
    when,
};

/// One of them.
#[derive(Clone, Serialize)]
pub(super) struct View {
    dir: PathText,
    version: String,
    time: String,
    /// Unmounted by others, but still in use.
    detached: bool,
    #[serde(skip)]
    shown: String,
}

/// Those of `bucket`.
pub(super) fn of(bucket: &BucketName, views: &[ViewReport]) -> Vec<View> {
    let views = views.iter().filter(|view| view.bucket == *bucket);
    let view = |view: &ViewReport| View {
        dir: PathText(view.dir.clone()),
        version: hex(&view.version),
        time: when::rfc3339(view.time),
        detached: view.detached,
        shown: view.version(),
    };
    views.map(view).collect()
}

impl View {
    /// `version 015123ebb9dfd241 (2026-11-22 14:23:56) at /home/you/old`
    pub(super) fn line(&self) -> String {
        let place = if self.detached { "unmounted by others, but still in use, at" } else { "at" };
        format!("{} {place} {}", self.shown, ui::shown_path(&self.dir.0))
    }
}
