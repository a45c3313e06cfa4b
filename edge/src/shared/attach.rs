//! The way to the replicated log: one stream to one origin at a time.
//!
//! All origins apply the same log, so any will do. An edge stays where it is; when the
//! stream breaks it goes to the next address, in an order of its own, so that edges spread
//! over the origins.

use std::time::Duration;

use bytes::Bytes;
use fabric::limits::{LEDGER_BATCH_BYTES, LEDGER_MESSAGES_MAX};
use fabric::v1::{self, shared_client::SharedClient};
use node::link::{Address, Settings};
use node::process::{Failure, chain};
use node::resolve::Addresses;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, debug, info, info_span};

use crate::link::LinkSetup;
use crate::route::preference;

/// A hung origin must be left before the leader counts the edge as lost (5 s by default), so
/// it is asked more often than a media link.
const PING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(1));

/// The first and the longest pause once every address has been tried.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));

/// An origin that does not take the stream within this does not serve it.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(2);

/// gRPC messages queued in front of HTTP/2. Short: what is behind them is still joined.
const OUT_QUEUE: usize = 4;

/// gRPC messages that were read and are not yet looked at.
const IN_QUEUE: usize = 4;

// A message of the ledger goes alone, or with others up to the batch.
const _: () = assert!(
    ledger::limits::MESSAGE_BYTES_MAX + 1024 <= fabric::GRPC_MESSAGE_MAX
        && LEDGER_BATCH_BYTES + LEDGER_MESSAGES_MAX * 16 <= fabric::GRPC_MESSAGE_MAX
);

/// What becomes of the way.
#[derive(Debug)]
pub(super) enum Way {
    /// The origin answers: say who we are.
    Open,
    /// The origin said this.
    Heard(Vec<Bytes>),
    /// The stream is over.
    Broken,
}

/// The way to the log.
pub(super) struct Attach {
    setup: LinkSetup,
    addresses: watch::Receiver<Addresses>,
    /// Which address of the order is tried, and how many have failed in a row.
    turn: usize,
    failed: usize,
    number: u64,
    current: Option<Current>,
    news: (mpsc::Sender<Numbered>, mpsc::Receiver<Numbered>),
}

/// An event of this attempt.
type Numbered = (u64, Event);

enum Event {
    Dialled(mpsc::Sender<v1::ToLedger>),
    Heard(Vec<Bytes>),
    Broken,
}

struct Current {
    task: JoinHandle<()>,
    out: Option<mpsc::Sender<v1::ToLedger>>,
}

impl Drop for Current {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Attach {
    pub(super) fn new(setup: LinkSetup, addresses: watch::Receiver<Addresses>) -> Self {
        Self {
            setup,
            addresses,
            turn: 0,
            failed: 0,
            number: 0,
            current: None,
            news: mpsc::channel(IN_QUEUE),
        }
    }

    /// Whether there is another origin to go to.
    pub(super) fn has_choice(&self) -> bool {
        self.addresses.borrow().len() > 1
    }

    /// Goes to the next origin.
    pub(super) fn next(&mut self) {
        self.turn += 1;
        self.failed += 1;
        self.current = None;
        self.dial();
    }

    /// Goes to an origin, unless it is there or on its way.
    pub(super) fn dial(&mut self) {
        if self.current.is_some() {
            return;
        }
        let addresses = self.addresses.borrow_and_update().clone();
        let mut order: Vec<_> = addresses.iter().collect();
        let edge = self.setup.edge.as_str();
        order.sort_by_key(|address| preference(edge, &address.to_string()));
        if order.is_empty() {
            return;
        }
        let address = order[self.turn % order.len()].clone();
        // Once around without a pause; then it is not this or that origin that is missing.
        let rounds = self.failed / order.len();
        let pause = match rounds {
            0 => Duration::ZERO,
            rounds => BACKOFF.0.saturating_mul(1 << rounds.min(8)).min(BACKOFF.1),
        };
        self.number += 1;
        let (number, news, setup) = (self.number, self.news.0.clone(), self.setup.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Err(error) = run(&setup, &address, number, &news).await {
                debug!(origin = %address, error = %chain(&*error), "not attached to the log");
            }
            let _ = news.send((number, Event::Broken)).await;
        });
        self.current = Some(Current { task, out: None });
    }

