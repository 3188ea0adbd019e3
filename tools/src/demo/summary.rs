//! The demonstration's verdict, as text and as JSON; and what to try next.

use std::path::Path;

use serde::Serialize;

use super::ledger::Verdict;
use super::screen::grouped;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    /// What the judge found.
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    /// Readings that the producers gave up, with an error.
    pub(super) failed: usize,
    /// Records that the group read, each once.
    pub(super) group_read: u64,
    /// Records that it read another time.
    pub(super) group_read_again: u64,
    /// Records that it passed over.
    pub(super) group_skipped: u64,
    /// What each member read.
    pub(super) group_by_member: [u64; 2],
    /// Whether it read everything in the end.
    pub(super) group_caught_up: bool,
    /// Readings of the device that was replayed.
    pub(super) replayed: u64,
    /// What of the replay did not agree with the ledger.
    pub(super) replay_failure: Option<String>,
    /// Readings that were acknowledged when the broker was killed.
    pub(super) acknowledged_before_kill: usize,
    /// Readings that were on their way then.
    pub(super) waiting_at_kill: usize,
    /// From the start of the new process to its ready line.
    pub(super) restart_ms: u64,
    /// From the kill to the next acknowledgement.
    pub(super) outage_ms: u64,
}

impl Summary {
    /// Whether every promise was kept.
    pub(super) fn is_good(&self) -> bool {
        self.verdict.is_good()
            && self.verdict.found == self.verdict.acknowledged
            && self.verdict.acknowledged > self.acknowledged_before_kill
            && self.group_caught_up
            && self.group_skipped == 0
            && self.replay_failure.is_none()
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let v = &self.verdict;
        let mut text = String::from("\n");
        let mut row = |name: &str, count: u64, note: &str| {
            text += &format!("  {name:<15}{:>10}   {note}", grouped(count));
            text.truncate(text.trim_end().len());
            text.push('\n');
        };
        row("sent", v.sent as u64, "readings, as the ledger has them");
        let kill = format!(
            "{} of them before the kill, with {} on their way",
            grouped(self.acknowledged_before_kill as u64),
            grouped(self.waiting_at_kill as u64)
        );
        row("acknowledged", v.acknowledged as u64, &kill);
        row(
            "found",
            v.found as u64,
            "of these, read back with the same SHA-256",
        );
        row("lost", v.lost as u64, "");
        row("altered", v.altered as u64, "");
        row("out of order", v.reordered as u64, "within a device");
        row(
            "moved",
            v.moved as u64,
            "to another offset than was acknowledged",
        );
        let twice = "what was sent again after the kill had a number, and was stored once";
        row(
            "doubled",
            v.duplicates as u64,
            if v.duplicates == 0 { twice } else { "" },
        );
        if v.strays > 0 {
            row("strays", v.strays as u64, "records that nobody sent");
        }
        if self.failed > 0 {
            row(
                "failed",
                self.failed as u64,
                "given up by the producers, promised to nobody",
            );
        }
        if v.unacknowledged_found > 0 {
            let note = "there without an acknowledgement, promised to nobody";
            row("unpromised", v.unacknowledged_found as u64, note);
        }
        let again = format!(
            "by a group of two ({} + {}), {} of them again after the kill, from its last commit",
            grouped(self.group_by_member[0]),
            grouped(self.group_by_member[1]),
            grouped(self.group_read_again)
        );
        row("read", self.group_read, &again);
        row(
            "replayed",
            self.replayed,
            "readings of one device, from a point in time",
        );
        row(
            "restart, ms",
            self.restart_ms,
            "from the process's start to ready, recovery included",
        );
        row(
            "outage, ms",
            self.outage_ms,
            "from the kill to the next acknowledgement",
        );
        text.push('\n');
        for problem in self.problems() {
            text += &format!("  ! {problem}\n");
        }
        text += match self.is_good() {
            true => {
                "Every acknowledged reading is there, at its offset, in order, unaltered.\n\
                 SIGKILL ends a process, not a machine: power cuts, torn writes and full disks are what `cargo xtask exam` is for."
            }
            false => "NOT every promise was kept.",
        };
        text
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.verdict.examples.clone();
        if self.verdict.acknowledged <= self.acknowledged_before_kill {
            problems.push("nothing was acknowledged after the kill".to_owned());
        }
        if self.group_skipped > 0 {
            problems.push(format!(
                "the group passed over {} records",
                self.group_skipped
            ));
        }
        if !self.group_caught_up {
            problems.push("the group did not read everything".to_owned());
        }
        problems.extend(self.replay_failure.iter().map(|f| format!("replay: {f}")));
        problems
    }
}

