//! Which extended attributes there are.

/// Whether attributes of this name can be kept.
///
/// Those of `system.` are ways to talk to a file system rather than data. Its access control lists
/// among them would be stored but not enforced, because the kernel enforces them for FUSE only
/// where the file system computes with them too; keeping them would be a lie about who may read.
pub(super) fn is_kept(name: &[u8]) -> bool {
    [b"user.".as_slice(), b"trusted.", b"security."]
        .iter()
        .any(|namespace| name.len() > namespace.len() && name.starts_with(namespace))
}

/// The names in `list`, each ended by a NUL, that `uid` may know of: `trusted.` is root's
/// (xattr(7)), and the kernel leaves it to the file system to say so.
pub(super) fn visible(list: Vec<u8>, uid: u32) -> Vec<u8> {
    if uid == 0 {
        return list;
    }
    list.split_inclusive(|&byte| byte == 0)
        .filter(|name| !name.starts_with(b"trusted."))
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_control_lists_are_refused() {
        assert!(is_kept(b"user.x") && is_kept(b"security.capability") && is_kept(b"trusted.y"));
        for name in [b"system.posix_acl_access".as_slice(), b"user.", b"user", b"other.x", b""] {
            assert!(!is_kept(name));
        }
    }

    #[test]
    fn trusted_names_are_for_root() {
        let list = b"user.a\0trusted.b\0security.c\0".to_vec();
        assert_eq!(visible(list.clone(), 0), list);
        assert_eq!(visible(list, 1000), b"user.a\0security.c\0");
    }
}
