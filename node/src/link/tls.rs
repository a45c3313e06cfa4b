//! Certificates on both sides of a link: the files of the configuration, and what is made of
//! them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use serde::{Deserialize, Serialize};

use super::ClientTls;
use crate::config::{Invalid, Validate};
use crate::tls::{self, ALPN_H2, Clients, Files, Identity};

/// How often certificate files are looked at.
const CHECK: Duration = Duration::from_secs(5);

/// Mutual TLS on TCP links: all three files, or none for links in the clear. Whoever dials
/// shows the same certificate that it would show as a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM certificate chain of this node; read again when it changes.
    pub cert: Option<PathBuf>,
    /// PEM private key of this node.
    pub key: Option<PathBuf>,
    /// PEM roots that sign the certificates of all nodes. Nobody else is let in or trusted.
    pub ca: Option<PathBuf>,
    /// A name that every origin's certificate bears. Without it each must bear the host that
    /// is dialled, which is an IP address where it was resolved from a name.
    pub name: Option<String>,
}

impl Tls {
    /// Reads the files. `None` is a link in the clear.
    ///
    /// # Errors
    /// Which file is wrong and how.
    pub fn load(&self) -> Result<Option<Mutual>, tls::Error> {
        let (Some(cert), Some(key), Some(ca)) = (&self.cert, &self.key, &self.ca) else {
            return Ok(None);
        };
        let identity = Identity::from_files(Files {
            cert: cert.clone(),
            key: key.clone(),
        })?;
        let roots = tls::roots(ca)?;
        let client = ClientTls {
            config: tls::client_config(roots.clone(), Some(&identity), &[ALPN_H2])?,
            server_name: self.name.clone(),
        };
        let clients = Clients::SignedBy(Arc::new(roots));
        let server = tls::server_config(&identity, clients, &[ALPN_H2])?;
        Ok(Some(Mutual {
            client,
            server,
            identity,
        }))
    }
}

impl Validate for Tls {
    fn validate(&self) -> Result<(), Invalid> {
        let files = [("cert", &self.cert), ("key", &self.key), ("ca", &self.ca)];
        let given = files.iter().filter(|(_, file)| file.is_some()).count();
        if let Some((missing, _)) = files.iter().find(|(_, file)| file.is_none())
            && given > 0
        {
            let expected = "cert, key and ca, or none of them";
            return Err(Invalid::new(*missing, "absent", expected));
        }
        if let Some(name) = &self.name
            && (given == 0 || rustls::pki_types::ServerName::try_from(name.as_str()).is_err())
        {
            let expected = "a DNS name or IP address, beside cert, key and ca";
            return Err(Invalid::new("name", format!("{name:?}"), expected));
        }
        Ok(())
    }
}

/// What both sides of a link need for mutual TLS.
#[derive(Clone)]
pub struct Mutual {
    /// For those who dial.
    pub client: ClientTls,
    /// For those who listen; see [`Listener::with_tls`](super::Listener::with_tls).
    pub server: Arc<ServerConfig>,
    identity: Arc<Identity>,
}

impl Mutual {
    /// Replaces the certificate when its files change, for as long as either side is in use.
    /// Must be called within a tokio runtime.
    pub fn watch(&self) {
        self.identity.watch(CHECK);
    }
}

impl fmt::Debug for Mutual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mutual").field(&self.identity).finish()
    }
}
