//! What members of share groups say of records that they hold: read from requests, and done.
//! Callers: ShareFetch, which brings them along, and ShareAcknowledge.

use std::ops::Range;
use std::sync::Arc;

use futures_util::future::join_all;
use model::{Offset, PartitionId, TopicId};
use uuid::Uuid;

use super::{Call, held_partition};
use crate::broker::access::{Granted, Group, right};
use crate::broker::share::{ShareError, TakeError, Verdict};
use crate::broker::{Refusal, Topic};
use crate::front::kafka::errors::{self, Misuse};
use crate::front::kafka::share_sessions::SharedPlace;

/// A member's id is so long at most, in characters: it is a UUID.
const MEMBER_ID_CHARS_MAX: usize = 36;
/// The acknowledgement that holds a record on (KIP-1222), and the first version that has it.
const RENEW: i8 = 4;
pub(super) const RENEWS: i16 = 2;

/// The id of who asks.
pub(super) fn member_id(given: Option<&str>) -> Result<&str, Misuse> {
    let is_one = |id: &&str| !id.is_empty() && id.chars().count() <= MEMBER_ID_CHARS_MAX;
    given
        .filter(is_one)
        .ok_or(Misuse::Share("Invalid member id in the request."))
}

/// Records of one partition, and a type for each or for all.
pub(super) struct Batch {
    pub first: i64,
    pub last: i64,
    pub types: Vec<i8>,
}

/// What a request says of one partition's records.
pub(super) struct Said {
    pub place: SharedPlace,
    pub batches: Vec<Batch>,
}

/// The error of a partition.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub code: i16,
    pub text: String,
}

impl From<TakeError> for Trouble {
    fn from(error: TakeError) -> Trouble {
        let text = match &error {
            TakeError::Refused(refusal) => errors::text(refusal),
            TakeError::Share(error) => error.to_string(),
        };
        Trouble {
            code: errors::take(&error),
            text,
        }
    }
}

impl From<Misuse> for Trouble {
    fn from(misuse: Misuse) -> Trouble {
        Trouble {
            code: misuse.code(),
            text: misuse.to_string(),
        }
    }
}

/// A topic that may be read.
pub(super) type ReadTopic = Granted<Arc<Topic>, right::Read>;

/// Topics of one request, each of which is looked up once where its partitions stand together.
#[derive(Default)]
pub(super) struct Topics(Option<(Uuid, Result<ReadTopic, Refusal>)>);

impl Topics {
    /// A partition with its topic.
    pub fn find(
        &mut self,
        (topic, partition): SharedPlace,
        call: &Call,
    ) -> Result<(ReadTopic, PartitionId), Refusal> {
        let found = match &self.0 {
            Some((known, found)) if *known == topic => found.clone(),
            _ => call
                .door
                .topic_by_id(TopicId::from_uuid(topic), right::Read),
        };
        self.0 = Some((topic, found.clone()));
        let topic = found?;
        let partition = held_partition(&topic, partition)?;
        Ok((topic, partition))
    }
}

