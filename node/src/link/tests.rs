use std::path::Path;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::*;
use crate::config::Validate as _;
use crate::tls::{self, Clients, Files, Identity, Outcome};

/// Answers `/peer` with who asks. A whole gRPC service would need a protocol crate.
fn serve(listener: Listener) -> JoinHandle<()> {
    let peer = |Extension(peer): Extension<Peer>| async move {
        let certificates = peer.certificates.map_or(0, |chain| chain.len());
        [
            ("addr", format!("{:?}", peer.addr.is_some())),
            ("certs", certificates.to_string()),
        ]
    };
    let routes = tonic::service::Routes::from(Router::new().route("/peer", get(peer)));
    let serving = server(&Settings::default())
        .add_routes(routes)
        .serve_with_incoming(listener.incoming());
    tokio::spawn(async move { serving.await.unwrap() })
}

async fn ask(channel: &Channel) -> Result<Response<Body>, tonic::transport::Error> {
    let request = Request::get("http://x/peer").body(Body::empty()).unwrap();
    channel.clone().oneshot(request).await
}

async fn peer_seen(channel: &Channel) -> (String, String) {
    let response = ask(channel).await.unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    (header("addr"), header("certs"))
}

fn seen(addr: &str, certs: &str) -> (String, String) {
    (addr.into(), certs.into())
}

async fn tcp() -> (Listener, Address) {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, address)
}

#[test]
fn addresses_print_as_they_are_read_and_are_ordered_by_that() {
    let texts = [
        "10.0.0.1:4000",
        "[::1]:4000",
        "origin-0.origin:4000",
        "unix:/run/a.sock",
    ];
    let addresses: Vec<Address> = texts.iter().map(|text| text.parse().unwrap()).collect();
    assert!(addresses.is_sorted());
    for (address, text) in addresses.iter().zip(texts) {
        assert_eq!(address.to_string(), text);
    }
    assert_eq!(addresses[1].host(), "::1");
    assert_eq!(addresses[2].host(), "origin-0.origin");
    for bad in [
        "",
        "origin",
        ":4000",
        "origin:",
        "origin:70000",
        "::1:4000",
        "a b:1",
        "unix:",
    ] {
        let refused = bad.parse::<Address>().expect_err(bad);
        assert!(
            refused.to_string().contains("expected host:port"),
            "{refused}"
        );
    }
}

#[test]
fn settings_that_http_2_forbids_are_refused_by_name() {
    assert_eq!(Settings::default().validate(), Ok(()));
    let refused = |change: fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.validate().expect_err("it is refused").key
    };
    assert_eq!(refused(|s| s.frame_size = 16_383), "frame_size");
    assert_eq!(refused(|s| s.frame_size = 1 << 24), "frame_size");
    assert_eq!(refused(|s| s.stream_window = 1 << 31), "stream_window");
    assert_eq!(
        refused(|s| s.connection_window = 1 << 20),
        "connection_window"
    );
    assert_eq!(
        refused(|s| s.ping_interval = Duration::ZERO),
        "ping_interval"
    );
}

#[tokio::test]
async fn a_link_runs_over_tcp_and_the_server_sees_the_peer() {
    let (listener, address) = tcp().await;
    assert_eq!(listener.to_string(), address.to_string());
    let serving = serve(listener);
    let channel = dial(&address, &Settings::default(), None).await.unwrap();
    assert_eq!(peer_seen(&channel).await, seen("true", "0"));
    serving.abort();
}

#[tokio::test]
async fn both_ends_of_a_tcp_link_send_without_delay() {
    let (listener, address) = tcp().await;
    let mut incoming = listener.incoming();
    let ours = Dialler::new(&address, None).unwrap().dial().await.unwrap();
    let theirs = incoming.next().await.unwrap().unwrap();
    assert!(ours.tcp_ref().unwrap().nodelay().unwrap());
    assert!(theirs.tcp_ref().unwrap().nodelay().unwrap());
}

