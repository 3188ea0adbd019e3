//! What a door has granted: a resource, with the right that its holder was found to have.
//! Callers: `door`, which alone makes it of a name; operations, which demand it.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use model::TopicName;

/// A resource that its holder has the right `R` on, at the moment when it was asked for: one that outlives its request is
/// renewed by the next. Cheap: what is granted is itself a handle.
#[derive(Debug)]
pub struct Granted<T, R> {
    resource: T,
    right: PhantomData<fn() -> R>,
}

/// This broker, and all that is not one topic's or group's.
#[derive(Debug, Clone, Copy)]
pub struct Cluster;

/// Who has made something, by name: it is on this principal's account.
pub(in crate::broker) type Owner = Arc<str>;

/// A name for a new topic, and on whose account the topic will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewName {
    pub(in crate::broker) name: TopicName,
    pub(in crate::broker) owner: Option<Owner>,
}

impl NewName {
    /// For a topic of the broker's own.
    pub(in crate::broker) fn of_nobody(name: TopicName) -> NewName {
        NewName { name, owner: None }
    }
}

impl Deref for NewName {
    type Target = TopicName;

    fn deref(&self) -> &TopicName {
        &self.name
    }
}

impl<T, R> Granted<T, R> {
    pub(super) fn new(resource: T) -> Granted<T, R> {
        let right = PhantomData;
        Granted { resource, right }
    }

    /// The same right on what came of the resource.
    pub(in crate::broker) fn on<U>(resource: U) -> Granted<U, R> {
        Granted::new(resource)
    }

    pub(in crate::broker) fn into_inner(self) -> T {
        self.resource
    }
}

impl<T: Clone, R> Clone for Granted<T, R> {
    fn clone(&self) -> Granted<T, R> {
        Granted::new(self.resource.clone())
    }
}

impl<T, R> Deref for Granted<T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.resource
    }
}
