//! The data directory before a store is opened in it: whether it holds one, may get one, or is somebody else's.
//!
//! Callers: `serve`, before `Storage::open`, which makes what is missing without asking. Invariant: nothing is created above the
//! directory itself, and nothing inside one that holds foreign files, so that a mistyped path or a disk that is not mounted is
//! an error and not a new, empty store.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The file that makes a directory a store.
const STORE: &str = "STORE";
/// Marks a store that is being made of a backup: the storage refuses to open it, and says what to do.
const RESTORING: &str = "RESTORING";
/// What only a store has, and what is there only after `STORE` was.
const PARTS: [&str; 5] = ["wal", "checkpoint", "p", "CLOCK", "DAMAGE"];
/// What the start of a new store may have left when it was cut short, and what file systems put into an empty directory.
const HARMLESS: [&str; 4] = ["LOCK", "STORE.new", "lost+found", ".snapshot"];

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A store.
    Store,
    /// An empty directory, made now if it was missing.
    Empty,
}

/// Why no store is opened here. Nothing was created.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The directory that should hold it is missing.
    #[error(
        "data directory {}: the directory above it does not exist; mount the disk, or make it with `mkdir -p {}`",
        path.display(), above.display()
    )]
    NoParent {
        /// The data directory.
        path: PathBuf,
        /// The directory above.
        above: PathBuf,
    },
    /// There is no store, and none is to be made.
    #[error(
        "data directory {}: no store is here, and store.create.enable=false forbids to create one; is the disk mounted?",
        path.display()
    )]
    NoStore {
        /// The data directory.
        path: PathBuf,
    },
    /// It holds what is no store's.
    #[error(
        "data directory {}: it holds other files ({name}) and no store; use an empty directory, or a new one",
        path.display()
    )]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// One of the files.
        name: String,
    },
    /// It holds parts of a store whose identity is gone.
    #[error(
        "data directory {}: the file STORE is missing, and parts of a store are here ({name}); restore STORE from a backup of \
         this store",
        path.display()
    )]
    Orphaned {
        /// The data directory.
        path: PathBuf,
        /// One of the parts.
        name: String,
    },
    /// The operating system refuses.
    #[error("data directory {}: cannot {what}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The data directory.
        path: PathBuf,
        /// The answer.
        error: io::Error,
    },
}

/// Looks at the directory, and makes its last level if that is missing and `create` allows it. Blocks on the disk.
pub fn prepare(path: &Path, create: bool) -> Result<Found, DataDirError> {
    let refuse = |what| {
        move |error| DataDirError::Io {
            what,
            path: path.to_owned(),
            error,
        }
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(path, create)?;
            return Ok(Found::Empty);
        }
        Err(error) => return Err(refuse("read it")(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(refuse("read it"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    // So that an error names the same file each time.
    names.sort();
    if names.iter().any(|name| name == STORE || name == RESTORING) {
        return Ok(Found::Store);
    }
    let path = path.to_owned();
    if let Some(name) = names.iter().find(|name| PARTS.contains(&name.as_str())) {
        let name = name.clone();
        return Err(DataDirError::Orphaned { path, name });
    }
    let foreign = names.into_iter();
    if let Some(name) = { foreign }.find(|name| !HARMLESS.contains(&name.as_str())) {
        return Err(DataDirError::Foreign { path, name });
    }
    if !create {
        return Err(DataDirError::NoStore { path });
    }
    Ok(Found::Empty)
}

fn make(path: &Path, create: bool) -> Result<(), DataDirError> {
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    let path = path.to_owned();
    if !above.is_dir() {
        let above = above.to_owned();
        return Err(DataDirError::NoParent { path, above });
    }
    if !create {
        return Err(DataDirError::NoStore { path });
    }
    let made = fs::create_dir(&path)
        // Durable, as all that comes to lie in it.
        .and_then(|()| File::open(above)?.sync_all());
    made.map_err(|error| DataDirError::Io {
        what: "create it",
        path,
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prepares `d` below an empty directory that `arrange` has arranged; the error as text, and what is below afterwards.
    fn check(arrange: fn(&Path), path: &str, create: bool) -> (Result<Found, String>, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        arrange(root.path());
        let found = prepare(&root.path().join(path), create).map_err(|error| error.to_string());
        let mut below: Vec<String> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        below.sort();
        (found, below)
    }

    fn store_of(files: &[&str], root: &Path) {
        fs::create_dir(root.join("d")).unwrap();
        for file in files {
            fs::write(root.join("d").join(file), "").unwrap();
        }
    }

    #[test]
    fn only_the_last_level_is_made() {
        let (found, below) = check(|_| {}, "d", true);
        assert_eq!((found, below), (Ok(Found::Empty), vec!["d".to_owned()]));
        let (found, below) = check(|_| {}, "not-mounted/d", true);
        let error = found.unwrap_err();
        assert!(
            error.contains("mkdir -p") && error.contains("not-mounted"),
            "{error}"
        );
        assert!(below.is_empty(), "{below:?}");
    }

    #[test]
    fn a_directory_with_foreign_files_is_refused() {
        let error = check(|root| store_of(&["photo.jpg"], root), "d", true)
            .0
            .unwrap_err();
        assert!(error.contains("photo.jpg"), "{error}");
        // A new file system's own directory, and a first start that was cut short.
        for files in [&["lost+found"][..], &["LOCK", "STORE.new"]] {
            let root = tempfile::tempdir().unwrap();
            store_of(files, root.path());
            assert_eq!(prepare(&root.path().join("d"), true).unwrap(), Found::Empty);
        }
        let (found, _) = check(|root| store_of(&["STORE", "notes.txt"], root), "d", true);
        assert_eq!(found, Ok(Found::Store), "a store with a note beside it");
    }

    #[test]
    fn parts_of_a_store_without_its_identity_never_become_a_new_store() {
        let error = check(|root| store_of(&["LOCK", "checkpoint"], root), "d", true);
        assert!(error.0.unwrap_err().contains("STORE is missing"));
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let arrange = |root: &Path| fs::write(root.join("d"), "").unwrap();
        let error = check(arrange, "d", true).0.unwrap_err();
        assert!(error.contains("Not a directory"), "{error}");
    }

    #[test]
    fn no_store_is_made_where_a_setting_forbids_it() {
        let (found, below) = check(|_| {}, "d", false);
        assert!(found.unwrap_err().contains("store.create.enable=false"));
        assert!(below.is_empty());
        let (found, _) = check(|root| store_of(&[], root), "d", false);
        assert!(found.unwrap_err().contains("store.create.enable=false"));
        let (found, _) = check(|root| store_of(&["STORE"], root), "d", false);
        assert_eq!(found, Ok(Found::Store));
    }
}
