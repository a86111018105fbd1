//! `cairnfs list`: the buckets, and where they are mounted.

use serde::Serialize;

use super::{
    Context,
    views::{self, View},
};
use crate::{
    at_start,
    cli::JsonArgs,
    control::StatusReport,
    exit::Result,
    remarks,
    ui::{self, PathText},
    values::Size,
    when,
};

#[derive(Serialize)]
struct List {
    buckets: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    id: Option<String>,
    created: Option<String>,
    needs_passphrase: Option<bool>,
    mounted: bool,
    dir: Option<PathText>,
    /// Where it was mounted, if it is no longer and still in use.
    still_in_use: Option<PathText>,
    read_only: bool,
    at_start: Option<PathText>,
    /// Why it could not be mounted there, if it could not.
    at_start_error: Option<String>,
    stored_bytes: u64,
    /// Whether it was joined and has no version yet.
    awaits_first_version: bool,
    /// Versions of it that are mounted.
    views: Vec<View>,
    /// Why it cannot be described, if it cannot.
    error: Option<String>,
}

pub(super) fn run(context: &Context, args: &JsonArgs) -> Result<()> {
    let list = gather(context)?;
    if args.json {
        return ui::json(&list);
    }
    print(&list);
    Ok(())
}

fn gather(context: &Context) -> Result<List> {
    let StatusReport { mounts, views, lingering, failed_at_start, .. } = context.status(false)?;
    let at_start = at_start::read(&context.home)?;
    let mut list = List { buckets: Vec::new() };
    for name in context.all_names(&mounts)? {
        let mount = mounts.iter().find(|mount| mount.bucket == name);
        let (description, error) = match context.describe(&name) {
            Ok(description) => (Some(description), None),
            Err(failure) => (None, Some(failure.message)),
        };
        list.buckets.push(Listed {
            name: name.to_string(),
            id: description.as_ref().and_then(|it| Some(it.id?.to_string())),
            created: description.as_ref().map(|it| when::rfc3339(it.created)),
            needs_passphrase: description.as_ref().map(|it| it.needs_passphrase),
            mounted: mount.is_some(),
            dir: mount.map(|mount| PathText(mount.dir.clone())),
            still_in_use: lingering
                .iter()
                .find(|it| it.bucket == name)
                .map(|it| PathText(it.dir.clone())),
            read_only: mount.is_some_and(|mount| mount.read_only),
            at_start: at_start
                .iter()
                .find(|one| *one.bucket() == name)
                .map(|one| PathText(one.dir().to_owned())),
            at_start_error: failed_at_start
                .iter()
                .find(|failed| failed.bucket == name)
                .map(|failed| failed.why.clone()),
            stored_bytes: context.stored_bytes(&name),
            awaits_first_version: mount.is_none()
                && remarks::read(&context.home.bucket_dir(&name))
                    .is_ok_and(|remarks| remarks.awaits_first_version),
            views: views::of(&name, &views),
            error,
        });
    }
    Ok(list)
}

fn print(list: &List) {
    if list.buckets.is_empty() {
        ui::note("no buckets yet: make one with 'cairnfs create NAME'");
    }
    let width = list.buckets.iter().map(|bucket| bucket.name.len()).max().unwrap_or(0);
    for bucket in &list.buckets {
        let state = bucket.state();
        let size = Size(bucket.stored_bytes).about();
        ui::result(format_args!("{:<width$}  {size:>10}  {state}", bucket.name));
        for view in &bucket.views {
            ui::result(format_args!("{:width$}  {:10}  {}", "", "", view.line()));
        }
    }
}

impl Listed {
    fn state(&self) -> String {
        match (&self.error, &self.dir, &self.still_in_use) {
            (Some(error), ..) => error.clone(),
            (None, Some(PathText(dir)), _) => {
                let read_only = if self.read_only { " (read-only)" } else { "" };
                format!("at {}{read_only}", ui::shown_path(dir))
            }
            (None, None, Some(PathText(dir))) => {
                format!("unmounted, but still in use, at {}", ui::shown_path(dir))
            }
            (None, None, None) => match &self.at_start_error {
                Some(why) => format!("not mounted: at the daemon's start that failed: {why}"),
                None if self.awaits_first_version => format!(
                    "not mounted, and not all here: joining it was cut off ('cairnfs sync {}' goes on)",
                    self.name
                ),
                None => "not mounted".to_owned(),
            },
        }
    }
}
