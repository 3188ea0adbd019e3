//! Reads what strace wrote: the few system calls that tell when something was written, synced and answered.
//!
//! `strace -f -yy -o FILE` writes a line per call, `PID name(FD<what>, …) = RESULT`; a call that another thread's event
//! interrupts is cut in two, `PID name(… <unfinished ...>` and `PID <... name resumed>…) = RESULT`. The order of the
//! lines is the order of the events.

use std::collections::HashMap;

/// What has to be traced.
pub const CALLS: &str = "pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,read,readv,recvfrom,recvmsg,fdatasync,fsync";

/// A call that somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A write to this WAL file.
    WalWrite(String),
    /// A sync of this WAL file.
    WalSync(String),
    /// Bytes from the TCP peer at this port.
    Request(u16),
    /// Bytes to the TCP peer at this port.
    Answer(u16),
}

/// The begin or the return of a call.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which call.
    pub call: Call,
    /// Whether it returns here, or begins.
    pub returned: bool,
    /// What it returned; -1 for an error.
    pub result: i64,
    /// Whether strace made it fail.
    pub injected: bool,
}

/// The events of a trace, in order.
pub fn parse(trace: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut open: HashMap<&str, Call> = HashMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        let ended = |call: Call| Event {
            call,
            returned: true,
            result: result(rest),
            injected: rest.contains("(INJECTED)"),
        };
        if rest.starts_with("<... ") {
            events.extend(open.remove(thread).map(ended));
            continue;
        }
        let Some(call) = call(rest) else { continue };
        events.push(Event {
            call: call.clone(),
            returned: false,
            result: 0,
            injected: false,
        });
        if rest.ends_with("<unfinished ...>") {
            open.insert(thread, call);
        } else {
            events.push(ended(call));
        }
    }
    events
}

fn call(text: &str) -> Option<Call> {
    let (name, arguments) = text.split_once('(')?;
    let (_, described) = arguments.split_once('<')?;
    if let Some(peer) = described.strip_prefix("TCP:[") {
        let (peer, _) = peer.split_once(']')?;
        let (_, port) = peer.rsplit_once(':')?;
        let port = port.parse().ok()?;
        return Some(match name {
            "read" | "readv" | "recvfrom" | "recvmsg" => Call::Request(port),
            _ => Call::Answer(port),
        });
    }
    let (path, _) = described.split_once('>')?;
    if !path.ends_with(".wal") {
        return None;
    }
    Some(match name {
        "fdatasync" | "fsync" => Call::WalSync(path.to_owned()),
        "read" | "readv" => return None,
        _ => Call::WalWrite(path.to_owned()),
    })
}

/// Writes of this size fill a new WAL file with zeros; the batches of traced cases are far smaller.
const FILL_BYTES: i64 = 256 << 10;

/// An answer that left, and whether its request was durable then.
#[derive(Debug)]
pub struct Answered {
    /// The peer.
    pub port: u16,
    /// Why the request was not durable: what should have come first.
    pub lacks: Option<String>,
}

/// How far one WAL file has come since a request.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// A write to it began.
    write_begun: bool,
    /// And returned.
    written: bool,
    /// After that, a sync of it began.
    sync_begun: bool,
    /// And returned 0.
    synced: bool,
}

impl Progress {
    fn step(&mut self, event: &Event) {
        match (&event.call, event.returned) {
            (Call::WalWrite(_), false) => self.write_begun = true,
            (Call::WalWrite(_), true) => {
                self.written |= self.write_begun && (1..FILL_BYTES).contains(&event.result);
                self.write_begun = false;
            }
            (Call::WalSync(_), false) => self.sync_begun = self.written,
            (Call::WalSync(_), true) => {
                self.synced |= self.sync_begun && event.result == 0;
                self.sync_begun = false;
            }
            (Call::Request(_) | Call::Answer(_), _) => {}
        }
    }
}

/// Every answer to peers that send one request at a time. Between a request and its answer some WAL file must have been
/// written, and a sync of that file, begun after the write, must have returned 0. What the broker does with other files
/// meanwhile (filling new ones, settling) neither helps nor hurts.
pub fn answers(events: &[Event]) -> Vec<Answered> {
    let mut peers: HashMap<u16, HashMap<&str, Progress>> = HashMap::new();
    let mut answers = Vec::new();
    for event in events {
        match &event.call {
            Call::Request(port) if event.returned && event.result > 0 => {
                peers.insert(*port, HashMap::new());
            }
            Call::WalWrite(file) | Call::WalSync(file) => {
                for files in peers.values_mut() {
                    files.entry(file).or_default().step(event);
                }
            }
            Call::Answer(port) if !event.returned => {
                let files = peers.remove(port).unwrap_or_default();
                let written = files.iter().find(|(_, progress)| progress.written);
                let lacks = match written {
                    _ if files.values().any(|progress| progress.synced) => None,
                    Some((file, _)) => Some(format!("the sync of {file} returned 0")),
                    None => Some("anything was written to the WAL".to_owned()),
                };
                answers.push(Answered { port: *port, lacks });
            }
            Call::Request(_) | Call::Answer(_) => {}
        }
    }
    answers
}

