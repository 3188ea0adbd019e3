//! What this machine does in a bare loop: the limits that every figure stands beside.

use std::fs::File;
use std::io::{IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

const FILE_BYTES: usize = 64 << 20;
const FILES: usize = 8;
const FILL_BYTES: usize = 1 << 20;

/// Bytes a second of a loop of one write of `chunk_bytes` and one fdatasync, going around in zero-filled files.
pub fn write_and_sync(directory: &Path, chunk_bytes: usize, time: Duration) -> Result<f64> {
    let zeros = vec![0; FILL_BYTES];
    let chunk: Vec<u8> = (0..chunk_bytes)
        .map(|index| (index % 251) as u8 + 1)
        .collect();
    let mut files = Vec::new();
    for index in 0..FILES {
        let path = directory.join(format!("limit-{index}"));
        let file = File::create(&path)?;
        for position in (0..FILE_BYTES).step_by(FILL_BYTES) {
            file.write_all_at(&zeros, position as u64)?;
        }
        file.sync_all()?;
        files.push((path, file));
    }
    let (mut bytes, mut position, mut index) = (0_usize, 0_usize, 0_usize);
    let began = Instant::now();
    while began.elapsed() < time {
        if position + chunk_bytes > FILE_BYTES {
            (position, index) = (0, (index + 1) % FILES);
        }
        let file = &files[index].1;
        file.write_all_at(&chunk, position as u64)?;
        file.sync_data()?;
        position += chunk_bytes;
        bytes += chunk_bytes;
    }
    let seconds = began.elapsed().as_secs_f64();
    for (path, file) in files {
        drop(file);
        std::fs::remove_file(path)?;
    }
    Ok(bytes as f64 / seconds)
}

/// Bytes a second of vectored writes from a map of a warm file to loopback sockets, each read by a thread of its own.
pub fn map_to_socket(directory: &Path, sockets: usize, bytes: u64) -> Result<f64> {
    let path = directory.join("limit-map");
    let piece: Vec<u8> = (0..FILL_BYTES)
        .map(|index| (index % 251) as u8 + 1)
        .collect();
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)?;
    for _ in 0..(512 << 20) / FILL_BYTES {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let disk = storage::RealDisk;
    let mapped = {
        use storage::Disk as _;
        let opened = disk.open(&path, storage::io::OpenHow::Read)?;
        let length = opened.len()?;
        opened.map(length)?.slice(0..length)
    };
    // Once over it, so that the pages are there and mapped.
    let sum: u64 = mapped
        .iter()
        .step_by(4096)
        .map(|byte| u64::from(*byte))
        .sum();
    anyhow::ensure!(sum > 0, "the file's bytes are not zeros");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let share = bytes / sockets as u64;
    let began = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for _ in 0..sockets {
            let reader = scope.spawn(move || -> Result<()> {
                let mut stream = TcpStream::connect(address)?;
                let mut buffer = vec![0; 1 << 20];
                while stream.read(&mut buffer)? > 0 {}
                Ok(())
            });
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let map = &mapped;
            let writer = scope.spawn(move || -> Result<()> {
                let (mut sent, mut position) = (0_u64, 0_usize);
                while sent < share {
                    let slices: Vec<IoSlice<'_>> = (0..16)
                        .map(|index| {
                            let from = (position + index * (64 << 10)) % (map.len() - (64 << 10));
                            IoSlice::new(&map[from..from + (64 << 10)])
                        })
                        .collect();
                    let written = stream.write_vectored(&slices)?;
                    sent += written as u64;
                    position = (position + written) % (map.len() - (2 << 20));
                }
                Ok(())
            });
            threads.push(reader);
            threads.push(writer);
        }
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?
                .context("the loopback loop")?;
        }
        Ok(())
    })?;
    let rate = (share * sockets as u64) as f64 / began.elapsed().as_secs_f64();
    drop(mapped);
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Seconds to read these files once from the disk, in pieces of 1 MiB.
pub fn read_cold(paths: &[std::path::PathBuf]) -> Result<f64> {
    for path in paths {
        let file = File::open(path)?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    let mut buffer = vec![0; 1 << 20];
    let began = Instant::now();
    for path in paths {
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Bytes a second of a loop that reads a file from the disk and writes half of it to another one, synced at its end.
pub fn read_and_write_half(directory: &Path, bytes: u64) -> Result<f64> {
    let (from, to) = (directory.join("limit-from"), directory.join("limit-to"));
    let mut piece = vec![7; 1 << 20];
    let mut file = File::create(&from)?;
    for _ in 0..bytes >> 20 {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    drop(file);
    let began = Instant::now();
    let (mut source, mut target) = (File::open(&from)?, File::create(&to)?);
    let mut is_kept = false;
    loop {
        let read = source.read(&mut piece)?;
        if read == 0 {
            break;
        }
        is_kept = !is_kept;
        if is_kept {
            target.write_all(&piece[..read])?;
        }
    }
    target.sync_all()?;
    let rate = bytes as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(from)?;
    std::fs::remove_file(to)?;
    Ok(rate)
}
