//! This host as a few devices: processor, memory, disks, network, pressure. Source: `/proc`, see proc(5).
//!
//! What a kernel or a container does not show is left out, never an error.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use serde_json::{Map, Value};

/// Reads the host. Keeps the last counters of the processor, to tell shares.
#[derive(Debug)]
pub(super) struct Host {
    name: String,
    processor: Vec<u64>,
    readings: BTreeMap<String, u64>,
}

impl Host {
    /// This host.
    pub(super) fn new() -> Host {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        Host {
            name: if name.is_empty() { "host" } else { name }.to_owned(),
            processor: processor_ticks(),
            readings: BTreeMap::new(),
        }
    }

    /// A reading of each device: key and JSON.
    pub(super) fn read(&mut self) -> Vec<(Bytes, Bytes)> {
        let mut devices = vec![("processor".to_owned(), self.processor())];
        devices.push(("memory".to_owned(), memory()));
        devices.extend(disks());
        devices.extend(networks());
        devices.extend(pressures());
        let at = jiff::Timestamp::now().to_string();
        let readings = devices.into_iter().filter(|(_, fields)| !fields.is_empty());
        readings
            .filter_map(|(device, fields)| {
                let key = format!("{}/{device}", self.name);
                let number = self.readings.entry(device).or_insert(0);
                *number += 1;
                let mut object = Map::new();
                object.insert("n".to_owned(), (*number).into());
                object.insert("at".to_owned(), at.clone().into());
                object.extend(fields);
                let json = serde_json::to_vec(&object).ok()?;
                Some((Bytes::from(key), Bytes::from(json)))
            })
            .collect()
    }

    fn processor(&mut self) -> Map<String, Value> {
        let now = processor_ticks();
        let last = std::mem::replace(&mut self.processor, now.clone());
        let spent: Vec<u64> = now
            .iter()
            .zip(&last)
            .map(|(now, last)| now.saturating_sub(*last))
            .collect();
        // Guest time is part of user time.
        let total: u64 = spent.iter().take(8).sum();
        let mut fields = Map::new();
        if total > 0 {
            let names = [
                "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
            ];
            for (name, ticks) in names.iter().zip(&spent) {
                fields.insert(format!("{name}_percent"), percent(*ticks, total));
            }
        }
        if let Some(load) = first_word("/proc/loadavg") {
            fields.insert("load_1m".to_owned(), load);
        }
        fields
    }
}

fn percent(part: u64, total: u64) -> Value {
    // Tenths of a percent are integers: no digits that mean nothing.
    let tenths = part.saturating_mul(1000) / total.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}

fn first_word(path: &str) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?;
    text.split_whitespace()
        .next()?
        .parse::<f64>()
        .ok()
        .map(Value::from)
}

/// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, …
fn processor_ticks() -> Vec<u64> {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn memory() -> Map<String, Value> {
    let wanted = [
        ("MemTotal", "total_bytes"),
        ("MemAvailable", "available_bytes"),
        ("Cached", "cached_bytes"),
        ("Dirty", "dirty_bytes"),
        ("Writeback", "writeback_bytes"),
        ("SwapFree", "swap_free_bytes"),
    ];
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut fields = Map::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        let kibibytes = rest.split_whitespace().next().map(str::parse::<u64>);
        if let (Some((_, field)), Some(Ok(kibibytes))) =
            (wanted.iter().find(|(n, _)| *n == name), kibibytes)
        {
            fields.insert((*field).to_owned(), (kibibytes * 1024).into());
        }
    }
    fields
}

/// Whole disks that were used since the start. A sector in /proc/diskstats is 512 bytes.
fn disks() -> Vec<(String, Map<String, Value>)> {
    let text = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let disk = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = *words.get(2)?;
        let count = |index: usize| words.get(index)?.parse::<u64>().ok();
        let (reads, writes) = (count(3)?, count(7)?);
        let is_disk = fs::exists(format!("/sys/block/{}", name.replace('/', "!"))).unwrap_or(true);
        if reads + writes == 0 || !is_disk || name.starts_with("loop") || name.starts_with("ram") {
            return None;
        }
        let fields = [
            ("reads", reads),
            ("read_bytes", count(5)? * 512),
            ("writes", writes),
            ("written_bytes", count(9)? * 512),
            ("in_flight", count(11)?),
            ("busy_ms", count(12)?),
        ];
        Some((format!("disk-{name}"), object(&fields)))
    };
    text.lines().filter_map(disk).collect()
}

/// Interfaces that carried anything.
fn networks() -> Vec<(String, Map<String, Value>)> {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let interface = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let counts: Vec<u64> = rest
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let count = |index: usize| counts.get(index).copied();
        let fields = [
            ("received_bytes", count(0)?),
            ("received_packets", count(1)?),
            ("receive_errors", count(2)?),
            ("sent_bytes", count(8)?),
            ("sent_packets", count(9)?),
            ("send_errors", count(10)?),
        ];
        (count(1)? + count(9)? > 0).then(|| (format!("network-{}", name.trim()), object(&fields)))
    };
    text.lines().filter_map(interface).collect()
}

/// Pressure stall information: how long work had to wait for a resource.
fn pressures() -> Vec<(String, Map<String, Value>)> {
    let resource = |name: &str| {
        let text = fs::read_to_string(format!("/proc/pressure/{name}")).ok()?;
        let mut fields = Map::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(kind) = words.next() else { continue };
            for (average, value) in words.filter_map(|word| word.split_once('=')) {
                if let (true, Ok(value)) = (average.starts_with("avg"), value.parse::<f64>()) {
                    fields.insert(format!("{kind}_{average}_percent"), value.into());
                }
            }
        }
        Some((format!("pressure-{name}"), fields))
    };
    ["cpu", "memory", "io"]
        .into_iter()
        .filter_map(resource)
        .collect()
}

fn object(fields: &[(&str, u64)]) -> Map<String, Value> {
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Host;

    #[test]
    fn the_host_has_a_processor_and_memory_and_numbers_its_readings() {
        let mut host = Host::new();
        for number in 1..=2 {
            let readings = host.read();
            for device in ["/processor", "/memory"] {
                let (_, json) = readings
                    .iter()
                    .find(|(key, _)| key.ends_with(device.as_bytes()))
                    .expect("this host has one");
                let value: serde_json::Value = serde_json::from_slice(json).expect("JSON");
                assert_eq!(value["n"], number);
            }
        }
    }
}
