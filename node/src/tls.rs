//! Certificates: read, checked, replaced while running, or made up for development.
//!
//! An [`Identity`] is a certificate chain and its key. Configurations built on it keep asking it,
//! so a pair that is replaced on disk serves the next handshake. A bad new pair is logged and the
//! old one stays. Roots of trust are read once.
//!
//! The files are compared by content, which also notices Kubernetes swapping a symbolic link.
//!
//! ```
//! use node::tls::{self, Clients, Identity};
//!
//! let identity = Identity::self_signed(["localhost"])?;
//! let acceptor: tokio_rustls::TlsAcceptor = tls::acceptor(&identity)?;
//! # let _ = acceptor;
//! # Ok::<(), tls::Error>(())
//! ```

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::limits;

/// What a gRPC link speaks inside TLS (RFC 9113, 3.2).
pub const ALPN_H2: &[u8] = b"h2";

/// The two files of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// PEM file of the certificate chain, the node's own certificate first.
    pub cert: PathBuf,
    /// PEM file of the private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// What is wrong with a certificate, key or root file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far larger than any certificate.
    #[error("{} is larger than {} bytes, which is no certificate or key", path.display(), limits::PEM_FILE)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not PEM, or its base 64 is broken.
    #[error("{} is not sound PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: pem::Error,
    },
    /// The file has no `BEGIN CERTIFICATE`.
    #[error("{} contains no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file has no private key.
    #[error("{} contains no private key (PKCS#8, PKCS#1 or SEC1 in PEM)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Each file is sound, and they do not belong together.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// A certificate or key that rustls does not accept.
    #[error("{what} cannot be used")]
    Refused {
        /// The file or purpose.
        what: String,
        /// Why.
        source: rustls::Error,
    },
    /// The roots of trust cannot verify clients.
    #[error("the roots of trust cannot verify clients")]
    Roots {
        /// Why.
        source: rustls::server::VerifierBuilderError,
    },
    /// A certificate for development cannot be made for these names.
    #[error("cannot make a certificate")]
    SelfSigned {
        /// Why.
        source: rcgen::Error,
    },
}

/// A certificate chain with its key, replaceable while configurations use it.
pub struct Identity {
    current: RwLock<Arc<CertifiedKey>>,
    source: Option<Source>,
    certificate_pem: Mutex<String>,
}

struct Source {
    files: Files,
    /// What was read last, good or bad, so that a bad pair is reported once.
    seen: Mutex<Contents>,
}

#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Outcome {
    /// The same as at the last look.
    Unchanged,
    /// A new pair, which serves from here on.
    Replaced,
    /// A new pair that is bad. The old one keeps serving.
    Kept(Error),
}

impl Identity {
    /// Reads and checks a pair of files.
    ///
    /// # Errors
    /// Which file is wrong and how.
    pub fn from_files(files: Files) -> Result<Arc<Self>, Error> {
        let contents = Contents::read(&files)?;
        let pair = contents.parse(&files)?;
        Ok(Arc::new(Self {
            current: RwLock::new(Arc::new(pair)),
            certificate_pem: Mutex::new(String::from_utf8_lossy(&contents.cert).into_owned()),
            source: Some(Source {
                files,
                seen: Mutex::new(contents),
            }),
        }))
    }

