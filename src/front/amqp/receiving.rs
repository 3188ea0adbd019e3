//! What a receiver asks for: of which node, from where on, and whether that is offered. Pure.
//! Callers: `connection`, when a link is attached.

use amqp::MapBuf;
use amqp::performative::Attach;
use amqp::terminus::{Source, TerminusDurability};
use model::Timestamp;

use super::address::{Hints, Kind, NoNode, SourceNode, source};
use super::errors::NoLink;
use super::filter;
use super::selector::Selector;
use super::subscriptions::Named;
use crate::broker::replay::Place;

/// See the module.
#[derive(Debug)]
pub(super) struct Asked {
    /// Of which node.
    pub(super) node: SourceNode,
    /// The subscription that it stands for, if that is more than its link.
    pub(super) kept: Option<Named>,
    /// Whether it only looks at a queue.
    pub(super) browses: bool,
    /// Which messages it wants; None for all.
    pub(super) selector: Option<Selector>,
    /// Where it begins, if a filter says.
    pub(super) from: Option<Place>,
    /// The filters that are in force.
    pub(super) in_force: MapBuf,
    /// Whether RabbitMQ's annotations are wanted.
    pub(super) is_rabbit: bool,
}

/// Reads the source of a link of this name and of a client with this container id, at a time.
pub(super) fn asked(
    wanted: &Source<'_>,
    name: &str,
    container: &str,
    now: Timestamp,
) -> Result<Asked, NoLink> {
    let text = wanted.address.and_then(|it| it.text()).ok_or(NoNode)?;
    let kind = wanted.capabilities.iter().find_map(|name| match name {
        "queue" | "temporary-queue" => Some(Kind::Queue),
        "topic" | "temporary-topic" => Some(Kind::Topic),
        _ => None,
    });
    let copies = wanted.distribution_mode.is_some_and(|it| it.0 == "copy");
    let filters = filter::read(wanted.filter, now);
    let has_place = { filters.as_ref() }.is_ok_and(|filters| filters.from.is_some());
    let is_cursor = copies || has_place;
    let node = source(text, Hints { kind, is_cursor })?;
    let filters = filters?;
    match &node {
        SourceNode::Queue(_) if has_place => return Err(NoLink::PlaceOfShared),
        SourceNode::Queue(_) | SourceNode::Subscription(_) | SourceNode::Cursor { .. } => {}
    }
    let selector = filters.selector;
    let kept = match node {
        SourceNode::Subscription(_) => kept(wanted, name, container, selector.as_ref()),
        SourceNode::Queue(_) | SourceNode::Cursor { .. } => None,
    };
    if kept.is_some() && has_place {
        return Err(NoLink::PlaceOfShared);
    }
    Ok(Asked {
        browses: copies && matches!(node, SourceNode::Queue(_)),
        node,
        kept,
        selector,
        from: filters.from,
        in_force: filters.in_force,
        is_rabbit: filters.is_rabbit,
    })
}

/// A subscription that outlives its link, or is not its link's alone.
fn kept(
    wanted: &Source<'_>,
    name: &str,
    container: &str,
    selector: Option<&Selector>,
) -> Option<Named> {
    let has = |name: &str| wanted.capabilities.iter().any(|it| it == name);
    let is_kept = wanted.durable != TerminusDurability::None || wanted.expiry_policy.0 == "never";
    let (is_shared, is_global) = (has("shared"), has("global"));
    let container = Some(container).filter(|_| !is_global);
    let selector = selector.map(Selector::text);
    (is_kept || is_shared).then(|| Named::of(name, container, (is_kept, !is_shared), selector))
}

/// The subscription that a link without a source names: its client wants to be rid of it.
pub(super) fn left(attach: &Attach<'_>, container: &str) -> Named {
    let has = |name: &str| attach.desired_capabilities.iter().any(|it| it == name);
    let container = Some(container).filter(|_| !has("global"));
    Named::of(attach.name, container, (true, true), None)
}
