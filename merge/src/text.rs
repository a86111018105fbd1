//! Merging the versions of one text: the union of what each side changed.
//!
//! Each side is a set of hunks against the base. If all hunks of all sides are pairwise disjoint
//! and no two touch, their union is the merge: any number of sides, in any order. Otherwise there
//! is none; markers never get into a file.

use std::collections::BTreeSet;

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Lines of the base, and what stands in their place.
type Hunk<'a> = (usize, usize, Vec<&'a [u8]>);

/// Merges `sides`, which all come from `base`, line by line.
///
/// Takes any bytes of any length for text: what is too long, or has a NUL in it and is none, is for the
/// caller to keep away, on all peers alike.
///
/// ```
/// # use cairnfs_merge::text::merge_lines;
/// let merged = merge_lines(b"a\nb\nc\n", &[b"A\nb\nc\n", b"a\nb\nC\n"]);
/// assert_eq!(merged.as_deref(), Some(b"A\nb\nC\n".as_slice()));
/// assert_eq!(merge_lines(b"a\n", &[b"b\n", b"c\n"]), None);
/// ```
#[must_use]
pub fn merge_lines(base: &[u8], sides: &[&[u8]]) -> Option<Vec<u8>> {
    let lines = split(base);
    let mut hunks: BTreeSet<Hunk<'_>> = BTreeSet::new();
    for side in sides {
        hunks.extend(hunks_of(&lines, &split(side)));
    }
    let mut out: Vec<&[u8]> = Vec::new();
    let mut done = 0;
    let mut last_end = None;
    for (start, end, replacement) in hunks {
        if last_end.is_some_and(|last| start <= last) {
            return None;
        }
        out.extend(lines.get(done..start)?);
        out.extend(replacement);
        done = end;
        last_end = Some(end);
    }
    out.extend(lines.get(done..)?);
    Some(out.join(&b'\n'))
}

fn split(text: &[u8]) -> Vec<&[u8]> {
    text.split(|byte| *byte == b'\n').collect()
}

fn hunks_of<'a>(base: &[&'a [u8]], side: &[&'a [u8]]) -> Vec<Hunk<'a>> {
    let ops = capture_diff_slices(Algorithm::Myers, base, side);
    let mut hunks: Vec<Hunk<'a>> = Vec::new();
    for op in ops.iter().filter(|op| !matches!(op, DiffOp::Equal { .. })) {
        let (old, new) = (op.old_range(), op.new_range());
        let lines = side.get(new).unwrap_or(&[]);
        match hunks.last_mut() {
            // A deletion with an insertion behind it is one change.
            Some((_, end, replacement)) if *end == old.start => {
                *end = old.end;
                replacement.extend(lines);
            }
            _ => hunks.push((old.start, old.end, lines.to_vec())),
        }
    }
    hunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_changes_are_one_change() {
        let merged = merge_lines(b"a\nb\nc", &[b"x\nb\nc", b"x\nb\nc"]);
        assert_eq!(merged.as_deref(), Some(b"x\nb\nc".as_slice()));
    }

    #[test]
    fn touching_changes_do_not_merge() {
        assert_eq!(merge_lines(b"a\nb\nc", &[b"A\nb\nc", b"a\nB\nc"]), None);
    }

    #[test]
    fn three_sides_merge_in_any_order() {
        let base = b"a\nb\nc\nd\ne".as_slice();
        let sides = [b"A\nb\nc\nd\ne".as_slice(), b"a\nb\nC\nd\ne", b"a\nb\nc\nd\nE"];
        let forth = merge_lines(base, &sides);
        let back = merge_lines(base, &[sides[2], sides[1], sides[0]]);
        assert_eq!(forth.as_deref(), Some(b"A\nb\nC\nd\nE".as_slice()));
        assert_eq!(forth, back);
    }
}
