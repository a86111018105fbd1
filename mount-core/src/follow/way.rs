//! The way from the root to an open file: where it is, should the directories go with its name.
//!
//! What is written to a file that was removed elsewhere, with the directory it was in, is to be found
//! where it was, and never under a name in another place. So what is missing of the way is made again.

use std::{collections::BTreeMap, sync::Arc};

use cairnfs_merge::{AttrKey, AttrValue, Edit, Kind, Name, NewNode, NodeId, SmallMap, Tree, spots};

use crate::{Error, Result, file::Data, places, tree::LiveTree};

/// So many directories lie above another one at the most, so that no damage can loop.
const DEPTH_MAX: usize = 1 << 17;

/// A directory as it was.
#[derive(PartialEq, Eq, Debug)]
struct Above {
    id: NodeId,
    parent: NodeId,
    name: Name,
    attrs: SmallMap<AttrKey, AttrValue>,
}

/// The directories from the root down to one, as they were; none for the root itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Way(Arc<[Arc<Above>]>);

/// Ways in one tree: what several have in common is kept once.
#[derive(Default)]
pub(super) struct Ways {
    above: BTreeMap<NodeId, Arc<Above>>,
    ways: BTreeMap<NodeId, Way>,
}

impl Ways {
    /// The way to the directory `dir` in `tree`. What lies above damage is left out: hardly ever does
    /// anybody go the way, and who does then is to find what stands of it.
    pub(super) fn to<T: Tree<Data, Error = Error>>(&mut self, tree: &T, dir: &NodeId) -> Way {
        if let Some(way) = self.ways.get(dir) {
            return way.clone();
        }
        let mut up = Vec::new();
        let mut at = *dir;
        while at != NodeId::Root && up.len() < DEPTH_MAX {
            match self.above(tree, &at) {
                Ok(Some(above)) => {
                    at = above.parent;
                    up.push(above);
                }
                Ok(None) => break,
                Err(err) => {
                    log::warn!("way dir={at} reason={err}");
                    break;
                }
            }
        }
        up.reverse();
        let way = Way(up.into());
        self.ways.insert(*dir, way.clone());
        way
    }

    fn above<T: Tree<Data, Error = Error>>(
        &mut self,
        tree: &T,
        id: &NodeId,
    ) -> Result<Option<Arc<Above>>> {
        if let Some(above) = self.above.get(id) {
            return Ok(Some(Arc::clone(above)));
        }
        let Some(node) = tree.node(id)? else { return Ok(None) };
        let spot = spots(&node, tree.displaced(id)?.as_ref()).into_iter().next();
        let Some(spot) = spot else { return Ok(None) };
        let attrs = node.attrs_of(None).to_map();
        let above = Arc::new(Above { id: *id, parent: spot.parent, name: spot.name, attrs });
        self.above.insert(*id, Arc::clone(&above));
        Ok(Some(above))
    }
}

/// Where a way leads.
pub(super) struct End {
    /// The directories that are shown as the one at its end.
    pub(super) dirs: Vec<NodeId>,
    /// The first name of it that was missing, and the directories it is in now.
    pub(super) made: Option<(Vec<NodeId>, Name)>,
}

impl Way {
    /// Goes the way in the tree of `edit`, wherever what stands of it is by now, and makes what is
    /// missing, as it was: with names from `fresh`, and in directories that somebody has made again.
    ///
    /// # Errors
    ///
    /// Damage in the tree.
    pub(super) fn go(
        &self,
        edit: &mut Edit<'_, Data, LiveTree>,
        mut fresh: impl FnMut() -> NodeId,
    ) -> Result<End> {
        let mut end = End { dirs: vec![NodeId::Root], made: None };
        let mut standing = 0;
        for (index, above) in self.0.iter().enumerate().rev() {
            if edit.tree().node(&above.id)?.is_some() {
                end.dirs = places::group(edit.tree(), &above.id)?;
                standing = index + 1;
                break;
            }
        }
        for above in &self.0[standing..] {
            let shown = edit.view().lookup(&end.dirs, &above.name)?;
            if let Some(entry) = shown.filter(|entry| entry.kind.is_dir()) {
                end.dirs = entry.into_ids();
                continue;
            }
            let id = fresh();
            let (name, attrs) = (above.name.clone(), above.attrs.clone());
            let new = NewNode { id, name, kind: Kind::Dir, content: None, attrs };
            edit.create_beside(&end.dirs, new)?;
            let dirs = std::mem::replace(&mut end.dirs, vec![id]);
            end.made.get_or_insert((dirs, above.name.clone()));
        }
        Ok(end)
    }
}
