use std::error::Error as _;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;

struct Pair {
    cert: String,
    key: String,
}

fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Pair {
        cert: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    }
}

fn write(dir: &Path, pair: &Pair) -> Files {
    let files = Files {
        cert: dir.join("tls.crt"),
        key: dir.join("tls.key"),
    };
    std::fs::write(&files.cert, &pair.cert).unwrap();
    std::fs::write(&files.key, &pair.key).unwrap();
    files
}

/// Shakes hands with a client that trusts only `pem`, and says a word both ways.
async fn trusted(identity: &Arc<Identity>, pem: &str) -> bool {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let acceptor = acceptor(identity).unwrap();
    let serving = tokio::spawn(async move {
        let mut io = acceptor.accept(theirs).await.ok()?;
        let mut word = [0; 5];
        io.read_exact(&mut word).await.ok()?;
        io.write_all(&word).await.ok()
    });
    let roots = roots_from_pem(Path::new("trusted.pem"), pem.as_bytes()).unwrap();
    let connector = TlsConnector::from(client_config(roots, None, &[]).unwrap());
    let name = ServerName::try_from("localhost").unwrap();
    let Ok(mut io) = connector.connect(name, ours).await else {
        return false;
    };
    io.write_all(b"hello").await.unwrap();
    let mut word = [0; 5];
    io.read_exact(&mut word).await.unwrap();
    assert_eq!(serving.await.unwrap(), Some(()));
    &word == b"hello"
}

#[tokio::test]
async fn the_development_certificate_serves_those_who_trust_it() {
    let identity = Identity::for_development().unwrap();
    assert!(trusted(&identity, &identity.certificate_pem()).await);
    let other = Identity::for_development().unwrap();
    assert!(!trusted(&identity, &other.certificate_pem()).await);
    assert!(matches!(identity.check(), Outcome::Unchanged));
}

#[tokio::test]
async fn a_new_pair_serves_the_next_handshake_and_a_bad_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (pair(), pair());
    let identity = Identity::from_files(write(dir.path(), &first)).unwrap();
    assert!(trusted(&identity, &first.cert).await);
    assert!(matches!(identity.check(), Outcome::Unchanged));

    // The moment when only one of the two files has been replaced.
    write(
        dir.path(),
        &Pair {
            cert: second.cert.clone(),
            key: first.key.clone(),
        },
    );
    assert!(matches!(
        identity.check(),
        Outcome::Kept(Error::Mismatch { .. })
    ));
    assert!(
        matches!(identity.check(), Outcome::Unchanged),
        "reported once"
    );
    assert!(trusted(&identity, &first.cert).await);

    write(dir.path(), &second);
    assert!(matches!(identity.check(), Outcome::Replaced));
    assert!(trusted(&identity, &second.cert).await);
    assert!(!trusted(&identity, &first.cert).await);
    assert_eq!(identity.certificate_pem(), second.cert);

    std::fs::remove_file(dir.path().join("tls.crt")).unwrap();
    assert!(matches!(
        identity.check(),
        Outcome::Kept(Error::Unreadable { .. })
    ));
    assert!(
        matches!(identity.check(), Outcome::Unchanged),
        "reported once"
    );
    assert!(trusted(&identity, &second.cert).await);
    write(dir.path(), &first);
    assert!(matches!(identity.check(), Outcome::Replaced));
    assert!(trusted(&identity, &first.cert).await);
}

#[tokio::test(start_paused = true)]
async fn the_watch_follows_the_swap_of_a_symbolic_link() {
    // As Kubernetes does it: tls.crt -> ..data/tls.crt, ..data -> the newest directory.
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (pair(), pair());
    for (name, pair) in [("one", &first), ("two", &second)] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        write(&dir.path().join(name), pair);
    }
    let link = |to: &str, from: &str| {
        std::os::unix::fs::symlink(to, dir.path().join(from)).unwrap();
    };
    link("one", "..data");
    link("..data/tls.crt", "tls.crt");
    link("..data/tls.key", "tls.key");
    let files = Files {
        cert: dir.path().join("tls.crt"),
        key: dir.path().join("tls.key"),
    };
    let identity = Identity::from_files(files).unwrap();
    let watching = identity.watch(Duration::from_secs(10));
    assert_eq!(identity.certificate_pem(), first.cert);

    link("two", "..tmp");
    std::fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
    let swapped = tokio::time::Instant::now();
    while identity.certificate_pem() != second.cert {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        swapped.elapsed() <= Duration::from_secs(12),
        "{:?}",
        swapped.elapsed()
    );
    drop(identity);
    watching.await.unwrap();
}

#[test]
fn every_bad_file_is_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (pair(), pair());
    let refusal = |cert: &str, key: &str| {
        let files = write(
            dir.path(),
            &Pair {
                cert: cert.into(),
                key: key.into(),
            },
        );
        let error = Identity::from_files(files).expect_err("it is refused");
        error
            .to_string()
            .replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(refusal("", &good.key), "tls.crt contains no certificate");
    assert_eq!(
        refusal(&good.key, &good.key),
        "tls.crt contains no certificate"
    );
    let no_key = "tls.key contains no private key (PKCS#8, PKCS#1 or SEC1 in PEM)";
    assert_eq!(refusal(&good.cert, ""), no_key);
    assert_eq!(refusal(&good.cert, &good.cert), no_key);
    assert_eq!(
        refusal(&good.cert, &other.key),
        "the key in tls.key does not belong to the certificate in tls.crt"
    );
    let cut = &good.cert[..good.cert.len() / 2];
    assert_eq!(refusal(cut, &good.key), "tls.crt is not sound PEM");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(
        refusal(broken, &good.key),
        "the certificate in tls.crt cannot be used"
    );
    let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(
        refusal(&good.cert, broken),
        "the key in tls.key cannot be used"
    );
    let large = "x".repeat(1 + (1 << 20));
    assert_eq!(
        refusal(&large, &good.key),
        "tls.crt is larger than 1048576 bytes, which is no certificate or key"
    );
    let files = Files {
        cert: dir.path().join("absent"),
        key: dir.path().join("absent"),
    };
    let absent = Identity::from_files(files).expect_err("there is no such file");
    assert!(absent.to_string().starts_with("cannot read "), "{absent}");
    assert!(absent.source().is_some());
}

#[test]
fn a_name_that_cannot_stand_in_a_certificate_is_refused() {
    assert!(matches!(
        Identity::self_signed(["käse"]),
        Err(Error::SelfSigned { .. })
    ));
}

#[test]
fn the_provider_is_installed_once() {
    install_provider();
    install_provider();
    assert!(CryptoProvider::get_default().is_some());
}
