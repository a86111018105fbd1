//! The names of conflict copies: `stem@<hex>`, a pure function of what is in the directory.

use std::collections::BTreeMap;

use crate::entry::{Entry, Role};
use crate::ids::ContentId;
use crate::name::Name;

/// Whether `name` could be that of a copy: `@` and at least eight hex digits at its end, perhaps
/// with a number behind.
pub(crate) fn could_be_copy(name: &Name) -> bool {
    let bytes = name.as_bytes();
    let Some(at) = bytes.iter().rposition(|byte| *byte == b'@') else { return false };
    let tail = bytes.get(at.saturating_add(1)..).unwrap_or(&[]);
    let hex = tail.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
    let rest = tail.get(hex..).unwrap_or(&[]);
    let numbered = match rest {
        [] => true,
        [b'-', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    matches!(hex, 8 | 16 | 32 | 64) && numbered
}

/// The longest stem, in bytes, that no name of a copy is too long for: 255, less `@`, 64 digits and
/// a number, and what of a character is cut off.
const WHOLE_STEM_BYTES_MAX: usize = 165;

/// Whether copies of this stem, and no others, have names that begin with it and `@`.
pub(crate) fn is_whole_stem(stem: &Name) -> bool {
    stem.as_bytes().len() <= WHOLE_STEM_BYTES_MAX
}

/// What `name` begins with, if it could be that of a copy.
pub(crate) fn stem_of(name: &Name) -> Option<Name> {
    let at = name.as_bytes().iter().rposition(|byte| *byte == b'@')?;
    let stem = Name::new(name.as_bytes().get(..at)?).ok()?;
    could_be_copy(name).then_some(stem)
}

/// Gives each loser a name.
///
/// `shown` has the entries that keep their names, and receives the copies. `at` finds an entry
/// that keeps its name and is not in `shown` yet. A name that the same bytes have already stands
/// for both.
pub(crate) fn allocate<B: Clone, E>(
    mut losers: Vec<Entry<B>>,
    shown: &mut BTreeMap<Name, Entry<B>>,
    mut at: impl FnMut(&Name) -> Result<Option<Entry<B>>, E>,
) -> Result<(), E> {
    let content = |entry: &Entry<B>| entry.content.as_ref().map(|content| content.id);
    losers.sort_by(|a, b| {
        (&a.stem, content(a), a.kind, &a.name).cmp(&(&b.stem, content(b), b.kind, &b.name))
    });
    for mut loser in losers {
        let Some(id) = content(&loser) else { continue };
        let stem = loser.stem.clone();
        for name in candidates(&stem, &id) {
            if !shown.contains_key(&name)
                && let Some(entry) = at(&name)?
            {
                shown.insert(name.clone(), entry);
            }
            match shown.get_mut(&name) {
                Some(holder) if holder.same_bytes(&loser) => holder.absorb(&loser),
                Some(_) => continue,
                None => {
                    let slot = std::mem::replace(&mut loser.name, name.clone());
                    loser.role = Role::Copy { slot, stem: stem.clone() };
                    shown.insert(name, loser);
                }
            }
            break;
        }
    }
    Ok(())
}

/// Whether `loser` may have got `name`.
pub(crate) fn may_be_called<B>(loser: &Entry<B>, name: &Name) -> bool {
    let Some(content) = &loser.content else { return false };
    let is = |suffix: &str| with_suffix(&loser.stem, suffix).as_ref() == Some(name);
    let hex = content.id.to_hex();
    let tail = name.as_bytes().rsplit(|byte| *byte == b'@').next().unwrap_or(&[]);
    let Ok(suffix) = std::str::from_utf8(tail) else { return false };
    let plain = suffix.split('-').next().unwrap_or(suffix);
    could_be_copy(name) && hex.starts_with(plain) && is(suffix)
}

/// The names to try: 8, 16, 32 and 64 hex digits, then numbered ones.
fn candidates(stem: &Name, id: &ContentId) -> impl Iterator<Item = Name> {
    let hex = id.to_hex();
    let prefixes = [8, 16, 32, 64].map(|digits| hex.chars().take(digits).collect::<String>());
    let numbered = (2_u64..).map(move |n| format!("{hex}-{n}"));
    let stem = stem.clone();
    prefixes.into_iter().chain(numbered).filter_map(move |suffix| with_suffix(&stem, &suffix))
}

/// `stem@suffix`; the stem is cut at a character boundary where the whole would be too long.
fn with_suffix(stem: &Name, suffix: &str) -> Option<Name> {
    let room = Name::MAX_BYTES.checked_sub(suffix.len().checked_add(1)?)?;
    let mut bytes = cut(stem.as_bytes(), room).to_vec();
    bytes.push(b'@');
    bytes.extend_from_slice(suffix.as_bytes());
    Name::new(&bytes).ok()
}

/// The longest prefix of at most `room` bytes that does not end within a UTF-8 character.
fn cut(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let is_continuation = |at: usize| stem.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // A run of more than three is no UTF-8; such a name is cut anywhere.
    let end = (room.saturating_sub(3)..=room).rev().find(|at| !is_continuation(*at));
    stem.get(..end.unwrap_or(room)).unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_names_of_the_right_form_are_looked_for_among_copies() {
        assert!(could_be_copy(&name("t@0123abcd")));
        assert!(could_be_copy(&name("a@b@0123abcd")));
        let long = format!("t@{}-2", "0".repeat(64));
        assert!(could_be_copy(&name(&long)));
        for plain in ["t", "t@", "t@0123abc", "t@0123ABCD", "t@0123abcdx", "t@0123abcd-"] {
            assert!(!could_be_copy(&name(plain)), "{plain}");
        }
    }

    #[test]
    fn long_stems_are_cut_at_a_character() {
        let stem = name(&format!("{}\u{e9}", "x".repeat(245)));
        let cut = with_suffix(&stem, "01234567").unwrap();
        assert_eq!(cut.as_bytes().len(), 254);
        assert!(std::str::from_utf8(cut.as_bytes()).is_ok());
        assert_eq!(stem_of(&cut).unwrap().as_bytes().len(), 245);
        let stem = name(&"\u{20ac}".repeat(85));
        let cut = with_suffix(&stem, "01234567").unwrap();
        assert!(cut.as_bytes().len() <= 255 && std::str::from_utf8(cut.as_bytes()).is_ok());
    }

    #[test]
    fn a_stem_is_whole_if_the_longest_name_made_of_it_has_it_whole() {
        let longest = format!("{}-{}", "0".repeat(64), u64::MAX);
        let whole = name(&"x".repeat(WHOLE_STEM_BYTES_MAX));
        assert_eq!(stem_of(&with_suffix(&whole, &longest).unwrap()), Some(whole));
        let cut = name(&"\u{20ac}".repeat(60));
        let of_cut = stem_of(&with_suffix(&cut, &longest).unwrap()).unwrap();
        assert!(!is_whole_stem(&of_cut), "it would be taken for another stem");
    }
}
