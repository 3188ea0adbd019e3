//! What Prometheus's client libraries say of a process, under their names. Source: /proc, as `proc(5)` has it.
//! Callers: whoever shows metrics. Nothing here touches the data directory's disk.

use super::Families;

/// Numbers of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Process {
    cpu_seconds: f64,
    start_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

/// Adds the families `process_*`. A number that cannot be had is left out.
pub fn add(families: &mut Families<'_>) {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page_bytes = rustix::param::page_size() as u64;
    let found = read("/proc/self/stat")
        .zip(read("/proc/stat"))
        .and_then(|(own, all)| parse(&own, &all, ticks, page_bytes));
    if let Some(process) = found {
        families.counter(
            "process_cpu_seconds_total",
            "Processor time used, in user and kernel mode.",
            process.cpu_seconds,
        );
        families.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            process.start_seconds,
        );
        families.gauge(
            "process_virtual_memory_bytes",
            "Address space in use; mapped files are in it.",
            process.virtual_bytes,
        );
        families.gauge(
            "process_resident_memory_bytes",
            "Memory in use; pages of mapped files that the kernel keeps are in it.",
            process.resident_bytes,
        );
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The one that lists them is among them.
        let count = open.count().saturating_sub(1);
        families.gauge("process_open_fds", "Open file descriptors.", count);
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        families.gauge(
            "process_max_fds",
            "File descriptors that may be open.",
            limit,
        );
    }
}

/// Reads `/proc/self/stat` and the boot time of `/proc/stat`.
fn parse(own: &str, all: &str, ticks: f64, page_bytes: u64) -> Option<Process> {
    // The second field is the command in parentheses, which may hold anything; the third follows the last of them.
    let (_, fields) = own.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let boot: f64 = all
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(Process {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        start_seconds: boot + field(22)? as f64 / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_behind_the_command() {
        let own = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1000 8192000 25 \
                   18446744073709551615 1 1 0";
        let all = "cpu  1 2 3\nbtime 1700000000\nprocesses 5\n";
        let expected = Process {
            cpu_seconds: 2.0,
            start_seconds: 1_700_000_010.0,
            virtual_bytes: 8_192_000,
            resident_bytes: 25 * 4096,
        };
        assert_eq!(parse(own, all, 100.0, 4096), Some(expected));
        assert_eq!(parse("42 (cut", all, 100.0, 4096), None);
    }
}
