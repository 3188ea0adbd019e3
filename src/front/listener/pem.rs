//! PEM: reads certificates and keys off their files, and says what is wrong with them.
//! Caller: `tls`. Blocks on the disk. Invariant: a key that others on this machine may read is refused.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// What makes a key readable or writable by others, or writable by its group.
const OTHERS: u32 = 0o027;

/// Why a file of certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key is not kept well.
    #[error(
        "{}: the private key in it can be read or changed by others (mode {mode:04o}): set mode 0600, or 0640 for a group that may read it",
        path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Settings(String),
}

/// A file that was read.
pub(super) struct Pem {
    path: PathBuf,
    mode: u32,
    bytes: Vec<u8>,
}

impl Pem {
    /// Reads the whole file.
    pub(super) fn read(path: &Path) -> Result<Pem, TlsError> {
        let unreadable = |source| TlsError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let pem = Pem {
            path: path.to_owned(),
            mode: about.mode() & 0o7777,
            bytes,
        };
        match pem.bytes.len() as u64 > FILE_BYTES_MAX {
            true => Err(pem.unusable("is too long for certificates".to_owned())),
            false => Ok(pem),
        }
    }

    /// All certificates in it, one at least.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let all = all.map_err(|error| self.unusable(said(&error)))?;
        match all.is_empty() {
            true => Err(self.unusable("holds no certificate in PEM".to_owned())),
            false => Ok(all),
        }
    }

    /// The private key in it, which nobody else may read.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let key = match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) if self.has_encrypted_key() => {
                let reason = "its private key is encrypted, and no password can be given: \
                     `openssl pkey -in FILE -out PLAIN` decrypts it";
                return Err(self.unusable(reason.to_owned()));
            }
            Err(pem::Error::NoItemsFound) => {
                return Err(self.unusable("holds no private key in PEM".to_owned()));
            }
            Err(error) => return Err(self.unusable(said(&error))),
        };
        match self.mode & OTHERS {
            0 => Ok(key),
            _ => Err(TlsError::Exposed {
                path: self.path.clone(),
                mode: self.mode,
            }),
        }
    }

    fn has_encrypted_key(&self) -> bool {
        const MARK: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
        memchr::memmem::find(&self.bytes, MARK).is_some()
    }

    /// An error about it.
    pub(super) fn unusable(&self, reason: String) -> TlsError {
        TlsError::Unusable {
            path: self.path.clone(),
            reason,
        }
    }
}

fn said(error: &pem::Error) -> String {
    format!("is no good PEM: {error}")
}