    /// What happens; sends `ready` meanwhile, as there is room. Cancel safe.
    pub(super) async fn happens(&mut self, ready: &mut Vec<Bytes>) -> Way {
        loop {
            self.send(ready);
            let Self {
                news,
                addresses,
                current,
                ..
            } = self;
            let out = current.as_ref().and_then(|current| current.out.as_ref());
            tokio::select! {
                Some((number, event)) = news.1.recv() => {
                    let Some(current) = self.current.as_mut().filter(|_| number == self.number)
                    else {
                        continue;
                    };
                    match event {
                        Event::Dialled(out) => {
                            current.out = Some(out);
                            return Way::Open;
                        }
                        Event::Heard(messages) => return Way::Heard(messages),
                        Event::Broken => return Way::Broken,
                    }
                }
                () = room(out), if !ready.is_empty() => {}
                Ok(()) = addresses.changed() => self.dial(),
            }
        }
    }

    /// It serves: the next break is not the failure of an address that never answered.
    pub(super) fn serves(&mut self) {
        self.failed = 0;
    }

    /// Sends what is ready and has room.
    fn send(&self, ready: &mut Vec<Bytes>) {
        let Some(out) = self
            .current
            .as_ref()
            .and_then(|current| current.out.as_ref())
        else {
            return;
        };
        while !ready.is_empty() {
            let Ok(room) = out.try_reserve() else {
                return;
            };
            let mut bytes = 0;
            let count = ready
                .iter()
                .take(LEDGER_MESSAGES_MAX)
                .take_while(|message| {
                    let before = bytes;
                    bytes += message.len();
                    before == 0 || bytes <= LEDGER_BATCH_BYTES
                })
                .count();
            let messages = ready.drain(..count).collect();
            room.send(v1::ToLedger { messages });
        }
    }
}

