//! Open files: reading, writing, and waiting for what was written.

use std::sync::{Arc, atomic::Ordering};

use super::{Mount, Target};
use crate::{
    Done, Error, Fallocate, Fh, FilePos, Ino, Kind, OpenFlags, Result, SavePolicy, Time, Whence,
    file::{Base, Content, File},
    handles::FileHandle,
    inodes::Bound,
    shared::Core,
    writer::Command,
};

/// Most bytes that one `copy_file_range` copies; the caller asks for the rest.
const COPY_BYTES_MAX: u64 = 4 << 20;

/// What was taken of a change of a content.
struct Taken<T> {
    what: T,
    /// Whether the handle asks for the barrier.
    sync: bool,
}

impl Mount {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`], [`Error::IsDir`], [`Error::Invalid`] for what has no content,
    /// [`Error::ReadOnly`] for writing, damage.
    pub fn open(&self, ino: Ino, flags: OpenFlags) -> Result<Fh> {
        if flags.write {
            self.shared().writable()?;
        }
        let file = self.with_core(|core| {
            let file = self.load_content(core, ino)?;
            // Under the same lock, so that the content is not dropped from the table meanwhile.
            file.handles.fetch_add(1, Ordering::Relaxed);
            Ok(file)
        })?;
        let fh = self.shared().handles.open_file(Arc::clone(&file), flags);
        if flags.truncate
            && let Err(err) = self.empty(ino, &file)
        {
            // Nobody learns the handle's number.
            self.release(ino, fh, Box::new(|_| ()));
            return Err(err);
        }
        Ok(fh)
    }

    fn empty(&self, ino: Ino, file: &Arc<File>) -> Result<()> {
        let cut = self.write_to(ino, file, |content| content.set_len(0, Time::now()))??;
        self.shared().room.account(cut);
        self.changed();
        Ok(())
    }

    /// Whether `ino` is the number of a file that was replaced by another one: what was read under
    /// it before must not be mixed with what is read now.
    #[must_use]
    pub fn is_replaced(&self, ino: Ino) -> bool {
        matches!(self.shared().inodes.lock().resolve(ino), Some(Bound::Replaced(_)))
    }

    /// The content behind `ino`, for as long as `core` is not let go.
    pub(super) fn load_content(&self, core: &mut Core, ino: Ino) -> Result<Arc<File>> {
        match self.target(core, ino)? {
            Target::Named(_, node) if node.kind.is_dir() => Err(Error::IsDir),
            Target::Named(_, node) if node.kind != Kind::File => {
                Err(Error::Invalid("not a regular file"))
            }
            Target::Named(shown, node) => Self::load(core, shown, &node),
            Target::Nameless(orphan) => Ok(orphan.file),
            Target::RemovedDir(..) => Err(Error::IsDir),
        }
    }

    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    ///
    /// [`Error::BadHandle`]; [`Error::Damaged`] if a chunk is missing or was changed.
    pub fn read(&self, fh: Fh, offset: u64, len: u32) -> Result<Vec<u8>> {
        let handle = self.shared().handles.file(fh)?;
        let vault = &self.shared().vault;
        let extract = || handle.file.lock().extract(offset, u64::from(len));
        match extract().read(vault) {
            // What was taken may have been replaced and given up for space meanwhile.
            Err(err) if err.is_damage() => extract().read(vault),
            result => result,
        }
    }

    /// All of a content that nobody has open.
    pub(super) fn read_sealed(&self, base: &Base) -> Result<Vec<u8>> {
        let extract = File::new(base.clone()).lock().extract(0, base.sealed_len);
        extract.read(&self.shared().vault)
    }

    /// Takes the bytes at once; `done` is called when there is room for more, and for a handle
    /// opened with `sync` after the barrier. `cached`: the kernel writes back its page cache (mmap).
    ///
    /// `done` gets [`Error::BadHandle`], [`Error::ReadOnly`], [`Error::NoSpace`],
    /// [`Error::TooLarge`], or what the save failed with.
    pub fn write(&self, ino: Ino, fh: Fh, offset: u64, data: &[u8], cached: bool, done: Done<u32>) {
        self.taken(self.take(ino, fh, Some(offset), data, cached), done);
    }

    /// As [`Mount::write`], to the end of the file, wherever that is by now.
    pub fn append(&self, ino: Ino, fh: Fh, data: &[u8], done: Done<u32>) {
        self.taken(self.take(ino, fh, None, data, false), done);
    }

    /// Answers who has changed a content with what was taken of it: when there is room for more, or if
    /// it asks for that after the barrier.
    fn taken<T: Send + 'static>(&self, taken: Result<Taken<T>>, done: Done<T>) {
        match taken {
            Ok(Taken { what, sync }) => {
                self.changed();
                let room = &self.shared().room;
                let asks = if sync {
                    self.save_then(Box::new(move |saved| done(saved.map(|()| what))));
                    room.wants_relief()
                } else {
                    room.answer(move |relieved, _| done(relieved.map(|()| what)))
                };
                if asks {
                    self.send(Command::Relieve);
                }
            }
            Err(err) => done(Err(err)),
        }
    }

    /// Takes `data` at `offset`, or at the end if there is none.
    fn take(
        &self,
        ino: Ino,
        fh: Fh,
        offset: Option<u64>,
        data: &[u8],
        cached: bool,
    ) -> Result<Taken<u32>> {
        let shared = self.shared();
        shared.writable()?;
        let len = u32::try_from(data.len()).map_err(|_beyond| Error::TooLarge)?;
        self.reserve(u64::from(len))?;
        let write = |content: &mut Content| {
            let offset = offset.unwrap_or_else(|| content.len());
            content.write(offset, data, Time::now())
        };
        let (grown, sync) = match shared.handles.file(fh) {
            Ok(handle) => {
                let grown = self.write_to(ino, &handle.file, write)??;
                (grown, handle.flags.sync && !cached)
            }
            // The page cache may be written back through any handle, or none that is left.
            Err(_) if cached => (self.with_content(ino, write)??, false),
            Err(err) => return Err(err),
        };
        shared.room.account(grown);
        Ok(Taken { what: len, sync })
    }

    /// `close` of one descriptor: waits for the barrier if the policy is to save on flush.
    ///
    /// `done` gets what the save failed with.
    pub fn flush(&self, ino: Ino, fh: Fh, done: Done) {
        match self.shared().handles.file(fh) {
            Ok(handle) if self.must_wait(ino, &handle) => self.save_then(done),
            Ok(_) => done(Ok(())),
            Err(err) => done(Err(err)),
        }
    }

    /// Whether closing `handle` has something to wait for.
    fn must_wait(&self, ino: Ino, handle: &FileHandle) -> bool {
        if self.shared().options.policy != SavePolicy::Flush || !handle.flags.write {
            return false;
        }
        // All under one lock: a save that fails gives back what it took as it ends.
        let core = self.shared().core.read();
        let is_node_unsaved = || match self.target(&core, ino) {
            Ok(Target::Named(shown, _)) => core.unsaved.contains(&shown.node),
            Ok(Target::Nameless(_) | Target::RemovedDir(..)) | Err(_) => false,
        };
        // A save under way may hold it: only the writer can tell when that is durable.
        core.saving || handle.file.lock().is_unsaved() || is_node_unsaved()
    }

    /// Waits for the barrier under every policy.
    ///
    /// `done` gets what the save failed with.
    pub fn fsync(&self, fh: Fh, done: Done) {
        match self.shared().handles.file(fh) {
            Ok(_) => self.save_then(done),
            Err(err) => done(Err(err)),
        }
    }

    /// The last descriptor of the handle is closed; under policy `release` its file is saved if
    /// this was the last handle. `done` is called at once, as nobody waits for it.
    pub fn release(&self, ino: Ino, fh: Fh, done: Done) {
        let Some(handle) = self.shared().handles.close_file(fh) else {
            return done(Err(Error::BadHandle));
        };
        let file = &handle.file;
        let (last, nameless) = {
            let mut core = self.shared().core.write();
            let last = file.handles.fetch_sub(1, Ordering::Relaxed) == 1;
            let must_stay = core.unclaimed.iter().any(|(_, it)| Arc::ptr_eq(it, file));
            let nameless =
                last && !must_stay && self.shared().inodes.lock().orphan_closed(ino, file);
            if last
                && !file.lock().is_changed()
                && let Ok(Target::Named(shown, _)) = self.target(&core, ino)
                && core.files.get(&shown).is_some_and(|held| Arc::ptr_eq(held, file))
            {
                core.files.remove(&shown);
            }
            (last, nameless)
        };
        if nameless {
            self.shared().room.account_dropped(&mut file.lock());
        }
        let by_release = self.shared().options.policy == SavePolicy::Release;
        if last && by_release && file.lock().is_unsaved() {
            // Nobody waits; a failure turns up in the health and at the next call that does.
            self.save_then(Box::new(|_| ()));
        }
        done(Ok(()));
    }

    /// Changes the allocation of a range; `done` is called as for [`Mount::write`].
    ///
    /// `done` gets [`Error::BadHandle`], [`Error::Invalid`] for an empty range, [`Error::NoSpace`],
    /// [`Error::TooLarge`], [`Error::ReadOnly`], or what the save failed with.
    pub fn fallocate(
        &self,
        ino: Ino,
        fh: Fh,
        mode: Fallocate,
        (offset, len): (u64, u64),
        done: Done,
    ) {
        self.taken(self.allocate(ino, fh, mode, (offset, len)), done);
    }

    fn allocate(
        &self,
        ino: Ino,
        fh: Fh,
        mode: Fallocate,
        (offset, len): (u64, u64),
    ) -> Result<Taken<()>> {
        self.shared().writable()?;
        if len == 0 {
            return Err(Error::Invalid("an empty range"));
        }
        let handle = self.shared().handles.file(fh)?;
        if let Fallocate::Allocate { .. } = mode {
            // Holes in what is there take space when they are written to.
            let there = handle.file.lock().len().max(offset);
            let more = offset.saturating_add(len).saturating_sub(there);
            // Else all older versions would go for nothing.
            if !self.shared().room.could_take(more)? {
                return Err(Error::NoSpace);
            }
            self.reserve(more)?;
        }
        let allocate = |content: &mut Content| content.allocate(mode, offset, len, Time::now());
        let grown = self.write_to(ino, &handle.file, allocate)??;
        self.shared().room.account(grown);
        Ok(Taken { what: (), sync: handle.flags.sync })
    }

    /// The next data or hole at or after `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOffset`], [`Error::BadHandle`], damage.
    pub fn seek(&self, fh: Fh, offset: u64, whence: Whence) -> Result<u64> {
        let handle = self.shared().handles.file(fh)?;
        let extract = handle.file.lock().extract(offset, u64::MAX);
        extract.seek(&self.shared().vault, whence)
    }

    /// Copies up to `len` bytes from handle to handle; `done` is told how many, as for [`Mount::write`].
    ///
    /// What is copied shares its chunks with the original once it is sealed.
    ///
    /// `done` gets the errors of [`Mount::read`] and [`Mount::write`]; [`Error::Invalid`] if the ranges
    /// of one file overlap.
    pub fn copy_range(&self, from: FilePos, to: FilePos, len: u64, done: Done<u32>) {
        self.taken(self.copy(from, to, len), done);
    }

    /// Says how many bytes were copied.
    fn copy(&self, from: FilePos, to: FilePos, len: u64) -> Result<Taken<u32>> {
        let source = self.shared().handles.file(from.fh)?;
        let target = self.shared().handles.file(to.fh)?;
        let apart = from.offset.abs_diff(to.offset) >= len;
        if Arc::ptr_eq(&source.file, &target.file) && !apart {
            return Err(Error::Invalid("the ranges overlap"));
        }
        let extract = source.file.lock().extract(from.offset, len.min(COPY_BYTES_MAX));
        let data = extract.read(&self.shared().vault)?;
        self.take(to.ino, to.fh, Some(to.offset), &data, false)
    }
}
