//! Names that are one name on systems that fold case or normalise.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;

use crate::entry::Entry;
use crate::name::Name;

/// What `name` is compared by: NFC of the lower case of its NFC. Bytes that are no UTF-8 stand for
/// themselves.
///
/// Lower case of the upper case stands in for full case folding (Unicode 3.13), which the standard
/// library does not have; they differ in a handful of letters.
#[must_use]
pub fn folded(name: &Name) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(name.as_bytes()) else { return name.as_bytes().to_vec() };
    let nfc: String = text.nfc().collect();
    nfc.to_uppercase().to_lowercase().nfc().collect::<String>().into_bytes()
}

/// A name that had to yield.
pub(crate) struct Yielded<B> {
    pub(crate) name: Name,
    /// The entry, unless another with the same bytes stands for it.
    pub(crate) entry: Option<Entry<B>>,
}

/// Takes out of `shown` every leaf whose name another, higher version has in another spelling.
pub(crate) fn clashes<B: Clone>(shown: &mut BTreeMap<Name, Entry<B>>) -> Vec<Yielded<B>> {
    let mut order: Vec<Name> = shown.keys().cloned().collect();
    // Directories keep their names; of leaves the highest does.
    order.sort_by_key(|name| {
        std::cmp::Reverse(shown.get(name).map(|entry| (entry.kind.is_dir(), entry.rank)))
    });
    let mut holders: BTreeMap<Vec<u8>, Name> = BTreeMap::new();
    let mut yielded = Vec::new();
    for name in order {
        let Some(holder) = holders.get(&folded(&name)).cloned() else {
            holders.insert(folded(&name), name);
            continue;
        };
        if shown.get(&name).is_none_or(|entry| entry.kind.is_dir()) {
            continue;
        }
        let Some(entry) = shown.remove(&name) else { continue };
        let holder = shown.get_mut(&holder).filter(|holder| holder.same_bytes(&entry));
        let entry = match holder {
            Some(holder) => {
                holder.absorb(&entry);
                None
            }
            None => Some(entry),
        };
        yielded.push(Yielded { name, entry });
    }
    yielded
}
