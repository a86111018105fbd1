//! One peer: a tree in memory and the actions a user takes on paths.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cairnfs_merge::text::merge_lines;
use cairnfs_merge::{
    AttrKey, AttrValue, ConflictKind, Content, ContentId, DeviceId, Edit, EditError, Entry,
    Indexed, Kind, MergeContent, Name, NewNode, NodeId, OpId, Policy, Rendered, View, conflicts,
};

/// A body that is the text itself.
pub(crate) type Text = String;

/// An action that cannot be done here, as a system call would refuse it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

impl<E: std::error::Error> From<EditError<E>> for Refused {
    fn from(err: EditError<E>) -> Self {
        Self(err.to_string())
    }
}

pub(crate) type Done<T = ()> = Result<T, Refused>;

pub(crate) fn hash(text: &str) -> ContentId {
    ContentId(*blake3::hash(text.as_bytes()).as_bytes())
}

pub(crate) fn content(text: &str) -> Content<Text> {
    Content::new(hash(text), text.len() as u64, text.to_owned())
}

/// All texts anybody wrote, so that a base can be found by its id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Library(Rc<RefCell<BTreeMap<ContentId, String>>>);

impl Library {
    fn content(&self, text: &str) -> Content<Text> {
        self.0.borrow_mut().insert(hash(text), text.to_owned());
        content(text)
    }
}

impl MergeContent<Text> for Library {
    fn merge(&self, base: ContentId, sides: &[&Content<Text>]) -> Option<Content<Text>> {
        let texts = self.0.borrow();
        let sides: Vec<&[u8]> = sides.iter().map(|side| side.body.as_bytes()).collect();
        let merged = merge_lines(texts.get(&base)?.as_bytes(), &sides)?;
        Some(content(&String::from_utf8(merged).ok()?))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) device: DeviceId,
    pub(crate) tree: Indexed<Text>,
    pub(crate) portable: bool,
    pub(crate) auto_merge: bool,
    /// Several actions share an operation until somebody pulls.
    pub(crate) batches: bool,
    pub(crate) open: Option<(OpId, u32)>,
    pub(crate) library: Library,
    /// What this peer wrote, for the law that nothing is lost.
    pub(crate) written: BTreeMap<(NodeId, OpId), ContentId>,
    /// What this peer replaced, removed or resolved.
    pub(crate) gone: BTreeSet<(NodeId, OpId)>,
}

impl Peer {
    pub(crate) fn new(letter: char) -> Self {
        Self {
            device: DeviceId([letter as u8; 16]),
            tree: Indexed::default(),
            portable: false,
            auto_merge: false,
            batches: false,
            open: None,
            library: Library::default(),
            written: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }

    pub(crate) fn policy(&self) -> Policy<'_, Text> {
        cairnfs_merge::mutants::set_swaps_winner(self.device.0[0].is_multiple_of(2));
        let text: &dyn MergeContent<Text> = &self.library;
        Policy { portable: self.portable, text: self.auto_merge.then_some(text) }
    }

