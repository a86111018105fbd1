//! Locks that are taken in a written order, which a debug build asserts.
//!
//! Two threads that take two locks the other way round wait for each other for ever, once in a
//! while. So each lock has a [`Place`], and a thread takes it only if all that it holds have lower
//! ranks. A debug build panics where this is not so, before it waits and whether or not anybody else
//! is there: one thread alone shows the mistake. In a release build nothing of this is left.
//!
//! The ranks of all crates are one line, in ARCHITECTURE.md: where a call goes from one crate down
//! to another with a lock held, the ranks of the other are the higher ones.

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    time::{Duration, Instant},
};

use parking_lot::WaitTimeoutResult;

/// The place of a lock in the order.
pub trait Place {
    /// Below [`RANKS`]. Of two locks with one rank a thread holds one at a time.
    const RANK: usize;
    /// What the lock is called where somebody has to be told.
    const NAME: &'static str;
}

/// How many ranks there are.
pub const RANKS: usize = 32;
/// The rank of a lock under which no other one is taken.
pub const LAST: usize = RANKS - 1;

/// Names the places of locks: `Name = rank, "what it is called";`.
#[macro_export]
macro_rules! places {
    ($($(#[$doc:meta])* $name:ident = $rank:expr, $called:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name;

        impl $crate::order::Place for $name {
            const RANK: usize = $rank;
            const NAME: &'static str = $called;
        }
    )*};
}

places! {
    Removing = 20, "the packs on their way out";
    Committing = 21, "the index's commit";
    Index = 22, "the index";
    Tail = 23, "the tail of the log";
    Queue = LAST, "the index's queue";
    PackFiles = LAST, "the open packs";
    PackSizes = LAST, "the lengths of packs";
    Epochs = LAST, "the epochs";
    Rotten = LAST, "the damaged blobs";
    Reserve = LAST, "the reserve";
}

/// A [`parking_lot::Mutex`] with a place.
#[derive(Debug, Default)]
pub struct Mutex<T, P> {
    lock: parking_lot::Mutex<T>,
    place: PhantomData<P>,
}

/// A [`parking_lot::RwLock`] with a place. Who holds it for reading must not take it once more: a
/// writer that waits in between would wait for ever.
#[derive(Debug, Default)]
pub struct RwLock<T, P> {
    lock: parking_lot::RwLock<T>,
    place: PhantomData<P>,
}

/// A [`parking_lot::Condvar`] for those mutexes. Who waits for it lets go of one lock, and so must
/// hold no other.
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

/// What a lock guards, until this is dropped.
#[derive(Debug)]
#[must_use = "the lock is let go when this is dropped"]
pub struct Guard<G, P: Place> {
    guard: G,
    // Let go after the lock itself.
    _held: Held<P>,
}

/// A locked [`Mutex`].
pub type MutexGuard<'l, T, P> = Guard<parking_lot::MutexGuard<'l, T>, P>;
/// An [`RwLock`] locked for reading.
pub type ReadGuard<'l, T, P> = Guard<parking_lot::RwLockReadGuard<'l, T>, P>;
/// An [`RwLock`] locked for writing.
pub type WriteGuard<'l, T, P> = Guard<parking_lot::RwLockWriteGuard<'l, T>, P>;

impl<T, P: Place> Mutex<T, P> {
    /// One that is not locked.
    pub const fn new(value: T) -> Self {
        Self { lock: parking_lot::Mutex::new(value), place: PhantomData }
    }

    /// Waits for the lock.
    ///
    /// # Panics
    ///
    /// In a debug build, if this thread holds a lock that must be taken after this one.
    pub fn lock(&self) -> MutexGuard<'_, T, P> {
        let held = Held::take();
        Guard { guard: self.lock.lock(), _held: held }
    }

    /// The lock, if nobody holds it.
    ///
    /// # Panics
    ///
    /// As [`Self::lock`].
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T, P>> {
        let held = Held::take();
        Some(Guard { guard: self.lock.try_lock()?, _held: held })
    }

    /// What it guards; nobody else can hold it.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }
}

impl<T, P: Place> RwLock<T, P> {
    /// One that is not locked.
    pub const fn new(value: T) -> Self {
        Self { lock: parking_lot::RwLock::new(value), place: PhantomData }
    }

    /// Waits until nobody writes.
    ///
    /// # Panics
    ///
    /// In a debug build, if this thread holds a lock that must be taken after this one.
    pub fn read(&self) -> ReadGuard<'_, T, P> {
        let held = Held::take();
        Guard { guard: self.lock.read(), _held: held }
    }

    /// The lock, if nobody writes.
    ///
    /// # Panics
    ///
    /// As [`Self::read`].
    pub fn try_read(&self) -> Option<ReadGuard<'_, T, P>> {
        let held = Held::take();
        Some(Guard { guard: self.lock.try_read()?, _held: held })
    }

    /// Waits until nobody reads or writes.
    ///
    /// # Panics
    ///
    /// In a debug build, if this thread holds a lock that must be taken after this one.
    pub fn write(&self) -> WriteGuard<'_, T, P> {
        let held = Held::take();
        Guard { guard: self.lock.write(), _held: held }
    }
}

impl Condvar {
    /// One that nobody waits for.
    pub const fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    /// Wakes one who waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Lets the lock go, waits to be woken, and takes the lock again.
    ///
    /// # Panics
    ///
    /// In a debug build, if this thread holds another lock, as in all that wait here.
    pub fn wait<T, P: Place>(&self, guard: &mut MutexGuard<'_, T, P>) {
        guard._held.is_alone();
        self.0.wait(&mut guard.guard);
    }