fn result(text: &str) -> i64 {
    text.rsplit_once(" = ")
        .and_then(|(_, result)| result.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_cut_and_failed_calls_are_read() {
        let trace = "\
7 pwritev(9</d/wal/1.wal>, [{iov_base=\"\"..., iov_len=4096}], 1, 4096 <unfinished ...>
8 write(3</d/other.log>, \"\"..., 5) = 5
8 sendmsg(5<TCP:[127.0.0.1:9092->127.0.0.1:41000]>, {}, MSG_NOSIGNAL) = 10
7 <... pwritev resumed>)       = 4096
7 fdatasync(9</d/wal/1.wal>) = -1 EIO (Input/output error) (INJECTED)
";
        let wal = || "/d/wal/1.wal".to_owned();
        let events = parse(trace);
        let short: Vec<(Call, bool, i64)> = events
            .iter()
            .map(|event| (event.call.clone(), event.returned, event.result))
            .collect();
        assert_eq!(
            short,
            [
                (Call::WalWrite(wal()), false, 0),
                (Call::Answer(41000), false, 0),
                (Call::Answer(41000), true, 10),
                (Call::WalWrite(wal()), true, 4096),
                (Call::WalSync(wal()), false, 0),
                (Call::WalSync(wal()), true, -1),
            ]
        );
        assert!(events[5].injected);
    }

    const REQUEST: &str = "8 recvfrom(12<TCP:[127.0.0.1:9092->127.0.0.1:5555]>, \"\"..., 8192, 0, NULL, NULL) = 300\n";
    const NOTHING: &str = "8 recvfrom(12<TCP:[127.0.0.1:9092->127.0.0.1:5555]>, 0x7f, 8192, 0, NULL, NULL) = -1 EAGAIN\n";
    const WRITE: &str = "7 pwritev(9</d/wal/0000.wal>, [{}], 1, 0) = 4096\n";
    const SYNC: &str = "7 fdatasync(9</d/wal/0000.wal>) = 0\n";
    const ANSWER: &str = "8 writev(12<TCP:[127.0.0.1:9092->127.0.0.1:5555]>, [{}], 2) = 60\n";

    /// Whether each answer in the trace was covered.
    fn check(lines: &[&str], expected: &[bool]) {
        let covered: Vec<bool> = answers(&parse(&lines.concat()))
            .iter()
            .map(|answer| answer.port == 5555 && answer.lacks.is_none())
            .collect();
        assert_eq!(covered, expected, "{lines:?}");
    }

    #[test]
    fn an_answer_after_its_sync_is_covered() {
        let one = [REQUEST, WRITE, SYNC, ANSWER, NOTHING];
        check(&[one, one].concat(), &[true, true]);
        let begun = "7 fdatasync(9</d/wal/0000.wal> <unfinished ...>\n";
        let returned = "7 <... fdatasync resumed>) = 0\n";
        check(&[REQUEST, WRITE, begun, returned, ANSWER], &[true]);
    }

    #[test]
    fn an_answer_before_its_sync_returned_0_is_not() {
        let begun = "7 fdatasync(9</d/wal/0000.wal> <unfinished ...>\n";
        let returned = "7 <... fdatasync resumed>) = 0\n";
        let failed = "7 fdatasync(9</d/wal/0000.wal>) = -1 EIO (Input/output error) (INJECTED)\n";
        let other = "7 fdatasync(9</d/wal/0001.wal>) = 0\n";
        check(&[REQUEST, ANSWER], &[false]);
        check(&[REQUEST, WRITE, ANSWER, SYNC], &[false]);
        check(&[REQUEST, WRITE, begun, ANSWER, returned], &[false]);
        check(&[REQUEST, WRITE, failed, ANSWER], &[false]);
        check(&[REQUEST, WRITE, other, ANSWER], &[false]);
    }

    #[test]
    fn what_began_too_early_does_not_count() {
        let sync_begun = "6 fdatasync(9</d/wal/0000.wal> <unfinished ...>\n";
        let sync_returned = "6 <... fdatasync resumed>) = 0\n";
        check(
            &[REQUEST, sync_begun, WRITE, sync_returned, ANSWER],
            &[false],
        );
        let write_begun = "7 pwritev(9</d/wal/0000.wal>, [{}], 1, 0 <unfinished ...>\n";
        let write_returned = "7 <... pwritev resumed>) = 4096\n";
        check(
            &[write_begun, REQUEST, write_returned, SYNC, ANSWER],
            &[false],
        );
        check(&[WRITE, REQUEST, SYNC, ANSWER], &[false]);
    }

    #[test]
    fn an_answer_may_leave_after_a_later_sync_failed() {
        let failed = "7 fdatasync(9</d/wal/0000.wal>) = -1 EIO (Input/output error) (INJECTED)\n";
        check(&[REQUEST, WRITE, SYNC, WRITE, failed, ANSWER], &[true]);
    }

    #[test]
    fn a_file_that_is_filled_ahead_neither_helps_nor_hurts() {
        let fill = "9 pwritev(9</d/wal/0001.wal>, [{}], 1, 0) = 1048576\n";
        let fill_sync = "9 fdatasync(9</d/wal/0001.wal>) = 0\n";
        check(&[REQUEST, WRITE, SYNC, fill, ANSWER], &[true]);
        check(&[REQUEST, WRITE, fill, SYNC, ANSWER], &[true]);
        check(&[REQUEST, WRITE, fill, fill_sync, ANSWER], &[false]);
    }
}
