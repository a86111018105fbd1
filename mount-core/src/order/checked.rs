//! The model checker's mutex in the place of the real one: each taking of it is a point where
//! another thread may go on. What the order of locks is, the real one asserts.

use std::marker::PhantomData;

pub(crate) type MutexGuard<'l, T, P> = Guard<loom::sync::MutexGuard<'l, T>, P>;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T, P> {
    lock: loom::sync::Mutex<T>,
    place: PhantomData<P>,
}

#[derive(Debug)]
pub(crate) struct Guard<G, P> {
    guard: G,
    place: PhantomData<P>,
}

impl<T, P> Mutex<T, P> {
    pub(crate) fn new(value: T) -> Self {
        Self { lock: loom::sync::Mutex::new(value), place: PhantomData }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T, P> {
        let guard = self.lock.lock().expect("a model that panics is over");
        Guard { guard, place: PhantomData }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut().expect("a model that panics is over")
    }
}

impl<G: std::ops::Deref, P> std::ops::Deref for Guard<G, P> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: std::ops::DerefMut, P> std::ops::DerefMut for Guard<G, P> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}