    /// As [`Self::wait`], until `deadline`.
    pub fn wait_until<T, P: Place>(
        &self,
        guard: &mut MutexGuard<'_, T, P>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        guard._held.is_alone();
        self.0.wait_until(&mut guard.guard, deadline)
    }

    /// As [`Self::wait`], while `condition` holds and for no longer than `at_most`.
    pub fn wait_while_for<T, P: Place>(
        &self,
        guard: &mut MutexGuard<'_, T, P>,
        condition: impl FnMut(&mut T) -> bool,
        at_most: Duration,
    ) -> WaitTimeoutResult {
        guard._held.is_alone();
        self.0.wait_while_for(&mut guard.guard, condition, at_most)
    }
}

impl<G: Deref, P: Place> Deref for Guard<G, P> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut, P: Place> DerefMut for Guard<G, P> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// That this thread holds, or is about to, the lock at a place.
#[derive(Debug)]
struct Held<P: Place>(PhantomData<P>);

#[cfg(not(debug_assertions))]
impl<P: Place> Held<P> {
    const fn take() -> Self {
        Self(PhantomData)
    }

    const fn is_alone(&self) {}
}

#[cfg(debug_assertions)]
mod asserted {
    use std::{cell::Cell, marker::PhantomData};

    use super::{Held, Place, RANKS};

    thread_local! {
        /// The names of the locks that this thread holds, by rank.
        static HELD: Cell<[Option<&str>; RANKS]> = const { Cell::new([None; RANKS]) };
    }

    impl<P: Place> Held<P> {
        pub(super) fn take() -> Self {
            let mut held = HELD.get();
            let above = held[P::RANK..].iter().flatten().next();
            assert!(
                above.is_none(),
                "lock order: {} is taken while {} is held",
                P::NAME,
                above.unwrap_or(&"")
            );
            held[P::RANK] = Some(P::NAME);
            HELD.set(held);
            Self(PhantomData)
        }

        /// Panics if another lock is held than this one.
        pub(super) fn is_alone(&self) {
            let held = HELD.get();
            let other = held.iter().flatten().find(|name| **name != P::NAME);
            assert!(
                other.is_none(),
                "lock order: {} is let go and waited for while {} is held",
                P::NAME,
                other.unwrap_or(&"")
            );
        }
    }

    impl<P: Place> Drop for Held<P> {
        fn drop(&mut self) {
            let mut held = HELD.get();
            held[P::RANK] = None;
            HELD.set(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::needs_drop;

    use super::*;

    places! {
        First = 3, "the first";
        Second = 4, "the second";
        Beside = 4, "the one beside the second";
        End = LAST, "the last";
    }

    struct Locks {
        first: RwLock<u8, First>,
        second: Mutex<u8, Second>,
        beside: Mutex<u8, Beside>,
        end: Mutex<u8, End>,
    }

    const fn locks() -> Locks {
        Locks {
            first: RwLock::new(1),
            second: Mutex::new(2),
            beside: Mutex::new(3),
            end: Mutex::new(4),
        }
    }

    #[test]
    fn in_order_and_after_all_was_let_go_in_any_order_all_can_be_taken() {
        let locks = locks();
        for _ in 0..2 {
            let (first, second) = (locks.first.read(), locks.second.lock());
            let mut end = locks.end.lock();
            *end += *first;
            drop(first);
            drop(end);
            drop(second);
            *locks.first.write() += 1;
        }
        assert_eq!((*locks.first.read(), *locks.end.lock()), (3, 7));
        assert_eq!(*locks.beside.lock() + *locks.end.lock(), 10);
    }

    #[test]
    fn threads_do_not_see_what_others_hold() {
        let locks = locks();
        let second = locks.second.lock();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| *locks.first.read() + *locks.end.lock());
            assert_eq!(other.join().unwrap(), 5);
        });
        drop(second);
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "lock order: the first is taken while the second is held")]
    fn the_wrong_order_panics_in_a_debug_build() {
        let locks = locks();
        let _second = locks.second.lock();
        let _first = locks.first.read();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "the one beside the second is taken while the second is held")]
    fn two_of_one_rank_panic_in_a_debug_build() {
        let locks = locks();
        let _second = locks.second.lock();
        let _beside = locks.beside.lock();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "the first is taken while the first is held")]
    fn reading_twice_panics_in_a_debug_build() {
        let locks = locks();
        let _once = locks.first.read();
        let _twice = locks.first.read();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "the last is let go and waited for while the first is held")]
    fn waiting_while_another_is_held_panics_in_a_debug_build() {
        let locks = locks();
        let _first = locks.first.read();
        let mut end = locks.end.lock();
        Condvar::new().wait_until(&mut end, Instant::now());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_panic_leaves_nothing_held() {
        let locks = locks();
        let wrong = std::panic::AssertUnwindSafe(|| {
            let _end = locks.end.lock();
            let _second = locks.second.lock();
        });
        assert!(std::panic::catch_unwind(wrong).is_err());
        let _first = locks.first.write();
        let _end = locks.end.lock();
    }

    #[test]
    fn a_release_build_pays_nothing() {
        let size = size_of::<parking_lot::Mutex<u64>>();
        assert_eq!(size_of::<Mutex<u64, First>>(), size);
        assert_eq!(
            size_of::<MutexGuard<'_, u64, First>>(),
            size_of::<parking_lot::MutexGuard<'_, u64>>()
        );
        assert_eq!(needs_drop::<Held<First>>(), cfg!(debug_assertions), "nothing is noted there");
    }
}
