//! Reads what strace wrote: the few system calls that tell when something was written, synced and answered.
//!
//! `strace -f -yy -o FILE` writes a line per call, `PID name(FD<what>, …) = RESULT`; a call that another thread's event
//! interrupts is cut in two, `PID name(… <unfinished ...>` and `PID <... name resumed>…) = RESULT`. The order of the
//! lines is the order of the events.

use std::collections::HashMap;

/// What has to be traced.
pub const CALLS: &str = "pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,fdatasync,fsync";

/// A call that somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A write to this WAL file.
    WalWrite(String),
    /// A sync of this WAL file.
    WalSync(String),
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
        return Some(Call::Answer(port.parse().ok()?));
    }
    let (path, _) = described.split_once('>')?;
    if !path.ends_with(".wal") {
        return None;
    }
    Some(match name {
        "fdatasync" | "fsync" => Call::WalSync(path.to_owned()),
        _ => Call::WalWrite(path.to_owned()),
    })
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
}
