//! Rights as types: an operation demands by its signature what was granted.
//! Callers: handlers, which name the type; `kinds` has the values.

use std::sync::Arc;

use super::{Cluster, Group, Right};
use crate::broker::catalog::Topic;
use model::TopicName;

/// A right that there is on resources of type `T`, as a type.
pub trait RightOn<T> {
    /// Which.
    const RIGHT: Right;
}

/// Declares the types: each with the resources on which there is such a right.
macro_rules! rights {
    ($($name:ident on $($resource:ty),+;)*) => {$(
        #[doc = concat!("See [`Right::", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name;
        $(
            impl RightOn<$resource> for $name {
                const RIGHT: Right = Right::$name;
            }
        )+
    )*};
}

rights! {
    Describe on Arc<Topic>, Group<'_>, Cluster;
    Read on Arc<Topic>, Group<'_>;
    Write on Arc<Topic>;
    Create on TopicName;
    Delete on Arc<Topic>, Group<'_>;
    DeleteRecords on Arc<Topic>;
    Clean on Arc<Topic>, Cluster;
    Hold on Arc<Topic>, Cluster;
    Alter on Arc<Topic>, Cluster;
    DescribeConfigs on Arc<Topic>, Group<'_>, Cluster;
    AlterConfigs on Arc<Topic>, Group<'_>, Cluster;
    IdempotentWrite on Cluster;
}
