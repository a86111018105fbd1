//! As whom owners are shown: they are numbers, and a person may have another one on each machine.

use cairnfs_merge::{NodeId, Tree};

use crate::{
    Attr, Caller, Error, Owner, Result, SetAttr,
    tree::{Data, attrs::Meta},
};

/// Which numbers of users and groups are shown as which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Owners {
    users: Swap,
    groups: Swap,
}

/// Two numbers, each shown as the other; all others are shown as themselves. So what is shown is what
/// was set, nothing is shown of two, and the same swap leads back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Swap(u32, u32);

impl Swap {
    fn of(self, id: u32) -> u32 {
        match self {
            Self(one, other) if id == one => other,
            Self(one, other) if id == other => one,
            _ => id,
        }
    }
}

impl Owners {
    /// The owner of the top directory of `tree` is shown as `wanted`; none while that has no owner, as
    /// before the first version of a joined bucket has come.
    pub(crate) fn of<T: Tree<Data, Error = Error>>(
        tree: &T,
        wanted: &Owner,
    ) -> Result<Option<Self>> {
        let Some(top) = tree.node(&NodeId::Root)? else { return Ok(None) };
        let Meta { uid, gid, .. } = Meta::of(&top, None);
        let users = Swap(uid, wanted.user.unwrap_or(uid));
        let groups = Swap(gid, wanted.group.unwrap_or(gid));
        Ok(Some(Self { users, groups }))
    }

    /// The user that is shown for the one in the tree, and the other way round.
    pub(crate) fn user(&self, uid: u32) -> u32 {
        self.users.of(uid)
    }

    /// As [`Self::user`], of groups.
    pub(crate) fn group(&self, gid: u32) -> u32 {
        self.groups.of(gid)
    }

    /// What is shown of attributes as they are in the tree.
    pub(crate) fn shown(&self, attr: Attr) -> Attr {
        Attr { uid: self.user(attr.uid), gid: self.group(attr.gid), ..attr }
    }

    /// What a change as it is asked for does to the tree.
    pub(crate) fn meant(&self, changes: SetAttr) -> SetAttr {
        let (uid, gid) = (changes.uid, changes.gid);
        SetAttr {
            uid: uid.map(|uid| self.user(uid)),
            gid: gid.map(|gid| self.group(gid)),
            ..changes
        }
    }

    /// As whom what `caller` makes is in the tree.
    pub(crate) fn caller(&self, caller: Caller) -> Caller {
        Caller { uid: self.user(caller.uid), gid: self.group(caller.gid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_owners_change_places_and_the_others_stay() {
        let owners = Owners { users: Swap(1000, 1026), groups: Swap::default() };
        assert_eq!([1000, 1026, 0, 7].map(|uid| owners.user(uid)), [1026, 1000, 0, 7]);
        assert_eq!([1000, 0].map(|gid| owners.group(gid)), [1000, 0]);
    }
}
