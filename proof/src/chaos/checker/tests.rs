//! Histories that must pass, and for every rule one that must fail. A history is a script, a fact a line; the line's
//! number is its time.

use super::super::history::{Described, Ending, History, Telling, What, Who};
use super::{Verdict, check};
use std::collections::BTreeMap;

/// A life of two members, one of them static, with a crash and a restart, in which everything holds.
const GOOD: &str = "
    a starts
    s1 starts as s
    p0 has 0 1 2
    p1 has 0 1
    a owns 1: 0
    s1 owns 1: 1
    stable a:0 s1:1
    a sees 0: 0 1
    a commits 1: 0=2
    a acknowledged 1
    s1 sees 1: 0
    s1 commits 1: 1=1
    s1 killed
    s2 starts as s
    s2 owns 1: 1
    s2 sees 1: 0 1
    shown since 15: 0=2 1=1
    s2 commits 1: 1=2
    s2 acknowledged 1
    a revoked
    s2 revoked
    a owns 2: 1
    s2 owns 2: 0
    s2 sees 0: 2
    s2 commits 2: 0=3
    s2 acknowledged 2
    stable a:1 s2:0
    shown since 26: 0=3 1=2
    settled
    a left
    s2 left
";

#[test]
fn a_history_in_which_all_holds_passes() {
    let verdict = judge(GOOD);
    assert_eq!(verdict.violations, Vec::<String>::new());
    let counts = verdict.counts;
    assert_eq!(
        (
            counts.generations,
            counts.assignments,
            counts.described,
            counts.produced,
            counts.seen,
            counts.committed
        ),
        (2, 5, 2, 5, 6, 3)
    );
}

#[test]
fn a_partition_with_two_owners_in_one_generation_fails() {
    fails(
        &GOOD.replace("s2 owns 2: 0", "s2 owns 2: 0 1"),
        "owned twice: in generation 2 partition 1",
    );
}

#[test]
fn a_generation_that_is_used_again_fails() {
    // As if the broker had forgotten the group and begun to count anew.
    let script = GOOD.replace("s2 owns 2: 0", "s2 owns 1: 0");
    fails(&script, "owned twice: in generation 1 partition 0");
}

#[test]
fn an_owner_s_generation_that_falls_fails() {
    fails(
        &GOOD.replace("a owns 2: 1", "a owns 0: 1"),
        "moved back: a is assigned in generation 0, after generation 1",
    );
}

#[test]
fn a_newcomer_s_generation_below_one_that_was_over_before_it_came_fails() {
    fails(
        &GOOD.replace("s2 owns 1: 1", "s2 owns 0: 1"),
        "moved back: s2 is assigned in generation 0",
    );
}

#[test]
fn a_generation_that_was_lost_before_it_was_told_counts_for_nothing() {
    let script = GOOD.replace("a revoked\n", "a revoked\n a owns -1: 1\n a lost\n");
    assert_eq!(judge(&script).violations, Vec::<String>::new());
}

#[test]
fn a_stable_group_that_leaves_a_partition_out_fails() {
    fails(
        &GOOD.replace("stable a:1 s2:0", "stable a:1 s2:"),
        "forgotten: at 27 the group is stable, and partition 0",
    );
}

#[test]
fn a_stable_group_that_gives_a_partition_to_two_fails() {
    fails(
        &GOOD.replace("stable a:1 s2:0", "stable a:1,0 s2:0"),
        "owned twice: at 27",
    );
}

#[test]
fn a_record_that_nobody_saw_fails() {
    fails(
        &GOOD.replace("p1 has 0 1", "p1 has 0 1 2"),
        "forgotten: 1 acknowledged records were seen by nobody: 1:2",
    );
}

#[test]
fn a_reader_that_is_shown_a_gap_fails() {
    fails(
        &GOOD.replace("s2 sees 1: 0 1", "s2 sees 1: 0 2"),
        "forgotten: s2 is shown 1:2 after Some(0)",
    );
}

