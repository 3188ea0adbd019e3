use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::io::{
    AlignedBuffer, DIRECT_ALIGNMENT_BYTES, Disk, LockHow, OpenHow, read_file, write_new_file,
};

fn path(name: &str) -> PathBuf {
    Path::new("/data").join(name)
}

fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    read_file(disk, &path(name), 1 << 20).ok()
}

/// Of the file `a`.
fn fail_next_sync(disk: &SimDisk) {
    disk.inject(Fault {
        operation: Operation::SyncData,
        path_contains: "/a".to_owned(),
        skip: 0,
        times: 1,
        errno: libc::EIO,
    });
}

#[test]
fn what_was_synced_survives_every_cut() {
    for seed in 0..200 {
        let disk = disk();
        write_new_file(&disk, &path("a"), &[7; 5_000]).unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        let file = disk.open(&path("a"), OpenHow::ReadWrite).unwrap();
        file.write_at(5_000, &[8; 5_000]).unwrap();
        disk.restart(seed);
        assert_eq!(read(&disk, "a").unwrap()[..5_000], [7; 5_000]);
        assert!(file.sync_data().is_err(), "the handle is dead");
    }
}

#[test]
fn what_was_written_through_survives_every_cut() {
    for seed in 0..200 {
        let disk = disk();
        write_new_file(&disk, &path("a"), &[7; 5_000]).unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        let file = disk.open(&path("a"), OpenHow::Through).unwrap();
        file.write_at(5_000, &[8; 5_000]).unwrap();
        disk.restart(seed);
        let all = read(&disk, "a").unwrap();
        assert_eq!(
            (&all[..5_000], &all[5_000..]),
            (&[7; 5_000][..], &[8; 5_000][..])
        );
    }
}

#[test]
fn pages_are_forgotten_in_a_range_alone_and_come_back_from_the_disk() {
    let disk = disk();
    write_new_file(&disk, &path("a"), &[7; 4 * SECTOR_BYTES]).unwrap();
    fail_next_sync(&disk);
    let file = disk.open(&path("a"), OpenHow::ReadWrite).unwrap();
    file.write_at(0, &[8; 4 * SECTOR_BYTES]).unwrap();
    assert!(file.sync_data().is_err(), "what is on the disk is what was");
    file.drop_cache_of(SECTOR_BYTES as u64..2 * SECTOR_BYTES as u64)
        .unwrap();
    let all = read(&disk, "a").unwrap();
    let sectors: Vec<u8> = all.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
    assert_eq!(sectors, [8, 7, 8, 8]);
    file.drop_cache().unwrap();
    assert_eq!(read(&disk, "a").unwrap(), [7; 4 * SECTOR_BYTES]);
}

