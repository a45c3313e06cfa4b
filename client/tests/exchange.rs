//! Player and publisher against a server session, over pipes and over TLS.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test looks for the one variant it expects, and its helpers fail loudly"
)]

mod server;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Connection, Error, Item, Options, PlayRequest, PublishMode, Status, Target, Trust};
use model::{Class, Frame, Kind, MediaTime};
use rtmp::{Message, MessageKind};
use selvage_client as client;
use session::{Event, Notice, Refusal, Reply};
use tokio::io::{DuplexStream, duplex};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use self::server::{Server, request_of};

fn target() -> Target {
    "rtmp://h/live/room/a".parse().unwrap()
}

fn pair() -> (Box<DuplexStream>, Server<DuplexStream>) {
    let (near, far) = duplex(64 * 1024);
    (Box::new(near), Server::new(far))
}

#[tokio::test]
async fn what_is_published_arrives_and_the_goodbye_too() {
    let (io, mut server) = pair();
    let publisher = async {
        let connection = Connection::over(io, &target(), &Options::publisher()).await?;
        let mut publisher = connection.publish("a?k=v", PublishMode::Live).await?;
        let key = Bytes::from_static(&[0x17, 1, 0, 0, 0, 1, 2, 3]);
        publisher.send(MessageKind::Video, 40, key).await?;
        publisher
            .send(MessageKind::Audio, 41, Bytes::from(vec![0xaf; 100_000]))
            .await?;
        publisher.close().await
    };
    let server = async {
        let (request, stream) = request_of(server.welcome().await);
        server.reply(request, Reply::Accept);
        let mut seen = Vec::new();
        while let Some(event) = server.event().await {
            match event {
                Event::Frame { frame, .. } => seen.push(frame),
                Event::Finished { stream: over } => assert_eq!(over, stream),
                other => panic!("{other:?}"),
            }
        }
        seen
    };
    let (published, seen): (Result<(), Error>, Vec<Frame>) = tokio::join!(publisher, server);
    published.unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|f| (f.kind, f.class, f.time, f.payload.len()))
        .collect();
    assert_eq!(
        seen,
        [
            (Kind::Video, Class::Key, MediaTime(40), 8),
            (Kind::Audio, Class::Audio, MediaTime(41), 100_000),
        ]
    );
}

#[tokio::test]
async fn a_taken_name_is_an_error_that_says_so() {
    let (io, mut server) = pair();
    let publisher = async {
        let connection = Connection::over(io, &target(), &Options::publisher()).await?;
        connection.publish("a", PublishMode::Live).await
    };
    let server = async {
        let (request, _) = request_of(server.welcome().await);
        server.reply(request, Reply::Refuse(Refusal::BadName));
        while server.event().await.is_some() {}
    };
    let (published, ()) = tokio::join!(publisher, server);
    let error = published.map(drop).unwrap_err();
    assert_eq!(error.code(), Some("NetStream.Publish.BadName"));
    assert_eq!(error.blame(), client::Blame::Stream);
}

#[tokio::test]
async fn a_publisher_learns_that_its_publish_was_taken_away() {
    let (io, mut server) = pair();
    let publisher = async {
        let connection = Connection::over(io, &target(), &Options::publisher()).await?;
        let mut publisher = connection.publish("a", PublishMode::Live).await?;
        publisher.idle().await
    };
    let server = async {
        let (request, stream) = request_of(server.welcome().await);
        server.reply(request, Reply::Accept);
        server
            .session
            .handle_notice(stream, Notice::Superseded, Instant::now());
        while server.event().await.is_some() {}
    };
    let (ended, ()) = tokio::join!(publisher, server);
    assert_eq!(
        ended.map(drop).unwrap_err().code(),
        Some("NetStream.Publish.BadName")
    );
}

