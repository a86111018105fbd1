//! Extended attributes.

use cairnfs_merge::{AttrKey, AttrValue, Attrs, Tree};

use super::{Mount, Target};
use crate::{
    Error, Ino, Result, SetXattr,
    file::Data,
    places,
    tree::attrs::{self, is_xattr},
};

impl Mount {
    /// The value of an extended attribute.
    ///
    /// # Errors
    ///
    /// [`Error::NoXattr`], [`Error::Stale`], damage.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let core = self.shared().core.read();
        value_of(&self.target(&core, ino)?.attrs(), name)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] and [`Error::NoXattr`] by `mode`, [`Error::XattrTooLarge`] beyond 64 KiB,
    /// [`Error::NoSpace`] for more than a file can have, [`Error::Stale`], [`Error::ReadOnly`],
    /// damage.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: SetXattr) -> Result<()> {
        let key = xattr_key(name)?;
        let value = AttrValue::new(value).map_err(|_overlong| Error::XattrTooLarge)?;
        self.reserve(value.as_bytes().len() as u64)?;
        self.change_xattr(ino, &key, Some(&value), mode)
    }

    /// The names, each ended by a NUL, as `listxattr` returns them.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`], damage.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let core = self.shared().core.read();
        Ok(names_of(&self.target(&core, ino)?.attrs()))
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    ///
    /// [`Error::NoXattr`], [`Error::Stale`], [`Error::ReadOnly`], damage.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.change_xattr(ino, &xattr_key(name)?, None, SetXattr::Replace)
    }

    fn change_xattr(
        &self,
        ino: Ino,
        key: &AttrKey,
        value: Option<&AttrValue>,
        mode: SetXattr,
    ) -> Result<()> {
        let target = self.target(&self.shared().core.read(), ino)?;
        let shown = match target {
            Target::Named(shown, node) => self.apart(shown, &node)?,
            Target::Nameless(_) | Target::RemovedDir(..) => {
                return Err(Error::NotSupported("attributes of a file without a name"));
            }
        };
        self.change(|change| {
            let node = change.edit.tree().node(&shown.node)?;
            let exists = node.as_ref().is_some_and(|node| node.attrs_of(None).get(key).is_some());
            match mode {
                SetXattr::Create if exists => return Err(Error::Exists),
                SetXattr::Replace if !exists => return Err(Error::NoXattr),
                _ => (),
            }
            let ids = match node {
                Some(node) if !node.kind.is_dir() => vec![shown.node],
                _ => places::group(change.edit.tree(), &shown.node)?,
            };
            for id in ids {
                change.edit.set_attr(&id, key.clone(), value.cloned())?;
                if value.is_some() {
                    change.must_fit(&id, Error::NoSpace)?;
                }
                attrs::set_changed(&mut change.edit, &id, change.now)?;
            }
            Ok(())
        })?;
        self.tell_other_number(ino);
        Ok(())
    }
}

/// The value of an extended attribute.
///
/// # Errors
///
/// [`Error::NoXattr`], [`Error::NotSupported`].
pub(super) fn value_of(attrs: &Attrs<'_, Data>, name: &[u8]) -> Result<Vec<u8>> {
    let key = xattr_key(name)?;
    attrs.get(&key).map(|value| value.as_bytes().to_vec()).ok_or(Error::NoXattr)
}

/// The names of all extended attributes, each ended by a NUL.
pub(super) fn names_of(attrs: &Attrs<'_, Data>) -> Vec<u8> {
    let mut names = Vec::new();
    for key in attrs.to_map().keys().filter(|key| is_xattr(key)) {
        names.extend_from_slice(key.as_bytes());
        names.push(0);
    }
    names
}

/// Extended attributes have a namespace before a dot, which tells them from built-in ones.
fn xattr_key(name: &[u8]) -> Result<AttrKey> {
    let key = AttrKey::new(name).map_err(|_overlong| Error::XattrTooLarge)?;
    if is_xattr(&key) && !key.is_quiet() {
        Ok(key)
    } else {
        Err(Error::NotSupported("an extended attribute without a namespace"))
    }
}
