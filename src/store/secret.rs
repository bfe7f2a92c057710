//! The secret by which this updater recognises its own containers ([`crate::engine::seal`]): 32 random bytes,
//! made once, readable by the owner only, and never sent anywhere.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::engine::seal::Seal;

const NAME: &str = "secret";
/// For the journal, which must be able to tell that the secret is another one, and must not hold it.
const FINGERPRINT: &str = "processgit-updater secret, fingerprint for the journal";

/// The secret of a state folder.
pub struct Secret([u8; 32]);

impl Secret {
    /// Reads it, or makes one; durable when it returns. A file that holds anything but 32 bytes is replaced: it
    /// is of no use to anybody.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn of(folder: &Path) -> io::Result<Self> {
        if let Some(known) = Self::read(folder)? {
            fs::set_permissions(folder.join(NAME), Permissions::from_mode(0o600))?;
            return Ok(known);
        }
        let made = Self(rand::random());
        let unfinished = folder.join(format!("{NAME}.new"));
        let _ = fs::remove_file(&unfinished);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(&made.0)?;
        file.sync_all()?;
        fs::rename(&unfinished, folder.join(NAME))?;
        File::open(folder)?.sync_all()?;
        Ok(made)
    }

    /// What is there; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(NAME)) {
            Ok(bytes) => Ok(bytes.try_into().ok().map(Self)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn seal(&self) -> Seal {
        Seal::new(self.0)
    }

    pub fn fingerprint(&self) -> String {
        hex::encode(blake3::derive_key(FINGERPRINT, &self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Secret::read(folder.path()).unwrap().is_none());
        let made = Secret::of(folder.path()).unwrap();
        let file = folder.path().join(NAME);
        assert_eq!(fs::read(&file).unwrap(), made.0);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Secret::of(folder.path()).unwrap().0, made.0, "it stays");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(Secret::of(tempfile::tempdir().unwrap().path()).unwrap().0, made.0);

        for damaged in [&b""[..], b"half of it", &[7; 33]] {
            fs::write(&file, damaged).unwrap();
            let again = Secret::of(folder.path()).unwrap();
            assert_eq!(Secret::of(folder.path()).unwrap().0, again.0);
            assert_ne!(again.0, made.0);
        }
    }
}