#[tokio::test]
async fn a_player_sees_messages_statuses_and_the_end() {
    let (io, mut server) = pair();
    let payload = Bytes::from(vec![0x27; 70_000]);
    let player = async {
        let connection = Connection::over(io, &target(), &Options::player()).await?;
        let mut player = connection.play("a", PlayRequest::default()).await?;
        let mut items = Vec::new();
        while player.ended().is_none() {
            items.push(player.next().await?);
        }
        assert!(player.next_message().await?.is_none());
        player.close().await?;
        Ok::<_, Error>(items)
    };
    let server = async {
        let stream = server.accept().await;
        let kind = MessageKind::Video;
        server.carrier.write_message(&Message {
            kind,
            stream,
            time: 7,
            payload: payload.clone(),
        });
        server
            .session
            .handle_notice(stream, Notice::Unpublished, Instant::now());
        server
            .session
            .handle_notice(stream, Notice::Complete, Instant::now());
        while server.event().await.is_some() {}
    };
    let (items, ()) = tokio::join!(player, server);
    let items = items.unwrap();
    let video = items
        .iter()
        .find_map(|item| match item {
            Item::Message(arrival) if arrival.message.kind == MessageKind::Video => Some(arrival),
            _ => None,
        })
        .unwrap();
    assert_eq!((video.message.time, &video.message.payload), (7, &payload));
    let told = |code: &str| {
        items
            .iter()
            .any(|item| matches!(item, Item::Status(s) if is(s, code)))
    };
    assert!(told("NetStream.Play.UnpublishNotify"), "{items:?}");
    assert!(
        matches!(items.last(), Some(Item::Ended(client::Ended::Complete))),
        "{items:?}"
    );
}

fn is(status: &Status, code: &str) -> bool {
    status.code == code
}

#[tokio::test(start_paused = true)]
async fn a_publisher_waits_for_a_server_that_does_not_read() {
    let (io, mut server) = pair();
    let publisher = async {
        let connection = Connection::over(io, &target(), &Options::publisher())
            .await
            .unwrap();
        connection.publish("a", PublishMode::Live).await.unwrap()
    };
    let accepting = async {
        server.accept().await;
    };
    let (mut publisher, ()) = tokio::join!(publisher, accepting);
    let body = Bytes::from(vec![0; 10_000]);
    let mut sent = 0;
    let waited = loop {
        let sending = publisher.send(MessageKind::Video, 0, body.clone());
        // The clock is virtual: it moves only when nothing else can.
        match tokio::time::timeout(Duration::from_secs(1), sending).await {
            Ok(result) => result.unwrap(),
            Err(elapsed) => break elapsed,
        }
        sent += 1;
        assert!(sent < 1000, "it never waits");
    };
    let _ = waited;
    // What the pipe takes, and the bound.
    assert!((15..30).contains(&sent), "{sent}");
    assert!(publisher.connection().unsent() < client::limits::UNSENT_MAX + 11_000);
    publisher.close_abruptly();
}

#[tokio::test]
async fn a_server_that_goes_away_is_noticed() {
    let (io, server) = pair();
    drop(server);
    let error = Connection::over(io, &target(), &Options::player())
        .await
        .unwrap_err();
    assert_eq!(error.blame(), client::Blame::Interruption, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let (io, _server) = pair();
    let options = Options::player().with_patience(Duration::from_secs(3));
    let error = Connection::over(io, &target(), &options).await.unwrap_err();
    assert_eq!(error.blame(), client::Blame::Connection, "{error:?}");
}

/// A TLS listener on the loopback with a certificate of its own making; serves one client.
async fn tls_server() -> (u16, String) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        if let Ok(tls) = acceptor.accept(tcp).await {
            let mut server = Server::new(tls);
            let _ = pin!(server.welcome()).await;
        }
    });
    (port, signed.cert.pem())
}

/// A file that goes when the test does.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let file = format!("selvage-client-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn open_tls(trust: impl FnOnce(String) -> Trust) -> Result<(), Error> {
    let (port, certificate) = tls_server().await;
    let target: Target = format!("rtmps://localhost:{port}/live/a").parse().unwrap();
    let options = Options {
        trust: trust(certificate),
        ..Options::player()
    };
    Connection::open(&target, &options)
        .await
        .map(Connection::close_abruptly)
}

#[tokio::test]
async fn a_self_signed_certificate_needs_consent() {
    let error = open_tls(|_| Trust::WellKnown).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert_eq!(error.blame(), client::Blame::Connection);
    open_tls(|_| Trust::Anything).await.unwrap();
}

#[tokio::test]
async fn an_authority_from_a_file_is_trusted() {
    let mut file = None;
    open_tls(|pem| {
        let scratch = file.insert(Scratch::new("ca.pem", &pem));
        Trust::File(scratch.0.clone())
    })
    .await
    .unwrap();
    let empty = Scratch::new("empty.pem", "");
    let error = open_tls(|_| Trust::File(empty.0.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.blame(), client::Blame::Caller, "{error:?}");
}