#[test]
fn in_memory_is_what_was_written_through_the_page_cache_or_read_until_it_is_dropped() {
    const SECTOR: u64 = SECTOR_BYTES as u64;
    let disk = disk();
    write_new_file(&disk, &path("a"), &[7; 4 * DIRECT_ALIGNMENT_BYTES]).unwrap();
    let file = disk.open(&path("a"), OpenHow::Read).unwrap();
    let now = |position| {
        let mut buffer = [0; 3 * SECTOR_BYTES];
        let read = file.read_at_now(position, &mut buffer);
        read.map_err(|error| error.kind())
    };
    let waits = Err(io::ErrorKind::WouldBlock);
    assert_eq!(now(0), Ok(3 * SECTOR_BYTES));
    file.drop_cache_of(2 * SECTOR..u64::MAX).unwrap();
    assert_eq!((now(0), now(2 * SECTOR)), (Ok(2 * SECTOR_BYTES), waits));
    file.read_exact_at(2 * SECTOR + 7, &mut [0; 1]).unwrap();
    assert_eq!((now(0), now(3 * SECTOR)), (Ok(3 * SECTOR_BYTES), waits));

    let mut block = AlignedBuffer::default();
    block.extend_with(8, DIRECT_ALIGNMENT_BYTES);
    let third = 2 * DIRECT_ALIGNMENT_BYTES as u64;
    for (how, in_memory) in [
        (OpenHow::Direct, waits),
        (OpenHow::Through, Ok(3 * SECTOR_BYTES)),
        (OpenHow::Direct, waits),
    ] {
        let writer = disk.open(&path("a"), how).unwrap();
        writer.write_at(third, block.as_slice()).unwrap();
        assert_eq!(now(third), in_memory, "{how:?}");
    }
    assert_eq!(read(&disk, "a").unwrap()[third as usize], 8);
    assert_eq!(now(third), Ok(3 * SECTOR_BYTES));
    file.drop_cache().unwrap();
    let writer = disk.open(&path("a"), OpenHow::ReadWrite).unwrap();
    writer.set_len(SECTOR).unwrap();
    writer.set_len(3 * SECTOR).unwrap();
    assert_eq!((now(0), now(SECTOR)), (waits, Ok(2 * SECTOR_BYTES)));
    disk.cut_power();
    disk.restart(1);
    let file = disk.open(&path("a"), OpenHow::Read).unwrap();
    let error = file.read_at_now(0, &mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn unsynced_sectors_and_names_are_kept_lost_and_torn_each_by_itself() {
    let (mut kept, mut lost, mut torn, mut nameless) = (0, 0, 0, 0);
    for seed in 0..500 {
        let disk = disk();
        write_new_file(&disk, &path("a"), &[1; 4_096]).unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        disk.open(&path("a"), OpenHow::ReadWrite)
            .unwrap()
            .write_at(0, &[2; 4_096])
            .unwrap();
        write_new_file(&disk, &path("b"), b"synced, but its name is not").unwrap();
        disk.restart(seed);
        for sector in read(&disk, "a").unwrap().chunks(SECTOR_BYTES) {
            match sector.iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                SECTOR_BYTES => kept += 1,
                _ => torn += 1,
            }
        }
        nameless += usize::from(read(&disk, "b").is_none());
    }
    assert!(
        kept > 1_000 && lost > 1_000 && torn > 100,
        "{kept} kept, {lost} lost, {torn} torn"
    );
    assert!(
        (100..400).contains(&nameless),
        "{nameless} of 500 without their name"
    );
}

#[test]
fn a_rename_without_a_sync_of_the_data_may_give_an_empty_file() {
    let mut empty = 0;
    for seed in 0..200 {
        let disk = disk();
        disk.open(&path("new"), OpenHow::CreateNew)
            .unwrap()
            .write_at(0, b"contents")
            .unwrap();
        disk.rename(&path("new"), &path("name")).unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        disk.restart(seed);
        assert_eq!(read(&disk, "new"), None);
        empty += usize::from(read(&disk, "name").unwrap().is_empty());
    }
    assert!(empty > 50);
}

#[test]
fn a_cut_during_any_operation_fails_it_and_all_that_follow() {
    let script = |disk: &SimDisk| -> io::Result<()> {
        let file = disk.open(&path("a"), OpenHow::CreateNew)?;
        file.write_at(0, b"x")?;
        file.sync_data()?;
        disk.sync_dir(Path::new("/data"))?;
        disk.rename(&path("a"), &path("b"))
    };
    let before = disk().operations();
    for cut in 1..=5 {
        let disk = disk();
        disk.cut_power_during(before + cut);
        assert!(script(&disk).is_err(), "cut {cut}");
        assert!(disk.is_off());
        assert!(disk.exists(&path("a")).is_err());
        disk.restart(cut);
        assert!(!disk.is_off());
    }
    assert!(script(&disk()).is_ok());
}

#[test]
fn after_a_failed_sync_the_next_one_says_ok_and_the_bytes_are_lost() {
    let disk = disk();
    write_new_file(&disk, &path("a"), &[1; 512]).unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    fail_next_sync(&disk);
    let file = disk.open(&path("a"), OpenHow::ReadWrite).unwrap();
    file.write_at(0, &[2; 512]).unwrap();
    assert_eq!(
        file.sync_data().unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    file.sync_data().unwrap();
    assert_eq!(
        read(&disk, "a").unwrap(),
        [2; 512],
        "the cache still shows it"
    );
    file.drop_cache().unwrap();
    assert_eq!(read(&disk, "a").unwrap(), [1; 512], "the disk never had it");
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let disk = disk();
    write_new_file(&disk, &path("a"), &[1; 5_000]).unwrap();
    let free = |disk: &SimDisk| disk.free_bytes(Path::new("/data")).unwrap();
    // The directory and two blocks.
    disk.set_capacity(4 * BLOCK_BYTES - 1);
    assert_eq!(free(&disk), BLOCK_BYTES - 1);
    let file = disk.open(&path("a"), OpenHow::ReadWrite).unwrap();
    let refused = file.write_at(8_000, &[1; 193]).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    let refused = disk.create_dir_all(&path("b")).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    file.write_at(8_000, &[2; 192]).unwrap();
    disk.remove_file(&path("a")).unwrap();
    assert_eq!(free(&disk), 3 * BLOCK_BYTES - 1);
    disk.fill();
    assert_eq!(free(&disk), 0);
}

#[test]
fn a_killed_process_leaves_its_writes_and_gives_its_lock_back() {
    let disk = disk();
    let lock = disk.lock(&path("LOCK"), LockHow::Exclusive).unwrap();
    assert!(disk.lock(&path("LOCK"), LockHow::Exclusive).is_err());
    disk.open(&path("a"), OpenHow::CreateNew)
        .unwrap()
        .write_at(0, b"unsynced")
        .unwrap();
    disk.restart_process();
    assert_eq!(read(&disk, "a").unwrap(), b"unsynced");
    let second = disk.lock(&path("LOCK"), LockHow::Exclusive).unwrap();
    drop(lock);
    assert!(
        disk.lock(&path("LOCK"), LockHow::Exclusive).is_err(),
        "the first guard is from before"
    );
    drop(second);
    assert!(disk.lock(&path("LOCK"), LockHow::Shared).is_ok());
}

#[test]
fn direct_files_refuse_what_is_not_aligned() {
    let disk = disk();
    write_new_file(&disk, &path("a"), &[]).unwrap();
    let file = disk.open(&path("a"), OpenHow::Direct).unwrap();
    let mut buffer = AlignedBuffer::default();
    buffer.extend_with(0, DIRECT_ALIGNMENT_BYTES);
    file.write_at(DIRECT_ALIGNMENT_BYTES as u64, buffer.as_slice())
        .unwrap();
    assert!(file.write_at(512, buffer.as_slice()).is_err());
    assert!(file.write_at(0, &buffer.as_slice()[..512]).is_err());
}

#[test]
fn an_unreadable_file_is_an_error_for_reads_and_for_paging_in() {
    let disk = disk();
    write_new_file(&disk, &path("a"), &[1; 100]).unwrap();
    let file = disk.open(&path("a"), OpenHow::Read).unwrap();
    let map = file.map(1_000).unwrap();
    let slice = map.slice(0..100);
    assert!(map.in_use());
    disk.set_unreadable(&path("a"), 0..u64::MAX);
    assert!(file.read_at(0, &mut [0; 10]).is_err());
    assert!(map.is_cold(0..100) && map.populate(0..100).is_err());
    assert_eq!(slice, vec![1; 100]);
}
