//! New nodes, new links, attributes.

use std::sync::Arc;

use super::{Edit, EditError, EditResult};
use crate::entry::Entry;
use crate::ids::{LinkId, NodeId};
use crate::name::{AttrKey, AttrValue, Name};
use crate::node::{Body, Carry, Content, Kind, Node, Place};
use crate::reg::Reg;
use crate::small_map::SmallMap;
use crate::tree::Tree;

/// A file or directory that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode<B> {
    /// Its id, which must be new: [`NodeId::Born`] of the operation.
    pub id: NodeId,
    /// The name it asks for.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Its content; none for a directory.
    pub content: Option<Content<B>>,
    /// Its attributes.
    pub attrs: SmallMap<AttrKey, AttrValue>,
}

impl<B> NewNode<B> {
    /// A directory without attributes.
    #[must_use]
    pub fn dir(id: NodeId, name: Name) -> Self {
        Self { id, name, kind: Kind::Dir, content: None, attrs: SmallMap::default() }
    }

    /// A file without attributes.
    #[must_use]
    pub fn file(id: NodeId, name: Name, content: Content<B>) -> Self {
        let attrs = SmallMap::default();
        Self { id, name, kind: Kind::File, content: Some(content), attrs }
    }
}

impl<B: Body, T: Tree<B>> Edit<'_, B, T> {
    /// Creates `new` in the united directories `dirs`.
    ///
    /// # Errors
    ///
    /// [`EditError::Exists`] if the name is shown or the id is not new; [`EditError::NoContent`] for
    /// a leaf without content, [`EditError::IsADirectory`] for a directory with one;
    /// [`EditError::NotFound`] or [`EditError::NotADirectory`] for the directory it is to be in.
    pub fn create(&mut self, dirs: &[NodeId], new: NewNode<B>) -> EditResult<(), T::Error> {
        self.act(|edit| {
            edit.must_be_free(dirs, &new.name)?;
            edit.create_node(dirs, new)
        })
    }

    /// As [`Self::create`], even where the name is shown already: the name is contested then, as if
    /// two devices had created it, and what is created now has it.
    ///
    /// # Errors
    ///
    /// As [`Self::create`], but for the name.
    pub fn create_beside(&mut self, dirs: &[NodeId], new: NewNode<B>) -> EditResult<(), T::Error> {
        self.act(|edit| edit.create_node(dirs, new))
    }

    fn create_node(&mut self, dirs: &[NodeId], new: NewNode<B>) -> EditResult<(), T::Error> {
        let NewNode { id, name, kind, content, attrs } = new;
        let dir = self.home(dirs)?;
        if id == NodeId::Root || self.node(&id)?.is_some() {
            return Err(EditError::Exists);
        }
        let op = self.op;
        let mut node = Node::empty(kind);
        node.places = SmallMap::one(LinkId::FIRST, Reg::one(op, Place::new(dir, name)));
        match content {
            Some(_) if kind.is_dir() => return Err(EditError::IsADirectory),
            None if !kind.is_dir() => return Err(EditError::NoContent),
            Some(content) => node.content = Reg::one(op, content),
            None => (),
        }
        let attrs =
            attrs.iter().map(|(key, value)| (key.clone(), Reg::one(op, Some(value.clone()))));
        node.attrs = attrs.collect();
        node.live = Reg::one(op, Carry::Same);
        self.put(id, node);
        Ok(self.climb(dir)?)
    }

    /// Gives the leaf `entry` another name; `link` must be new.
    ///
    /// # Errors
    ///
    /// [`EditError::IsADirectory`] for a directory, [`EditError::Exists`] for a `link` that is not
    /// new; else as [`Self::create`].
    pub fn link(
        &mut self,
        entry: &Entry<B>,
        dirs: &[NodeId],
        name: Name,
        link: LinkId,
    ) -> EditResult<(), T::Error> {
        self.act(|edit| {
            if entry.kind.is_dir() {
                return Err(EditError::IsADirectory);
            }
            let dir = edit.home(dirs)?;
            edit.must_be_free(dirs, &name)?;
            let id = if entry.is_copy() {
                let [copy] = edit.shield([entry])?;
                edit.pin_stirred(&copy, None)?;
                edit.detach_in_place(&copy, None)?
            } else {
                entry.id()
            };
            edit.touch(&id)?;
            let node = edit.node(&id)?.ok_or(EditError::NotFound)?;
            if node.places.get(&link).is_some() {
                return Err(EditError::Exists);
            }
            let mut node = Arc::unwrap_or_clone(node);
            node.places.insert(link, Reg::one(edit.op, Place::new(dir, name)));
            node.take_in_hand(&edit.op);
            edit.put(id, node);
            Ok(edit.climb(dir)?)
        })
    }

    /// Sets an attribute, or removes it; on united directories call it for each id.
    ///
    /// [`NodeId::Root`] gets a node for its attributes with the first one.
    ///
    /// # Errors
    ///
    /// [`EditError::NotFound`] if the node is gone.
    pub fn set_attr(
        &mut self,
        id: &NodeId,
        key: AttrKey,
        value: Option<AttrValue>,
    ) -> EditResult<(), T::Error> {
        self.act(|edit| edit.put_attr(id, key, value))
    }

    pub(super) fn put_attr(
        &mut self,
        id: &NodeId,
        key: AttrKey,
        value: Option<AttrValue>,
    ) -> EditResult<(), T::Error> {
        if *id == NodeId::Root && self.node(id)?.is_none() {
            self.put(NodeId::Root, Node::empty(Kind::Dir));
        }
        self.touch(id)?;
        let node = self.node(id)?.ok_or(EditError::NotFound)?;
        let mut node = Arc::unwrap_or_clone(node);
        let never_set = value.is_none() && node.attrs.get(&key).is_none();
        if !never_set {
            node.set_attr(self.op, key, value);
        }
        self.put(*id, node);
        Ok(())
    }
}
