//! `cairnfs status`: first of all, is everything safe? Then how each bucket fares.

mod document;
mod found;
mod text;

use super::Context;
use crate::{
    cli::StatusArgs,
    exit::{Code, Failure, Result},
    home::BucketName,
    ui,
};

pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<()> {
    if let Some(name) = &args.bucket {
        context.describe(name)?;
    }
    let whole = found::gather(context, args)?;
    if args.json {
        ui::json(&document::of(context, &whole))?;
    } else {
        text::print(context, &whole);
    }
    let all = &whole.buckets;
    let unsafe_one = all.iter().find_map(|one| one.danger().map(|why| (&one.name, why)));
    match unsafe_one {
        Some((name, why)) if args.wait_safe => {
            Err(Failure::new(Code::Unsaved, format_args!("bucket '{name}': {why}")))
        }
        _ => Ok(()),
    }
}

/// Free bytes of the disk that the bucket lies on.
fn free_bytes(context: &Context, bucket: &BucketName) -> Option<u64> {
    let stat = rustix::fs::statvfs(context.home.bucket_dir(bucket)).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