/// Does what is said, of each partition all or nothing. Durable when it returns.
pub(super) async fn settle(
    said: Vec<Said>,
    (group, member): (&Granted<Group<'_>, right::Read>, &str),
    is_renewal: bool,
    call: &Call,
) -> Vec<(SharedPlace, Result<(), Trouble>)> {
    let renews = group.share_settings().renews;
    let mut topics = Topics::default();
    let mut all = Vec::with_capacity(said.len());
    for Said { place, batches } in said {
        let found = topics.find(place, call);
        let verdicts = verdicts_of(&batches, call.version, is_renewal);
        all.push(async move {
            let done = async {
                let (topic, partition) = found.map_err(TakeError::from)?;
                let verdicts = verdicts?;
                let is_renewed = |(_, verdict): &Verdicted| matches!(verdict, Verdict::Renew(_));
                if !renews && verdicts.iter().any(is_renewed) {
                    return Err(TakeError::from(ShareError::NotRenewed).into());
                }
                let settled = group.settle(member, &topic, partition, &verdicts).await;
                Ok(settled.map(drop)?)
            };
            (place, done.await)
        });
    }
    join_all(all).await
}

type Verdicted = (Range<Offset>, Verdict);

/// What is said of one partition, if it can be understood. Source: `validateAcknowledgementBatches` of Kafka 4.3.
fn verdicts_of(
    batches: &[Batch],
    version: i16,
    is_renewal: bool,
) -> Result<Vec<Verdicted>, Misuse> {
    const UNCLEAR: Misuse = Misuse::Share("acknowledgements that say nothing");
    let type_max = if version >= RENEWS { RENEW } else { RENEW - 1 };
    let mut verdicts: Vec<Verdicted> = Vec::new();
    let mut behind = 0;
    for Batch { first, last, types } in batches {
        let is_known = |kind: &i8| (0..=type_max).contains(kind) && (*kind != RENEW || is_renewal);
        let records = last.checked_sub(*first).filter(|records| *records >= 0);
        let fits = types.len() == 1 || records == i64::try_from(types.len()).ok().map(|it| it - 1);
        if records.is_none() || *first < behind || !fits || !types.iter().all(is_known) {
            return Err(UNCLEAR);
        }
        behind = last.checked_add(1).ok_or(UNCLEAR)?;
        let offset = |offset| Offset::from_wire(offset).ok_or(UNCLEAR);
        let mut put = |range: Range<Offset>, kind: i8| match (verdicts.last_mut(), verdict(kind)) {
            (Some((last, known)), verdict) if last.end == range.start && *known == verdict => {
                last.end = range.end;
            }
            (_, verdict) => verdicts.push((range, verdict)),
        };
        match types.as_slice() {
            [kind] => put(offset(*first)?..offset(behind)?, *kind),
            types => {
                offset(behind)?;
                for (at, kind) in (*first..).zip(types) {
                    put(offset(at)?..offset(at + 1)?, *kind);
                }
            }
        }
    }
    Ok(verdicts)
}

fn verdict(kind: i8) -> Verdict {
    match kind {
        0 => Verdict::Absent,
        1 => Verdict::Accept,
        2 => Verdict::Release,
        3 => Verdict::Reject,
        // Until when is the group's to say.
        _ => Verdict::Renew(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(
        batches: &[(i64, i64, &[i8])],
        version: i16,
        is_renewal: bool,
    ) -> Option<Vec<(u64, u64, Verdict)>> {
        let batch = |(first, last, types): &(i64, i64, &[i8])| Batch {
            first: *first,
            last: *last,
            types: types.to_vec(),
        };
        let batches: Vec<Batch> = batches.iter().map(batch).collect();
        let shown = |(range, verdict): Verdicted| (range.start.get(), range.end.get(), verdict);
        let verdicts = verdicts_of(&batches, version, is_renewal).ok()?;
        Some(verdicts.into_iter().map(shown).collect())
    }

    #[test]
    fn a_type_stands_for_all_records_or_there_is_one_for_each() {
        use Verdict::{Absent, Accept, Reject, Release, Renew};
        assert_eq!(said(&[(0, 9, &[1])], 1, false), Some(vec![(0, 10, Accept)]));
        assert_eq!(
            said(
                &[(0, 3, &[1, 1, 2, 3]), (4, 4, &[3]), (6, 6, &[0])],
                1,
                false
            ),
            Some(vec![
                (0, 2, Accept),
                (2, 3, Release),
                (3, 5, Reject),
                (6, 7, Absent)
            ])
        );
        assert_eq!(
            said(&[(5, 5, &[4])], 2, true),
            Some(vec![(5, 6, Renew(None))])
        );
        let far = said(&[(0, i64::MAX - 1, &[1])], 1, false);
        assert!(far.is_some(), "nothing is made of each");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = |batches: &[(i64, i64, &[i8])], version: i16, is_renewal: bool| {
            assert_eq!(said(batches, version, is_renewal), None, "{batches:?}");
        };
        refused(&[(2, 1, &[1])], 2, false);
        refused(&[(0, 1, &[])], 2, false);
        refused(&[(0, 1, &[1, 1, 1])], 2, false);
        refused(&[(0, 1, &[5])], 2, true);
        refused(&[(0, 1, &[-1])], 2, false);
        refused(&[(0, 1, &[4])], 2, false);
        refused(&[(0, 1, &[4])], 1, true);
        refused(&[(0, 5, &[1]), (3, 7, &[1])], 2, false);
        refused(&[(-1, 5, &[1])], 2, false);
        refused(&[(i64::MIN, i64::MAX, &[1])], 2, false);
        refused(&[(0, i64::MAX, &[1])], 2, false);
    }
}
