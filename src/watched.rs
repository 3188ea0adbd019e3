//! Watched: files that are read again when they have changed.
//! Callers: what keeps certificates and the keys of tokens, which look every [`LOOK`], where blocking does no harm.
//! Invariants: a change counts whatever it changes of a file (content, owner, mode, which file it is), however soon after the last
//! one; files that could not be read are read again at the next look, and whoever looks learns whether the failure is a new one.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often files are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// Files, as they were when they were read.
#[derive(Debug)]
pub(crate) struct Watched {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Mark>>,
    /// Why they could not be read the last time.
    failure: Option<String>,
}

/// What reading them again gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Looked<T, E> {
    /// They are as they were, and are in use.
    Same,
    /// What they say now.
    New(T),
    /// They cannot be used.
    Failed {
        /// Why.
        error: E,
        /// Whether they changed, or failed otherwise before.
        is_news: bool,
    },
}

/// A file, as far as that tells whether it has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    bytes: u64,
    mode: u32,
    /// Seconds and nanoseconds of the last change of content, and of anything.
    changed: [(i64, i64); 2],
}

impl Watched {
    /// These files, as they are now. They are to be read after this, so that no change is missed.
    pub(crate) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Watched {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        Watched {
            seen: paths.iter().map(|path| Mark::of(path)).collect(),
            paths,
            failure: None,
        }
    }

    /// Reads them again, if they have changed or could not be read before. Blocks on the disk.
    pub(crate) fn look<T, E: Display>(
        &mut self,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Looked<T, E> {
        let now: Vec<Option<Mark>> = self.paths.iter().map(|path| Mark::of(path)).collect();
        let have_changed = now != self.seen;
        if !have_changed && self.failure.is_none() {
            return Looked::Same;
        }
        self.seen = now;
        match read() {
            Ok(read) => {
                self.failure = None;
                Looked::New(read)
            }
            Err(error) => {
                let text = error.to_string();
                let is_news = have_changed || self.failure.as_ref() != Some(&text);
                self.failure = Some(text);
                Looked::Failed { error, is_news }
            }
        }
    }
}

impl Mark {
    fn of(path: &Path) -> Option<Mark> {
        let about = std::fs::metadata(path).ok()?;
        Some(Mark {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.size(),
            mode: about.mode(),
            changed: [
                (about.mtime(), about.mtime_nsec()),
                (about.ctime(), about.ctime_nsec()),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn text(path: &Path) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }

    #[test]
    fn another_content_counts_however_long_it_is_and_whatever_time_it_claims() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let put = |content: &str| {
            let beside = directory.path().join("beside");
            std::fs::write(&beside, content).expect("it is written");
            let file = std::fs::File::options().append(true).open(&beside);
            let same = file
                .expect("it is there")
                .set_modified(SystemTime::UNIX_EPOCH);
            same.expect("a time");
            std::fs::rename(&beside, &path).expect("it is renamed");
        };
        put("one");
        let mut watched = Watched::new([path.clone()]);
        assert_eq!(watched.look(|| text(&path)), Looked::Same);
        put("two");
        let looked = watched.look(|| text(&path));
        assert_eq!(looked, Looked::New("two".to_owned()));
        assert_eq!(watched.look(|| text(&path)), Looked::Same);
    }

    #[test]
    fn files_that_could_not_be_read_are_read_again_though_they_have_not_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "one").expect("it is written");
        let mut watched = Watched::new([path.clone()]);
        std::fs::write(&path, "more").expect("it is written");
        let fail = |reason: &str| Err::<(), String>(reason.to_owned());
        let failed = |reason: &str, is_news| Looked::Failed {
            error: reason.to_owned(),
            is_news,
        };
        // Too many files are open, say.
        assert_eq!(watched.look(|| fail("full")), failed("full", true));
        assert_eq!(watched.look(|| fail("full")), failed("full", false));
        assert_eq!(watched.look(|| fail("bad")), failed("bad", true));
        assert_eq!(watched.look(|| text(&path)), Looked::New("more".to_owned()));
        assert_eq!(watched.look(|| text(&path)), Looked::Same);
    }
}