#[test]
fn a_record_with_another_value_fails() {
    fails(
        &GOOD.replace("a sees 0: 0 1", "a misreads 0: 0 1"),
        "invented: 0:0 says `0-0` and `wrong`",
    );
}

#[test]
fn a_commit_that_moves_back_fails() {
    fails(
        &GOOD.replace("s2 commits 2: 0=3", "s2 commits 2: 0=1"),
        "moved back: partition 0 is committed at 1",
    );
}

#[test]
fn a_commit_of_unknown_fate_may_be_in_force_or_not() {
    // The crashed program's attempt of 1=1 was never acknowledged.
    let script = GOOD.replace("shown since 15: 0=2 1=1", "shown since 15: 0=2");
    assert_eq!(judge(&script).violations, Vec::<String>::new());
}

#[test]
fn an_acknowledged_commit_that_is_gone_fails() {
    fails(
        &GOOD.replace("shown since 26: 0=3 1=2", "shown since 26: 0=3"),
        "lost: at 28 partition 1 is committed at None",
    );
    fails(
        &GOOD.replace("shown since 26: 0=3 1=2", "shown since 26: 0=2 1=2"),
        "lost: at 28 partition 0 is committed at Some(2)",
    );
}

#[test]
fn a_commit_that_was_shown_once_stays() {
    // 1=1 was never acknowledged, but it was shown.
    let script = GOOD.replace(
        "s2 commits 1: 1=2\n",
        "shown since 17: 0=2\n s2 commits 1: 1=2\n",
    );
    fails(
        &script,
        "lost: at 18 partition 1 is committed at None, after 1 was shown",
    );
}

#[test]
fn a_question_that_was_under_way_may_miss_what_was_acknowledged_meanwhile() {
    let script = GOOD.replace("shown since 26: 0=3 1=2", "shown since 24: 0=2 1=2");
    assert_eq!(judge(&script).violations, Vec::<String>::new());
}

#[test]
fn a_committed_offset_that_nobody_tried_fails() {
    fails(
        &GOOD.replace("shown since 26: 0=3 1=2", "shown since 26: 0=4 1=2"),
        "invented: at 28 partition 0 is committed at 4",
    );
}

#[test]
fn a_commit_of_a_generation_that_is_over_fails() {
    let script = GOOD.replace(
        "s2 owns 2: 0\n",
        "s2 owns 2: 0\n a commits 1: 0=2\n a acknowledged 1\n",
    );
    fails(&script, "not fenced: a commits in generation 1");
}

#[test]
fn a_commit_under_an_instance_id_that_another_has_taken_fails() {
    let script = GOOD.replace("s1 killed\n", "").replace(
        "s2 owns 1: 1\n",
        "s2 owns 1: 1\n s1 commits 1: 1=1\n s1 acknowledged 1\n s1 killed\n",
    );
    fails(&script, "not fenced: s1 commits at 15");
}

#[test]
fn a_group_that_does_not_settle_fails() {
    fails(&GOOD.replace("settled\n", ""), "the group did not settle");
}

#[test]
fn a_partition_without_an_owner_in_the_end_fails() {
    fails(
        &GOOD.replace("settled\n", "a lost\n settled\n"),
        "forgotten: in the end partition 1",
    );
}

#[test]
fn an_end_in_several_generations_fails() {
    fails(
        &GOOD.replace("s2 owns 2: 0\n", "s2 owns 3: 0\n"),
        "in the end the owners are of several generations",
    );
}

#[test]
fn a_program_that_does_not_notice_that_it_was_replaced_does_no_harm() {
    let script = GOOD.replace("s1 killed\n", "");
    assert_eq!(judge(&script).violations, Vec::<String>::new());
}

#[test]
fn a_program_that_ends_by_itself_fails() {
    fails(
        &GOOD.replace("a left\n", "a failed\n"),
        "failed: a ended by itself",
    );
}

