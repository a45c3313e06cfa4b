//! Origins that show each other certificates, and let in nobody whose certificate their roots
//! have not signed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use fabric::v1::cluster_client::ClusterClient;
use fabric::v1::shared_client::SharedClient;
use fabric::v1::{ClusterStatus, StatusRequest};
use model::NodeId;
use node::link::{Address, Listener, Settings, Tls};
use node::shutdown::Drain;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use selvage_origin::log::Ram;
use selvage_origin::{BuildError, Config, Origin, Parts};
use tonic::{Code, Status};

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A root of trust.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// The files of a node: its certificate, for a name that is no host, and the root.
    fn sign(&self, dir: &Path) -> Tls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["node.selvage".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        Tls {
            cert: write("tls.crt", cert.pem()),
            key: write("tls.key", key.serialize_pem()),
            ca: write("ca.crt", self.0.pem()),
            name: Some("node.selvage".into()),
        }
    }
}

async fn listen() -> (Listener, Address) {
    let listener = Listener::tcp((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, address)
}

fn node_id(number: u64) -> NodeId {
    NodeId(NonZeroU64::new(number).unwrap())
}

async fn status(address: &Address, tls: Option<&Tls>) -> Result<ClusterStatus, Status> {
    let mutual = tls.map(|tls| tls.load().unwrap().unwrap());
    let client = mutual.as_ref().map(|mutual| &mutual.client);
    let channel = node::link::connect_tls(address, &Settings::default(), client).unwrap();
    let mut client = ClusterClient::new(channel);
    let answer = client.status(StatusRequest::default()).await?;
    Ok(answer.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_with_certificates_found_a_cluster_and_strangers_are_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut listeners = Vec::new();
    let mut founders = BTreeMap::new();
    for number in 1..=3 {
        let (listener, address) = listen().await;
        listeners.push(listener);
        founders.insert(node_id(number), address);
    }
    for (index, listener) in listeners.into_iter().enumerate() {
        let id = format!("origin-{index}");
        let mut config = Config {
            id: id.clone(),
            ..Config::default()
        };
        config.link.tls = ours.sign(&dir.path().join(id));
        let parts = Parts {
            listener,
            founders: founders.clone(),
            join: Vec::new(),
            disk: Box::new(Ram::new()),
        };
        let origin = Origin::compose(config, parts).unwrap();
        tokio::spawn(origin.run(Drain::new()));
    }
    let own = ours.sign(&dir.path().join("edge"));
    let at = &founders[&node_id(1)];
    // They have spoken with each other to come this far. One that the others founded without
    // knows of a leader before it has heard who the members are.
    let led = async {
        loop {
            match status(at, Some(&own)).await {
                Ok(status) if status.leader != 0 && !status.blank => match status.members.len() {
                    0 => {}
                    members => return members,
                },
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let members = tokio::time::timeout(PATIENCE, led)
        .await
        .expect("no leader");
    assert_eq!(members, 3);
    // An edge comes in.
    let client = own.load().unwrap().unwrap().client;
    let channel = node::link::dial(at, &Settings::default(), Some(&client))
        .await
        .unwrap();
    let mut edge = SharedClient::new(channel);
    assert!(edge.attach(tokio_stream::pending()).await.is_ok());

    // One with a certificate of somebody else, who trusts the right root, does not.
    let foreign = Tls {
        ca: own.ca.clone(),
        ..theirs.sign(&dir.path().join("foreign"))
    };
    // Nor one who trusts another root, nor one who expects another name, nor one in the clear.
    let distrusting = Tls {
        ca: foreign_root(&theirs, dir.path()),
        ..own.clone()
    };
    let elsewhere = Tls {
        name: Some("other.selvage".into()),
        ..own.clone()
    };
    for (who, tls, why) in [
        ("foreign", Some(&foreign), ""),
        (
            "distrusting",
            Some(&distrusting),
            "invalid peer certificate",
        ),
        ("elsewhere", Some(&elsewhere), "not valid for name"),
        ("in the clear", None, ""),
    ] {
        let refused = tokio::time::timeout(PATIENCE, status(at, tls));
        let refused = refused.await.expect("no answer").expect_err(who);
        let unheard = matches!(
            refused.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
        );
        assert!(unheard, "{who}: {refused:?}");
        // What a server refuses may be lost with the connection; what a client does is said.
        let cause = std::error::Error::source(&refused).map(node::process::chain);
        assert!(
            cause.unwrap_or_default().contains(why),
            "{who}: {refused:?}"
        );
    }
    assert!(status(at, Some(&own)).await.is_ok());
}

fn foreign_root(authority: &Authority, dir: &Path) -> Option<std::path::PathBuf> {
    authority.sign(&dir.join("root")).ca
}

#[tokio::test]
async fn an_origin_whose_certificate_is_missing_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.link.tls = Authority::new().sign(dir.path());
    std::fs::remove_file(dir.path().join("tls.key")).unwrap();
    let (listener, _) = listen().await;
    let refused = Origin::build_on(config, listener).err().expect("it starts");
    assert!(matches!(refused, BuildError::Tls(_)), "{refused}");
    let text = node::process::chain(&refused);
    assert!(text.contains("tls.key"), "{text}");
}