/// Resolves when one more message can be sent.
async fn room(out: Option<&mpsc::Sender<v1::ToLedger>>) {
    match out {
        Some(out) => match out.reserve().await {
            Ok(_permit) => {}
            // It is over, which is told on its own.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn run(
    setup: &LinkSetup,
    address: &Address,
    number: u64,
    news: &mpsc::Sender<Numbered>,
) -> Result<(), Failure> {
    let settings = Settings {
        ping_interval: PING.0,
        ping_timeout: PING.1,
        connect_timeout: ACCEPT_TIMEOUT,
        ..setup.settings.clone()
    };
    let channel = node::link::dial(address, &settings, setup.tls.as_ref()).await?;
    let mut client = SharedClient::new(setup.calls.timed(channel))
        .max_decoding_message_size(fabric::GRPC_MESSAGE_MAX)
        .max_encoding_message_size(fabric::GRPC_MESSAGE_MAX);
    let (out, outgoing) = mpsc::channel(OUT_QUEUE);
    news.send((number, Event::Dialled(out))).await?;
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    // From the question until the origin has taken it: an attachment that stands is no span.
    let span = info_span!("fabric.attach", otel.kind = "client", edge = %setup.edge, %address);
    span.in_scope(|| node::telemetry::inject(request.metadata_mut()));
    let mut incoming = tokio::time::timeout(ACCEPT_TIMEOUT, client.attach(request))
        .instrument(span)
        .await
        .map_err(|_| "the origin did not take the stream in time")??
        .into_inner();
    info!(%address, "attached to the log");
    while let Some(v1::ToReplica { messages }) = incoming.message().await? {
        news.send((number, Event::Heard(messages))).await?;
    }
    debug!(%address, "the origin ended the attachment");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::pin::Pin;
    use std::sync::Arc;

    use fabric::v1::shared_server::{Shared, SharedServer};
    use node::link::{ClientTls, Incoming, Listener, Mutual, Tls, duplex};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio_stream::Stream;
    use tonic::{Request, Response, Status, Streaming};

    use super::*;

    /// Says its name to whoever attaches, then what it heard, and ends when it hears `leave`.
    struct Echo(&'static str);

    #[tonic::async_trait]
    impl Shared for Echo {
        type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::ToReplica, Status>> + Send>>;

        async fn attach(
            &self,
            request: Request<Streaming<v1::ToLedger>>,
        ) -> Result<Response<Self::AttachStream>, Status> {
            if self.0 == "refusing" {
                return Err(Status::unavailable("not now"));
            }
            let (out, outgoing) = mpsc::channel(8);
            let name = self.0;
            let mut incoming = request.into_inner();
            tokio::spawn(async move {
                let say = |text: Bytes| {
                    Ok(v1::ToReplica {
                        messages: vec![text],
                    })
                };
                let _ = out.send(say(Bytes::from_static(name.as_bytes()))).await;
                while let Ok(Some(heard)) = incoming.message().await {
                    for message in heard.messages {
                        if &message[..] == b"leave" {
                            return;
                        }
                        let _ = out.send(say(message)).await;
                    }
                }
            });
            Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
        }
    }

    fn serve(name: &'static str) -> Address {
        let (address, listener) = duplex(name);
        let incoming: Incoming = Listener::duplex(listener).incoming();
        let server = node::link::server(&Settings::default())
            .add_service(SharedServer::new(Echo(name)))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        address
    }

    fn setup(tls: Option<ClientTls>) -> LinkSetup {
        LinkSetup {
            edge: model::EdgeId::new("edge-0").unwrap(),
            incarnation: 1,
            settings: Settings::default(),
            tls,
            calls: node::metrics::Calls::made(&node::metrics::Metrics::new("edge", "edge-0")),
            load: watch::channel(fabric::v1::Load::default()).1,
        }
    }

    fn attach(addresses: &[Address]) -> (Attach, watch::Sender<Addresses>) {
        let addresses: BTreeSet<_> = addresses.iter().cloned().collect();
        let (sender, receiver) = watch::channel(Arc::new(addresses));
        (Attach::new(setup(None), receiver), sender)
    }

    async fn heard(attach: &mut Attach, ready: &mut Vec<Bytes>) -> String {
        loop {
            match attach.happens(ready).await {
                Way::Open => {}
                Way::Broken => attach.next(),
                Way::Heard(messages) => {
                    return String::from_utf8_lossy(&messages.concat()).into_owned();
                }
            }
        }
    }

    #[tokio::test]
    async fn it_stays_with_one_origin_and_goes_to_another_when_that_leaves() {
        let (mut attach, _addresses) = attach(&[serve("a"), serve("b"), serve("refusing")]);
        let mut ready = Vec::new();
        attach.dial();
        let first = heard(&mut attach, &mut ready).await;
        ready.push(Bytes::from_static(b"one"));
        assert_eq!(heard(&mut attach, &mut ready).await, "one");
        ready.push(Bytes::from_static(b"leave"));
        let second = heard(&mut attach, &mut ready).await;
        assert_ne!(first, second);
        assert!(["a", "b"].contains(&second.as_str()), "{second}");
        ready.push(Bytes::from_static(b"leave"));
        assert_eq!(heard(&mut attach, &mut ready).await, first);
    }

    /// What a node loads whose certificate `authority` has signed, and that trusts `roots`.
    fn certified(
        authority: &CertifiedIssuer<'static, KeyPair>,
        roots: &CertifiedIssuer<'static, KeyPair>,
    ) -> Mutual {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let files = Tls {
            cert: write("tls.crt", params.signed_by(&key, authority).unwrap().pem()),
            key: write("tls.key", key.serialize_pem()),
            ca: write("ca.crt", roots.pem()),
            name: None,
        };
        files.load().unwrap().unwrap()
    }

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn an_origin_takes_an_edge_with_the_right_certificate_and_no_other() {
        let (ours, theirs) = (authority(), authority());
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let incoming = listener.with_tls(certified(&ours, &ours).server).incoming();
        let server = node::link::server(&Settings::default())
            .add_service(SharedServer::new(Echo("a")))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        for (tls, why) in [
            (Some(certified(&theirs, &ours).client), ""),
            (
                Some(certified(&ours, &theirs).client),
                "invalid peer certificate",
            ),
            (None, ""),
        ] {
            let (news, _heard) = mpsc::channel(IN_QUEUE);
            let error = run(&setup(tls), &address, 1, &news).await.unwrap_err();
            let error = chain(&*error);
            assert!(error.contains(why), "{error}");
        }
        let addresses: BTreeSet<_> = [address].into();
        let (_addresses, receiver) = watch::channel(Arc::new(addresses));
        let right = setup(Some(certified(&ours, &ours).client));
        let mut attach = Attach::new(right, receiver);
        attach.dial();
        assert_eq!(heard(&mut attach, &mut Vec::new()).await, "a");
    }

    #[tokio::test]
    async fn what_is_ready_leaves_together_and_in_order() {
        let (mut attach, _addresses) = attach(&[serve("a")]);
        let mut ready = Vec::new();
        attach.dial();
        assert_eq!(heard(&mut attach, &mut ready).await, "a");
        let mut expected = String::new();
        for number in 0..10_000 {
            let text = format!("{number} ");
            expected.push_str(&text);
            ready.push(text.into());
        }
        let mut all = String::new();
        while all.len() < expected.len() {
            all.push_str(&heard(&mut attach, &mut ready).await);
        }
        assert_eq!(all, expected);
    }

    #[test]
    fn edges_spread_over_the_origins() {
        let origins = ["origin-0:1", "origin-1:1", "origin-2:1"];
        let mut counts = [0; 3];
        for edge in 0..300 {
            let edge = format!("edge-{edge}");
            let first = (0..3)
                .min_by_key(|n| preference(&edge, origins[*n]))
                .unwrap();
            counts[first] += 1;
        }
        assert!(counts.iter().all(|n| (70..130).contains(n)), "{counts:?}");
    }
}