#[tokio::test]
async fn an_in_process_link_is_dialled_many_times() {
    let (address, listener) = duplex("origin-0");
    assert_eq!(address.to_string(), "duplex:origin-0");
    let serving = serve(Listener::duplex(listener));
    let mut channels = Vec::new();
    for _ in 0..10 {
        channels.push(dial(&address, &Settings::default(), None).await.unwrap());
    }
    for channel in &channels {
        assert_eq!(peer_seen(channel).await, seen("false", "0"));
    }
    serving.abort();
    let _ = serving.await;
    // The listener goes with the task that the server owned.
    while let Address::Duplex(duplex) = &address
        && duplex.dial().await.is_ok()
    {
        tokio::task::yield_now().await;
    }
    let refused = dial(&address, &Settings::default(), None)
        .await
        .expect_err("nobody serves");
    assert_eq!(refused.to_string(), "cannot connect to duplex:origin-0");
    assert!(
        chain(&refused).contains("nobody serves duplex:origin-0"),
        "{}",
        chain(&refused)
    );
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn a_channel_recovers_when_its_server_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let address: Address = format!("unix:{}", dir.path().join("origin").display())
        .parse()
        .unwrap();
    let channel = connect(&address, &Settings::default()).unwrap();
    assert!(ask(&channel).await.is_err(), "nobody listens");
    let serving = serve(Listener::bind(&address).await.unwrap());
    assert_eq!(peer_seen(&channel).await, seen("false", "0"));
    // As after kill -9, the file stays behind.
    let Address::Unix(path) = &address else {
        unreachable!()
    };
    serving.abort();
    let _ = serving.await;
    let (stale, dead) = (
        dir.path().join("stale"),
        Listener::unix(dir.path().join("stale")),
    );
    let dead = dead.await.unwrap();
    std::fs::rename(&stale, path).unwrap();
    drop(dead);
    assert!(path.exists());
    let serving = serve(Listener::bind(&address).await.unwrap());
    while ask(&channel).await.is_err() {
        tokio::task::yield_now().await;
    }
    serving.abort();
}

#[tokio::test]
async fn a_socket_that_somebody_serves_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("origin");
    let first = Listener::unix(&path).await.unwrap();
    let refused = Listener::unix(&path).await.expect_err("it is in use");
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    drop(first);
    assert!(!path.exists());
    std::fs::write(&path, "not a socket").unwrap();
    assert!(Listener::unix(&path).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"not a socket");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_noticed_by_the_ping() {
    let (address, mut listener) = duplex("silent");
    let silent = tokio::spawn(async move { listener.dials.recv().await });
    let settings = Settings::default();
    let channel = dial(&address, &settings, None).await.unwrap();
    let _held = silent.await.unwrap().unwrap();
    let asked = tokio::time::Instant::now();
    assert!(ask(&channel).await.is_err());
    let noticed = settings.ping_interval + settings.ping_timeout;
    assert!(
        asked.elapsed() <= noticed + Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
}

/// A root of trust that signs certificates and puts them into files.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn roots(&self) -> rustls::RootCertStore {
        tls::roots_from_pem(Path::new("ca.pem"), self.0.pem().as_bytes()).unwrap()
    }

    fn sign(&self, dir: &Path, name: &str) -> Files {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        let files = Files {
            cert: dir.join("tls.crt"),
            key: dir.join("tls.key"),
        };
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(&files.cert, cert.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

fn client(authority: &Authority, identity: Option<&Arc<Identity>>, name: &str) -> ClientTls {
    let config = tls::client_config(authority.roots(), identity, &[tls::ALPN_H2]).unwrap();
    ClientTls {
        config,
        server_name: Some(name.into()),
    }
}

#[tokio::test]
async fn with_certificates_on_both_sides_strangers_are_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, strangers) = (Authority::new(), Authority::new());
    let origin = Identity::from_files(ours.sign(&dir.path().join("origin"), "origin")).unwrap();
    let edge = Identity::from_files(ours.sign(&dir.path().join("edge"), "edge")).unwrap();
    let stranger =
        Identity::from_files(strangers.sign(&dir.path().join("stranger"), "edge")).unwrap();

    let clients = Clients::SignedBy(Arc::new(ours.roots()));
    let config = tls::server_config(&origin, clients, &[tls::ALPN_H2]).unwrap();
    let (listener, address) = tcp().await;
    let serving = serve(listener.with_tls(config));
    let settings = Settings::default();

    let known = client(&ours, Some(&edge), "origin");
    let channel = dial(&address, &settings, Some(&known)).await.unwrap();
    assert_eq!(peer_seen(&channel).await, seen("true", "1"));

    for kept_out in [
        client(&ours, None, "origin"),
        client(&ours, Some(&stranger), "origin"),
        client(&ours, Some(&edge), "another-name"),
        client(&strangers, Some(&edge), "origin"),
    ] {
        // TLS 1.3 lets a client finish before the server has looked at its certificate.
        match dial(&address, &settings, Some(&kept_out)).await {
            Ok(channel) => assert!(ask(&channel).await.is_err()),
            Err(error) => assert!(matches!(error, Error::Unreachable { .. })),
        }
    }
    assert!(
        ask(&connect(&address, &settings).unwrap()).await.is_err(),
        "in the clear"
    );
    // None of that disturbed the one who may come in.
    assert_eq!(peer_seen(&channel).await, seen("true", "1"));
    serving.abort();
}