/// What to try while the broker stays up.
pub(super) fn next_commands((kafka, http, mqtt): (&str, &str, &str), home: &Path) -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let alluvium = program.to_string_lossy();
    let (host, port) = mqtt.rsplit_once(':').unwrap_or((mqtt, "1883"));
    format!(
        "
The broker stays up, and this host goes on telling about itself once a second. Ctrl-C ends it. Try:

  kcat -b {kafka} -L
  kcat -b {kafka} -C -t host -o -5 -e -f '%k %s\\n'
  kcat -b {kafka} -C -t rides -o s@1379146200000 -c 3 -f '%T %k %s\\n'      # from 2013-09-14T08:10:00Z on
  kafka-console-consumer.sh --bootstrap-server {kafka} --topic buoys --from-beginning --max-messages 3
  kafka-consumer-groups.sh --bootstrap-server {kafka} --describe --group demo
  {alluvium} topic list -b {kafka}
  {alluvium} consume rides -b {kafka} -o 2013-09-14T08:10:00Z -n 3
  {alluvium} group describe demo -b {kafka}
  mosquitto_sub -h {host} -p {port} -t '$replay/-1h/site/#' -C 3 -v
  curl http://{http}/metrics

The store is in {}.
",
        home.join("store").display()
    )
}

#[cfg(test)]
mod tests {
    use super::{Summary, Verdict};

    fn good() -> Summary {
        Summary {
            verdict: Verdict {
                sent: 2_001,
                acknowledged: 2_000,
                found: 2_000,
                unacknowledged_found: 1,
                ..Verdict::default()
            },
            failed: 0,
            group_read: 2_001,
            group_read_again: 30,
            group_skipped: 0,
            group_by_member: [1_000, 1_031],
            group_caught_up: true,
            replayed: 7,
            replay_failure: None,
            acknowledged_before_kill: 900,
            waiting_at_kill: 5,
            restart_ms: 210,
            outage_ms: 230,
        }
    }

    #[test]
    fn a_good_end_is_told_with_its_numbers() {
        let summary = good();
        assert!(summary.is_good());
        let text = summary.text();
        let parts = [
            "acknowledged        2,000   900 of them before the kill, with 5 on their way",
            "lost                    0\n",
            "read                2,001   by a group of two (1,000 + 1,031), 30 of them again",
            "Every acknowledged reading is there",
        ];
        for part in parts {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn no_broken_promise_is_told_as_a_good_end() {
        let tampered: [fn(&mut Summary); 11] = [
            |s| s.verdict.lost = 1,
            |s| s.verdict.altered = 1,
            |s| s.verdict.reordered = 1,
            |s| s.verdict.moved = 1,
            |s| s.verdict.duplicates = 1,
            |s| s.verdict.strays = 1,
            |s| s.verdict.found = 1_999,
            |s| s.acknowledged_before_kill = 2_000,
            |s| s.group_skipped = 1,
            |s| s.group_caught_up = false,
            |s| s.replay_failure = Some("it came in another order".to_owned()),
        ];
        for (number, tamper) in tampered.iter().enumerate() {
            let mut summary = good();
            tamper(&mut summary);
            assert!(!summary.is_good(), "tampering {number}");
            let text = summary.text();
            assert!(text.ends_with("NOT every promise was kept."), "{text}");
        }
    }
}