    pub(crate) fn view(&self) -> View<'_, Text, Indexed<Text>> {
        View::with_policy(&self.tree, self.policy())
    }

    pub(crate) fn render(&self) -> Rendered<Text> {
        self.view().render().unwrap()
    }

    /// Visible paths; directories end in a slash, links have an arrow before their target.
    pub(crate) fn show(&self) -> BTreeMap<String, Option<String>> {
        show(&self.render())
    }

    pub(crate) fn kinds(&self) -> BTreeSet<ConflictKind> {
        conflicts(&self.view()).unwrap().into_iter().map(|conflict| conflict.kind).collect()
    }

    /// Publishes: what follows is a new operation.
    pub(crate) fn publish(&mut self) {
        self.open = None;
    }

    pub(crate) fn pull(&mut self, other: &Self) {
        self.publish();
        let before = self.tree.state().vv.clone();
        self.tree.merge(&other.tree, self.device).unwrap();
        assert!(self.tree.state().vv.dominates(&before), "knowledge shrank");
    }

    /// The united directories at `path`.
    pub(crate) fn dirs(&self, path: &str) -> Done<Vec<NodeId>> {
        let mut dirs = vec![NodeId::Root];
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let entry = self.view().lookup(&dirs, &name(part)?).unwrap();
            let entry = entry.filter(|entry| entry.kind.is_dir());
            dirs = entry.ok_or_else(|| Refused(format!("no directory {path}")))?.into_ids();
        }
        Ok(dirs)
    }

    pub(crate) fn find(&self, path: &str) -> Done<Option<Entry<Text>>> {
        let (dir, last) = split(path);
        let dirs = self.dirs(dir)?;
        Ok(self.view().lookup(&dirs, &name(last)?).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> Done<Entry<Text>> {
        self.find(path)?.ok_or_else(|| Refused(format!("no {path}")))
    }

    /// Runs one action under this peer's operation.
    pub(crate) fn act(
        &mut self,
        action: impl FnOnce(&mut Edit<'_, Text, Indexed<Text>>, NodeId) -> Done,
    ) -> Done {
        let (op, n) = match self.open {
            Some(open) if self.batches => open,
            _ => (self.tree.state().vv.next_op(self.device).unwrap(), 0),
        };
        let before = self.tree.state().clone();
        let edited = {
            let mut edit = Edit::with_policy(&self.tree, op, self.policy());
            action(&mut edit, NodeId::Born { op, n })?;
            edit.finish()
        };
        for (id, node) in &edited.nodes {
            let old = before.nodes.get(id).map(|node| node.content.clone()).unwrap_or_default();
            let new = node.as_ref().map(|node| node.content.clone()).unwrap_or_default();
            for (op, _) in old.iter().filter(|(op, _)| !new.ops().any(|other| other == *op)) {
                self.gone.insert((*id, *op));
            }
            for (other, content) in new.iter().filter(|(other, _)| **other == op) {
                self.gone.remove(&(*id, *other));
                self.written.insert((*id, *other), content.id);
            }
        }
        self.tree.apply_derived(edited.nodes, edited.index);
        self.tree.vv_mut().learn(&op);
        self.open = Some((op, n.checked_add(1).unwrap()));
        Ok(())
    }

    pub(crate) fn put(&mut self, path: &str, text: &str, kind: Kind) -> Done {
        let content = self.library.content(text);
        let (dir, last) = split(path);
        match self.find(path)? {
            Some(entry) if entry.kind.is_dir() => Err(Refused("is a directory".into())),
            Some(entry) if entry.kind == kind => {
                if entry.content.as_ref().map(|old| old.id) == Some(content.id) && !entry.is_copy()
                {
                    return Ok(());
                }
                self.act(|edit, _| Ok(edit.write(&entry, content).map(|_| ())?))
            }
            found => {
                if found.is_some() {
                    self.rm(path)?;
                }
                let (dirs, last) = (self.dirs(dir)?, name(last)?);
                self.act(|edit, id| {
                    let new = NewNode { kind, ..NewNode::file(id, last, content) };
                    Ok(edit.create(&dirs, new)?)
                })
            }
        }
    }

    pub(crate) fn write(&mut self, path: &str, text: &str) -> Done {
        self.put(path, text, Kind::File)
    }

    /// Saves as editors do: a temporary file, renamed over the old one.
    pub(crate) fn save(&mut self, path: &str, text: &str) -> Done {
        let temp = format!("{path}.tmp~");
        let batches = std::mem::replace(&mut self.batches, true);
        self.publish();
        let outcome = self.save_over(path, &temp, text);
        self.batches = batches;
        outcome
    }

    /// As [`Self::save`], where a version has seen the temporary file before it is renamed.
    pub(crate) fn save_slowly(&mut self, path: &str, text: &str) -> Done {
        let temp = format!("{path}.tmp~");
        self.put(&temp, text, Kind::File)?;
        self.publish();
        self.move_over(path, &temp)
    }

    fn save_over(&mut self, path: &str, temp: &str, text: &str) -> Done {
        self.put(temp, text, Kind::File)?;
        self.move_over(path, temp)
    }

    fn move_over(&mut self, path: &str, temp: &str) -> Done {
        match self.find(path)? {
            Some(target) => {
                let temp = self.get(temp)?;
                self.act(|edit, _| Ok(edit.replace(&temp, &target)?))
            }
            None => self.mv(temp, path),
        }
    }

    pub(crate) fn mkdir(&mut self, path: &str) -> Done {
        let (dir, last) = split(path);
        let (dirs, last) = (self.dirs(dir)?, name(last)?);
        self.act(|edit, id| Ok(edit.create(&dirs, NewNode::dir(id, last))?))
    }

    pub(crate) fn rm(&mut self, path: &str) -> Done {
        let entry = self.get(path)?;
        self.act(|edit, _| Ok(edit.unlink(&entry)?))
    }

    pub(crate) fn rmr(&mut self, path: &str) -> Done {
        let entry = self.get(path)?;
        self.act(|edit, _| Ok(edit.remove_tree(&entry)?))
    }

    pub(crate) fn mv(&mut self, from: &str, to: &str) -> Done {
        let entry = self.get(from)?;
        let (dir, last) = split(to);
        let (dirs, last) = (self.dirs(dir)?, name(last)?);
        self.act(|edit, _| Ok(edit.rename(&entry, &dirs, &last)?))
    }

    pub(crate) fn exchange(&mut self, a: &str, b: &str) -> Done {
        let (a, b) = (self.get(a)?, self.get(b)?);
        self.act(|edit, _| Ok(edit.exchange(&a, &b)?))
    }

    pub(crate) fn hard_link(&mut self, from: &str, to: &str) -> Done {
        let entry = self.get(from)?;
        let (dir, last) = split(to);
        let (dirs, last) = (self.dirs(dir)?, name(last)?);
        self.act(|edit, id| {
            let NodeId::Born { op, n } = id else { return Err(Refused("no id".into())) };
            let link = cairnfs_merge::LinkId::Later { op, n };
            Ok(edit.link(&entry, &dirs, last, link)?)
        })
    }

    pub(crate) fn set_attr(&mut self, path: &str, key: &str, value: &str) -> Done {
        let entry = self.get(path)?;
        let key = AttrKey::new(key.as_bytes()).map_err(|err| Refused(err.to_string()))?;
        let value = AttrValue::new(value.as_bytes()).map_err(|err| Refused(err.to_string()))?;
        let ids = if entry.kind.is_dir() { entry.ids() } else { &entry.ids()[..1] };
        self.act(|edit, _| {
            for id in ids {
                edit.set_attr(id, key.clone(), Some(value.clone()))?;
            }
            Ok(())
        })
    }

    pub(crate) fn attr(&self, path: &str, key: &str) -> Option<String> {
        let attrs = self.view().attrs(&self.get(path).ok()?).unwrap();
        let value = attrs.get(&AttrKey::new(key.as_bytes()).unwrap())?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    pub(crate) fn resolve(&mut self, path: &str, text: &str) -> Done {
        let entry = self.get(path)?;
        let content = self.library.content(text);
        self.act(|edit, _| Ok(edit.resolve(&entry, content)?))
    }

    /// The visible paths of the copies of `path`.
    pub(crate) fn copies(&self, path: &str) -> Done<Vec<String>> {
        let (dir, last) = split(path);
        let copies = self.view().copies(&self.dirs(dir)?, &name(last)?).unwrap();
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        Ok(copies.iter().map(|entry| format!("{prefix}{}", entry.name)).collect())
    }
}

pub(crate) fn show(rendered: &Rendered<Text>) -> BTreeMap<String, Option<String>> {
    let entries = rendered.by_path().into_iter().map(|(path, entry)| {
        let path = String::from_utf8(path).unwrap();
        match &entry.content {
            _ if entry.kind.is_dir() => (format!("{path}/"), None),
            Some(content) if entry.kind == Kind::Symlink => {
                (path, Some(format!("->{}", content.body)))
            }
            content => (path, content.as_ref().map(|content| content.body.clone())),
        }
    });
    entries.collect()
}

pub(crate) fn name(text: &str) -> Done<Name> {
    Name::new(text.as_bytes()).map_err(|err| Refused(err.to_string()))
}

/// Directory and last name of a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
