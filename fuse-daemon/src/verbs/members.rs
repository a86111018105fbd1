//! `cairnfs members`, `cairnfs role` and `cairnfs remove`: who has a bucket, and what they may do.

use cairnfs_mount_core::{Member, Role};
use serde::Serialize;

use super::Context;
use crate::{
    cli::{MemberArgs, MembersArgs},
    control::{Answer, Client, MembersReport, Opening, Request, SetMemberRequest},
    exit::{Code, Failure, Result},
    home::BucketName,
    ui,
    values::hex,
};

/// Fewer digits than these do not name a device.
const KEY_DIGITS_MIN: usize = 4;

#[derive(Serialize)]
struct Members {
    bucket: String,
    members: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    key: String,
    role: &'static str,
    this_device: bool,
}

pub(super) fn run(context: &Context, args: &MembersArgs) -> Result<()> {
    let opening = context.opening(&args.bucket, &args.passphrase)?;
    let report = ask(context, opening)?;
    let device = context.home.device_key()?.public();
    if args.json {
        let members = report.members.iter().map(|member| Shown {
            name: member.name.clone(),
            key: hex(&member.key.0),
            role: word(member.role),
            this_device: member.key == device,
        });
        return ui::json(&Members { bucket: args.bucket.to_string(), members: members.collect() });
    }
    let width = report.members.iter().map(|member| called(member).chars().count()).max();
    for member in &report.members {
        let this = if member.key == device { "  this device" } else { "" };
        ui::result(format_args!(
            "{:<width$}  {:<6}  {}{this}",
            called(member),
            word(member.role),
            hex(&member.key.0[..8]),
            width = width.unwrap_or(0),
        ));
    }
    if report.role.is_none() {
        ui::note(format_args!("this device is no member of bucket '{}'", args.bucket));
    }
    if report.members.len() > 1
        && let Some(owner) = only_owner(&report.members)
    {
        ui::note(format_args!(
            "{} is the only owner: if it is lost, nobody can invite or remove a device ('cairnfs role {} \
             DEVICE owner' makes another)",
            called(owner),
            args.bucket
        ));
    }
    Ok(())
}

/// Gives a member another role, or with none removes it.
pub(super) fn change(context: &Context, args: &MemberArgs, role: Option<Role>) -> Result<()> {
    let bucket = &args.bucket;
    let opening = context.opening(bucket, &args.passphrase)?;
    let report = ask(context, opening.clone())?;
    let member = find(&report.members, &args.device, bucket)?;
    let who = format!("{} ({}, {})", called(member), word(member.role), hex(&member.key.0[..8]));
    if role == Some(member.role) {
        ui::note(format_args!("{who} is that already"));
        return Ok(());
    }
    let (to, done) = match role {
        Some(role) => (
            format!("make {who} {} of bucket '{bucket}'", word(role)),
            format!("{who} is {} of bucket '{bucket}' now", word(role)),
        ),
        None => (
            format!("remove {who} from bucket '{bucket}'"),
            format!(
                "removed {who} from bucket '{bucket}': it keeps what it has, and gets nothing new"
            ),
        ),
    };
    if only_owner(&report.members) == Some(member) {
        let message =
            format!("cannot {to}: a bucket must keep an owner, and this is the last owner");
        return Err(Failure::new(Code::Failed, message));
    }
    if report.role != Some(Role::Owner) {
        let message = format!("cannot {to}: only an owner can, and this device is none");
        return Err(Failure::new(Code::Failed, message));
    }
    if args.dry_run {
        ui::result(format_args!("would {to}"));
        return Ok(());
    }
    let request = SetMemberRequest { opening, member: member.clone(), role };
    let client = Client::connect_or_start(&context.home, None)?;
    client.ask(&Request::SetMember(request), &mut |_| ())?;
    ui::note(done);
    Ok(())
}

/// The one without whom nobody could be invited or removed any more.
fn only_owner(members: &[Member]) -> Option<&Member> {
    let mut owners = members.iter().filter(|member| member.role == Role::Owner);
    owners.next().filter(|_| owners.next().is_none())
}

fn ask(context: &Context, opening: Opening) -> Result<MembersReport> {
    let client = Client::connect_or_start(&context.home, None)?;
    match client.ask(&Request::Members(opening), &mut |_| ())? {
        Answer::Members(report) => Ok(report),
        _ => Err(Failure::unexpected_answer()),
    }
}

/// The member of this name, or whose key begins so.
fn find<'a>(members: &'a [Member], device: &str, bucket: &BucketName) -> Result<&'a Member> {
    let named: Vec<_> = members.iter().filter(|member| member.name == device).collect();
    let digits = device.to_ascii_lowercase();
    let is_key = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let few = if is_key && digits.len() < KEY_DIGITS_MIN {
        format!(", and a key is named by at least {KEY_DIGITS_MIN} of its digits")
    } else {
        String::new()
    };
    let found = if named.is_empty() && digits.len() >= KEY_DIGITS_MIN {
        members.iter().filter(|member| hex(&member.key.0).starts_with(&digits)).collect()
    } else {
        named
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Failure::new(
            Code::NotFound,
            format_args!(
                "no member of bucket '{bucket}' is called '{device}'{few} ('cairnfs members {bucket}' \
                 lists them)"
            ),
        )),
        _ => Err(Failure::usage(format_args!(
            "more than one member is called '{device}': name it by its key, as 'cairnfs members \
             {bucket}' shows it"
        ))),
    }
}

fn called(member: &Member) -> String {
    if member.name.is_empty() { "-".to_owned() } else { ui::shown(member.name.as_bytes()) }
}

/// What a role is called.
pub(super) fn word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Owner => "owner",
    }
}

#[cfg(test)]
mod tests {
    use cairnfs_store::DevicePublicKey;

    use super::*;

    #[test]
    fn a_device_is_found_by_name_or_by_how_its_key_begins() {
        let member = |key: u8, name: &str| Member {
            key: DevicePublicKey([key; 32]),
            role: Role::Writer,
            name: name.to_owned(),
        };
        let members = [member(0xab, "laptop"), member(0xac, "laptop"), member(0xcd, "nas")];
        let bucket = "b".parse().unwrap();
        let found = |device: &str| find(&members, device, &bucket).map(|found| found.key.0[0]);
        assert_eq!(found("nas"), Ok(0xcd));
        assert_eq!(found("ABAB"), Ok(0xab));
        assert_eq!(found("laptop").unwrap_err().code, Code::Usage);
        for (nobody, is_too_short) in [("", false), ("aba", true), ("fo", false), ("abac", false)] {
            let failure = found(nobody).unwrap_err();
            assert_eq!(failure.code, Code::NotFound, "{nobody}");
            let says_why = failure.message.contains("at least 4");
            assert_eq!(says_why, is_too_short, "{}", failure.message);
        }
    }
}
