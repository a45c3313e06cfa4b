//! A certificate for development that is kept on disk.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::tls::Files;

/// Names that a certificate for development is valid for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The pair `cert.pem` and `key.pem` in `dir`, made when there is none yet.
///
/// # Errors
/// The folder cannot be made or written.
pub fn kept(dir: &Path) -> io::Result<Files> {
    let named = |what: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", what.display()))
    };
    let files = Files {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    };
    if files.cert.exists() && files.key.exists() {
        return Ok(files);
    }
    std::fs::create_dir_all(dir).map_err(|error| named(dir, error))?;
    let made =
        rcgen::generate_simple_self_signed(NAMES.map(String::from)).map_err(io::Error::other)?;
    // Nobody else may read the key, from the moment it exists.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut key = options
        .open(&files.key)
        .map_err(|error| named(&files.key, error))?;
    key.write_all(made.signing_key.serialize_pem().as_bytes())?;
    std::fs::write(&files.cert, made.cert.pem()).map_err(|error| named(&files.cert, error))?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Identity;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_certificate_is_made_once_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let files = kept(&dir.path().join("deep/er")).unwrap();
        let first = Identity::from_files(files.clone())
            .unwrap()
            .certificate_pem();
        let again = Identity::from_files(kept(&dir.path().join("deep/er")).unwrap()).unwrap();
        assert_eq!(first, again.certificate_pem());
        let mode = std::fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