#[tokio::test]
async fn a_certificate_that_is_replaced_serves_the_next_link() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let origin = Identity::from_files(old.sign(dir.path(), "origin")).unwrap();
    let config = tls::server_config(&origin, Clients::Anyone, &[tls::ALPN_H2]).unwrap();
    let (listener, address) = tcp().await;
    let serving = serve(listener.with_tls(config));
    let settings = Settings::default();
    let trusts = |authority| client(authority, None, "origin");

    let channel = dial(&address, &settings, Some(&trusts(&old)))
        .await
        .unwrap();
    assert!(
        dial(&address, &settings, Some(&trusts(&new)))
            .await
            .is_err()
    );
    new.sign(dir.path(), "origin");
    assert!(matches!(origin.check(), Outcome::Replaced));
    assert!(
        dial(&address, &settings, Some(&trusts(&old)))
            .await
            .is_err()
    );
    assert!(dial(&address, &settings, Some(&trusts(&new))).await.is_ok());
    assert_eq!(
        peer_seen(&channel).await,
        seen("true", "0"),
        "the old link lives on"
    );
    serving.abort();
}

#[tokio::test]
async fn a_silent_handshake_keeps_nobody_waiting() {
    let identity = Identity::for_development().unwrap();
    let config = tls::server_config(&identity, Clients::Anyone, &[tls::ALPN_H2]).unwrap();
    let (listener, address) = tcp().await;
    let addr = listener.local_addr().unwrap();
    let serving = serve(listener.with_tls(config));
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let pem = identity.certificate_pem();
    let roots = tls::roots_from_pem(Path::new("dev.pem"), pem.as_bytes()).unwrap();
    let config = tls::client_config(roots, None, &[tls::ALPN_H2]).unwrap();
    // The name comes from the address, which the development certificate bears.
    let tls = ClientTls {
        config,
        server_name: None,
    };
    let channel = dial(&address, &Settings::default(), Some(&tls))
        .await
        .unwrap();
    assert_eq!(peer_seen(&channel).await, seen("true", "0"));
    serving.abort();
}

#[tokio::test]
async fn a_server_name_that_is_none_is_refused_before_anything_is_dialled() {
    let roots = rustls::RootCertStore::empty();
    let config = tls::client_config(roots, None, &[]).unwrap();
    let tls = ClientTls {
        config,
        server_name: Some("not a name".into()),
    };
    let address = "origin:1".parse().unwrap();
    let refused = connect_tls(&address, &Settings::default(), Some(&tls)).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "\"not a name\" cannot be the name of a TLS server"
    );
}