fn fails(script: &str, wanted: &str) {
    let violations = judge(script).violations;
    assert!(
        violations
            .iter()
            .any(|violation| violation.starts_with(wanted)),
        "no violation begins with `{wanted}`: {violations:#?}"
    );
}

fn judge(script: &str) -> Verdict {
    let mut history = History {
        partition_count: 2,
        events: Vec::new(),
    };
    let mut owners: BTreeMap<String, Who> = BTreeMap::new();
    let lines = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    for (line, at_us) in lines.zip(1..) {
        let (head, list) = line
            .split_once(':')
            .filter(|_| !line.starts_with("stable"))
            .unwrap_or((line, ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        match words[..] {
            ["settled"] => history.note(at_us, What::Settled),
            ["stable", ..] => {
                let members = line.split_whitespace().skip(1).map(described).collect();
                history.note(at_us, What::Stable(members));
            }
            ["shown", "since", begun] => history.note(
                at_us,
                What::Fetched {
                    begun_us: begun.parse().unwrap(),
                    offsets: offsets(list),
                },
            ),
            [partition, "has", ..] => {
                let partition = partition[1..].parse().unwrap();
                for offset in words[2..].iter().map(|word| word.parse().unwrap()) {
                    let value = format!("{partition}-{offset}");
                    history.note(
                        at_us,
                        What::Produced {
                            partition,
                            offset,
                            value,
                        },
                    );
                }
            }
            [process, "starts", ..] => {
                let owner = words.get(3).unwrap_or(&process);
                let who = Who {
                    process: process.into(),
                    owner: (*owner).into(),
                };
                owners.insert(process.into(), who.clone());
                history.note(at_us, What::Started(who));
            }
            [process, verb, ..] => {
                let who = owners[process].clone();
                let number = words.get(2).and_then(|word| word.parse().ok());
                history.note(at_us, told(who, verb, number, list));
            }
            _ => panic!("`{line}` says nothing"),
        }
    }
    check(&history)
}

fn told(who: Who, verb: &str, number: Option<i64>, list: &str) -> What {
    let numbers = || list.split_whitespace().map(|word| word.parse().unwrap());
    let seen = |value: &dyn Fn(u64) -> String| Telling::Seen {
        partition: number.unwrap() as u32,
        records: numbers()
            .map(|offset| (u64::from(offset), value(u64::from(offset))))
            .collect(),
    };
    let telling = match verb {
        "killed" => return What::Ended(who, Ending::Killed),
        "left" => return What::Ended(who, Ending::Left),
        "failed" => return What::Ended(who, Ending::Failed),
        "owns" => Telling::Assigned {
            generation: number.unwrap(),
            partitions: numbers().collect(),
        },
        "revoked" => Telling::Revoked,
        "lost" => Telling::Lost,
        "sees" => seen(&|offset| format!("{}-{offset}", number.unwrap())),
        "misreads" => seen(&|_| "wrong".to_owned()),
        "commits" => Telling::Committing {
            generation: number.unwrap(),
            offsets: offsets(list),
        },
        "acknowledged" => Telling::Committed {
            generation: number.unwrap(),
        },
        _ => panic!("nobody does `{verb}`"),
    };
    What::Told(who, telling)
}

fn described(text: &str) -> Described {
    let (member_id, partitions) = text.split_once(':').unwrap();
    let partitions = partitions.split(',').filter(|text| !text.is_empty());
    Described {
        member_id: member_id.to_owned(),
        partitions: partitions.map(|text| text.parse().unwrap()).collect(),
    }
}

fn offsets(list: &str) -> BTreeMap<u32, u64> {
    list.split_whitespace()
        .map(|pair| {
            let (partition, offset) = pair.split_once('=').unwrap();
            (partition.parse().unwrap(), offset.parse().unwrap())
        })
        .collect()
}
