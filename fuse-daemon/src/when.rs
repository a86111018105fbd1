//! Points in time, as people and scripts read them.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use cairnfs_mount_core::{Time, Which};
use jiff::{Timestamp, ToSpan, civil::DateTime, tz::TimeZone};

use crate::values::{BadValue, Span};

/// Fewer digits than these do not name a version: `5d` is a time.
const ID_DIGITS_MIN: usize = 8;

/// What is not published yet belongs to now, and is not over when that is asked for.
const ASKING: Duration = Duration::from_secs(10);

/// A version, as a person names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Moment(pub(crate) Which);

impl FromStr for Moment {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let digits = text.to_ascii_lowercase();
        let is_id = (ID_DIGITS_MIN..=64).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id {
            return Ok(Self(Which::Id(digits)));
        }
        let now = SystemTime::now();
        let ago = |span: Span| {
            let is_now = span.0.is_zero();
            if is_now { now.checked_add(ASKING) } else { now.checked_sub(span.0) }
        };
        let by = text.parse().ok().and_then(ago).or_else(|| parse(text));
        by.map(|by| Self(Which::By(by.into()))).ok_or_else(|| {
            BadValue::new(
                text,
                "a version or a time: write 8 digits or more of its id, 2h (ago), 2026-11-22 or \
                 '2026-11-22 14:23:56'",
            )
        })
    }
}

/// A moment as [`rfc3339`] writes it, or the last one of the day, hour, minute or second that is
/// named in the zone of the one who asks.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.into());
    }
    let at: DateTime = text.parse().ok()?;
    let named = match text.matches(':').count() {
        0 if text.contains([' ', 'T', 't']) => 1.hour(),
        0 => 1.day(),
        1 => 1.minute(),
        _ => 1.second(),
    };
    let end = at.to_zoned(TimeZone::system()).ok()?.checked_add(named).ok()?;
    Some(end.timestamp().checked_sub(1.nanosecond()).ok()?.into())
}

/// `2026-11-22 13:15:46`, in the zone of the one who reads.
pub(crate) fn local(time: impl Into<Time>) -> String {
    timestamp(time).map_or_else(
        || "at an impossible time".to_owned(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// `2 s ago (2026-11-22 13:15:46)`, or `never`.
pub(crate) fn ago(time: Option<impl Into<Time>>) -> String {
    time.map(Into::into).map_or_else(
        || "never".to_owned(),
        |time: Time| format!("{} ago ({})", Span(since(time)).about(), local(time)),
    )
}

/// How long ago; nothing if the clock was set back meanwhile.
pub(crate) fn since(time: impl Into<Time>) -> Duration {
    SystemTime::now().duration_since(time.into().into()).unwrap_or_default()
}

/// `2026-11-22T12:15:46.5Z`, for scripts.
pub(crate) fn rfc3339(time: impl Into<Time>) -> String {
    timestamp(time).map_or_else(String::new, |at| at.to_string())
}

/// None in years of more than four digits.
fn timestamp(time: impl Into<Time>) -> Option<Timestamp> {
    let Time { seconds, nanos } = time.into();
    let whole = Timestamp::from_second(seconds).ok()?;
    whole.checked_add(i64::from(nanos).nanoseconds()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_its_id_or_by_a_time() {
        let meant = |text: &str| text.parse().map(|Moment(which)| which);
        assert_eq!(meant("015123EBB9dfd241"), Ok(Which::Id("015123ebb9dfd241".into())));
        let Ok(Which::By(by)) = meant("2h") else { panic!("2h is a time") };
        assert_eq!(since(by).as_secs() / 60, 120);
        let Ok(Which::By(by)) = meant("0s") else { panic!("now is a time") };
        assert!(by > Time::now(), "what is written by now is published only then");
        let shown = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_000_000_700);
        let Ok(Which::By(by)) = meant(&local(shown)) else { panic!("as it is shown") };
        assert!(by >= shown.into() && since(shown) - since(by) < Duration::from_secs(1));
        for (named, last) in [
            ("2026-11-22", "2026-11-22 23:59:59"),
            ("2026-11-22 14", "2026-11-22 14:59:59"),
            ("2026-11-22 14:23", "2026-11-22 14:23:59"),
        ] {
            assert_eq!(meant(named), meant(last), "{named}");
        }
        assert_eq!(meant(&rfc3339(shown)), Ok(Which::By(shown.into())), "as scripts are told");
        let moon = Time { seconds: -14_182_940, nanos: 500_000_000 };
        assert_eq!(rfc3339(moon), "1969-07-20T20:17:40.5Z");
        assert_eq!(meant(&rfc3339(moon)), Ok(Which::By(moon)), "before 1970");
        for bad in ["", "yesterday", "015123g", "2026-13-01", "0123456", "-2h"] {
            assert!(meant(bad).is_err(), "{bad}");
        }
    }
}
