//! Values as people write them: `64MiB`, `500ms`, `yes`.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

/// The text is not a value of the wanted sort; says what would be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub(crate) struct BadValue {
    text: String,
    wanted: &'static str,
}

impl BadValue {
    pub(crate) fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.to_owned(), wanted }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size(pub(crate) u64);

const SIZE_UNITS: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl FromStr for Size {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::new(text, "a size: write 64MiB, 512KiB or 1GiB");
        let (count, unit) = split(text).ok_or_else(bad)?;
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        count.checked_mul(*bytes).map(Self).ok_or_else(bad)
    }
}

/// As it is written in the configuration, where nothing may be rounded.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = SIZE_UNITS
            .iter()
            .rev()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .unwrap_or(&SIZE_UNITS[0]);
        write!(f, "{}{name}", self.0 / bytes)
    }
}

impl Size {
    /// As people like to read it: three figures.
    pub(crate) fn about(self) -> String {
        let (name, bytes) =
            SIZE_UNITS.iter().rev().find(|(_, bytes)| self.0 >= *bytes).unwrap_or(&SIZE_UNITS[0]);
        let tenths = u128::from(self.0) * 10 / u128::from(*bytes);
        if *bytes == 1 || tenths >= 1000 {
            format!("{} {name}", tenths / 10)
        } else {
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

/// A length of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span(pub(crate) Duration);

const SPAN_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Span {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::new(text, "a time: write 500ms, 5s, 10m, 2h or 7d");
        let (count, unit) = split(text).ok_or_else(bad)?;
        let (_, millis) = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        count.checked_mul(*millis).map(|all| Self(Duration::from_millis(all))).ok_or_else(bad)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (name, millis) = SPAN_UNITS
            .iter()
            .rev()
            .find(|(_, millis)| all >= *millis && all.is_multiple_of(*millis))
            .unwrap_or(&SPAN_UNITS[0]);
        write!(f, "{}{name}", all / millis)
    }
}

impl Span {
    /// As people like to read it: `3.2 s`, `4 min`, `2 days`.
    pub(crate) fn about(self) -> String {
        let seconds = self.0.as_secs();
        match seconds {
            0..60 => format!("{}.{} s", seconds, self.0.subsec_millis() / 100),
            60..3_600 => format!("{} min", seconds / 60),
            3_600..172_800 => format!("{} h", seconds / 3_600),
            _ => format!("{} days", seconds / 86_400),
        }
    }
}

/// A user's or a group's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id(pub(crate) u32);

impl FromStr for Id {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        // The highest one means nobody (chown(2)).
        let id = text.parse().ok().filter(|id| *id != u32::MAX);
        id.map(Self).ok_or_else(|| BadValue::new(text, "a number as 'id' shows it, such as 1000"))
    }
}

/// Where to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl FromStr for Address {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let wanted = "an address: write 192.0.2.7:7117, or [::]:7117 for all there are";
        text.parse().ok().map(Self).ok_or_else(|| BadValue::new(text, wanted))
    }
}

/// Yes or no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Switch(pub(crate) bool);

impl FromStr for Switch {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "true" | "yes" | "on" | "1" => Ok(Self(true)),
            "false" | "no" | "off" | "0" => Ok(Self(false)),
            _ => Err(BadValue::new(text, "a switch: write true or false")),
        }
    }
}

/// The number at the start, and what follows it.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// Bytes as two lower-case hexadecimal digits each.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As many bytes as the text has pairs of hexadecimal digits, if they are `N`.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N * 2 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_read_back() {
        assert_eq!(parse_hex(&hex(&[0, 0x7f, 0xff])), Some([0, 0x7f, 0xff]));
        assert_eq!(parse_hex("AB"), Some([0xab]));
        for text in ["", "a", "abc", "abcd", "+a", "zz", "\u{e9}"] {
            assert_eq!(parse_hex::<1>(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_read_back_as_they_are_written() {
        for text in ["0B", "1B", "64MiB", "1GiB", "1025KiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("1024KiB".parse::<Size>().unwrap().to_string(), "1MiB");
    }

    #[test]
    fn times_read_back_as_they_are_written() {
        for text in ["500ms", "5s", "10m", "2h", "90s", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_value_says_what_would_be_right() {
        for text in ["", "5", "MiB", "5mb", "-1s", "99999999999999999999s", "9999999999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "here", "192.0.2.7", "::1:7117", "host:7117"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert!("[::]:7117".parse::<Address>().is_ok());
        let err = "5".parse::<Span>().unwrap_err().to_string();
        assert_eq!(err, "\"5\" is not a time: write 500ms, 5s, 10m, 2h or 7d");
    }

    #[test]
    fn people_read_three_figures() {
        assert_eq!(Size(0).about(), "0 B");
        assert_eq!(Size(1536).about(), "1.5 KiB");
        assert_eq!(Size(200 << 20).about(), "200 MiB");
        assert_eq!(Span(Duration::from_millis(3_250)).about(), "3.2 s");
        assert_eq!(Span(Duration::from_secs(7_300)).about(), "2 h");
    }
}