    /// Makes a certificate that nobody trusts by itself, for development. Names may be DNS names
    /// or IP addresses.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate.
    pub fn self_signed<N: Into<String>>(
        names: impl IntoIterator<Item = N>,
    ) -> Result<Arc<Self>, Error> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let made = rcgen::generate_simple_self_signed(names)
            .map_err(|source| Error::SelfSigned { source })?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let pair = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider())
            .map_err(|source| Error::Refused {
                what: "the certificate just made".into(),
                source,
            })?;
        Ok(Arc::new(Self {
            current: RwLock::new(Arc::new(pair)),
            source: None,
            certificate_pem: Mutex::new(made.cert.pem()),
        }))
    }

    /// [`Identity::self_signed`] for `localhost`, `127.0.0.1` and `::1`.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn for_development() -> Result<Arc<Self>, Error> {
        Self::self_signed(["localhost", "127.0.0.1", "::1"])
    }

    /// The certificate chain in PEM, for clients that shall trust it.
    pub fn certificate_pem(&self) -> String {
        self.certificate_pem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks at the files again. Reads them, so it belongs off the runtime's threads.
    pub fn check(&self) -> Outcome {
        let Some(source) = &self.source else {
            return Outcome::Unchanged;
        };
        let mut seen = source.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = match Contents::read(&source.files) {
            Ok(contents) if contents == *seen => return Outcome::Unchanged,
            Ok(contents) => contents,
            // Also the moment between the removal and the arrival of a file.
            Err(error) => {
                let first = !seen.is_empty();
                *seen = Contents::empty();
                return if first {
                    Outcome::Kept(error)
                } else {
                    Outcome::Unchanged
                };
            }
        };
        let parsed = contents.parse(&source.files);
        let certificate_pem = String::from_utf8_lossy(&contents.cert).into_owned();
        *seen = contents;
        match parsed {
            Ok(pair) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                *self
                    .certificate_pem
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = certificate_pem;
                Outcome::Replaced
            }
            Err(error) => Outcome::Kept(error),
        }
    }

    /// Looks at the files every so often, until the identity is dropped. Must be called within a
    /// tokio runtime.
    pub fn watch(self: &Arc<Self>, every: Duration) -> JoinHandle<()> {
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(identity) = weak.upgrade() else {
                    return;
                };
                let Some(source) = &identity.source else {
                    return;
                };
                let cert = source.files.cert.display().to_string();
                let Ok(outcome) = tokio::task::spawn_blocking(move || identity.check()).await
                else {
                    return;
                };
                match outcome {
                    Outcome::Unchanged => {}
                    Outcome::Replaced => tracing::info!(cert, "the certificate was replaced"),
                    Outcome::Kept(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(
                            cert,
                            error,
                            "the new certificate is bad, the old one keeps serving"
                        );
                    }
                }
            }
        })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.source.as_ref().map(|source| &source.files);
        f.debug_struct("Identity")
            .field("files", &files)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Contents {
    fn empty() -> Self {
        Self {
            cert: Vec::new(),
            key: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.cert.is_empty() && self.key.is_empty()
    }

    fn read(files: &Files) -> Result<Self, Error> {
        Ok(Self {
            cert: read(&files.cert)?,
            key: read(&files.key)?,
        })
    }

    fn parse(&self, files: &Files) -> Result<CertifiedKey, Error> {
        let chain = certificates(&files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| {
            let path = files.key.clone();
            if matches!(source, pem::Error::NoItemsFound) {
                Error::NoKey { path }
            } else {
                Error::Pem { path, source }
            }
        })?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|source| Error::Refused {
                what: format!("the key in {}", files.key.display()),
                source,
            })?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(pair)
            }
            Err(rustls::Error::InconsistentKeys(_)) => Err(Error::Mismatch {
                cert: files.cert.clone(),
                key: files.key.clone(),
            }),
            Err(source) => {
                let what = format!("the certificate in {}", files.cert.display());
                Err(Error::Refused { what, source })
            }
        }
    }
}

/// Whom a server lets in.
#[derive(Debug, Clone)]
pub enum Clients {
    /// Everybody, without a certificate.
    Anyone,
    /// Those whose certificate one of these roots has signed.
    SignedBy(Arc<RootCertStore>),
}

/// Reads the roots of trust from a PEM file.
///
/// # Errors
/// Which file is wrong and how.
pub fn roots(path: &Path) -> Result<RootCertStore, Error> {
    roots_from_pem(path, &read(path)?)
}

/// Reads the roots of trust from PEM text; `path` is what errors call it.
///
/// # Errors
/// How the text is wrong.
pub fn roots_from_pem(path: &Path, text: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, text)? {
        roots.add(certificate).map_err(|source| Error::Refused {
            what: format!("a certificate in {}", path.display()),
            source,
        })?;
    }
    Ok(roots)
}

/// A server that shows `identity`, lets in `clients` and offers the protocols `alpn`.
///
/// # Errors
/// Roots that verify nobody.
pub fn server_config(
    identity: &Arc<Identity>,
    clients: Clients,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(refused)?;
    let builder = match clients {
        Clients::Anyone => builder.with_no_client_auth(),
        Clients::SignedBy(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|source| Error::Roots { source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(identity) as Arc<_>);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that trusts `roots`, shows `identity` to servers that ask, and asks for the protocols
/// `alpn`.
///
/// # Errors
/// None that arguments cause.
pub fn client_config(
    roots: RootCertStore,
    identity: Option<&Arc<Identity>>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(Arc::clone(identity) as Arc<_>),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// An acceptor for `rtmps`: anyone may come, no protocol is negotiated.
///
/// # Errors
/// None that arguments cause.
pub fn acceptor(identity: &Arc<Identity>) -> Result<TlsAcceptor, Error> {
    server_config(identity, Clients::Anyone, &[]).map(TlsAcceptor::from)
}

/// Makes ring the provider of every library in this process that asks for the default one.
/// Calling it again does nothing.
pub fn install_provider() {
    // Refused when one is installed already: ours, or the choice of whoever embeds this.
    let _ = ring::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn refused(source: rustls::Error) -> Error {
    Error::Refused {
        what: "the TLS configuration".into(),
        source,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut contents = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::PEM_FILE + 1).read_to_end(&mut contents))
        .map_err(|source| Error::Unreadable {
            path: path.to_owned(),
            source,
        })?;
    if contents.len() as u64 > limits::PEM_FILE {
        return Err(Error::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(contents)
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Pem {
            path: path.to_owned(),
            source,
        })?;
    if chain.is_empty() {
        return Err(Error::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(chain)
}

#[cfg(test)]
mod tests;
