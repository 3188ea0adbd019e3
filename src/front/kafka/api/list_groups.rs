//! ListGroups: every group, or those in some states or of some types.

use wire::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

use super::Call;
use crate::broker::groups::GroupListing;
use crate::broker::share::ShareListing;

/// The types of groups: those of the classic protocol, and those that share records.
const CLASSIC: &str = "classic";
const SHARE: &str = "share";

/// The state of a share group.
pub(super) fn share_state(has_members: bool) -> &'static str {
    if has_members { "Stable" } else { "Empty" }
}

pub(super) async fn answer(request: ListGroupsRequest, call: Call) -> ListGroupsResponse {
    let has_state = |group: &GroupListing| matches(&request.states_filter, group.state.name());
    let is_wanted =
        |group: &GroupListing| matches(&request.types_filter, CLASSIC) && has_state(group);
    let groups: Vec<GroupListing> = call.door.groups();
    let groups: Vec<GroupListing> = groups.into_iter().filter(is_wanted).collect();
    let is_wanted = |group: &ShareListing| {
        let state = share_state(group.has_members);
        matches(&request.types_filter, SHARE) && matches(&request.states_filter, state)
    };
    let mut shares: Vec<ShareListing> = call.door.share_groups();
    shares.retain(is_wanted);
    let bytes = |group: &GroupListing| 256 + 2 * (group.id.len() + group.protocol_type.len());
    let share_bytes = shares.iter().map(|group| 256 + 2 * group.id.len());
    let bytes = groups.iter().map(bytes).chain(share_bytes).sum();
    if let Err(misuse) = call.answer.hold(bytes).await {
        return ListGroupsResponse {
            error_code: misuse.code(),
            ..ListGroupsResponse::default()
        };
    }
    let groups = groups.into_iter().map(|group| ListedGroup {
        group_id: group.id,
        protocol_type: group.protocol_type,
        group_state: group.state.name().into(),
        group_type: CLASSIC.into(),
    });
    let shares = shares.into_iter().map(|group| ListedGroup {
        group_id: group.id,
        protocol_type: SHARE.into(),
        group_state: share_state(group.has_members).into(),
        group_type: SHARE.into(),
    });
    ListGroupsResponse {
        groups: groups.chain(shares).collect(),
        ..ListGroupsResponse::default()
    }
}

/// No filter lets everything through; a name that does not exist lets nothing.
fn matches(filter: &[String], name: &str) -> bool {
    filter.is_empty()
        || filter
            .iter()
            .any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_ignore_case_and_unknown_names_match_nothing() {
        let filter = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(matches(&[], "Stable"));
        assert!(matches(&filter(&["empty", " sTABLE"]), "Stable"));
        assert!(!matches(&filter(&["Stabel"]), "Stable"));
        assert!(!matches(&filter(&["consumer"]), CLASSIC));
    }
}
