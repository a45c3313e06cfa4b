//! Origins of one cluster in this process, and an edge that speaks the wire.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use fabric::v1::cluster_client::ClusterClient;
use fabric::v1::shared_client::SharedClient;
use fabric::v1::{ClusterStatus, StatusRequest, ToLedger, ToReplica};
use ledger::wire::{ToEdge, ToOrigin};
use ledger::{Answer, Command, Effect, LogName, Proposal, Request};
use model::{
    AppInstance, AppName, EdgeId, EdgeLife, InstanceName, LogIndex, NodeId, SessionId, StreamKey,
    StreamName, VhostName,
};
use node::link::{Address, Listener, Settings};
use node::resolve::Entry;
use node::shutdown::Drain;
use selvage_origin::log::{Crash, Ram};
use selvage_origin::{Config, Origin, Parts, RunError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

type Running = (JoinHandle<Result<(), RunError>>, Drain);

pub(crate) struct Cluster {
    pub(crate) disks: Vec<Ram>,
    addresses: Vec<SocketAddr>,
    founders: BTreeMap<NodeId, Address>,
    running: Vec<Option<Running>>,
    change: fn(&mut Config),
}

impl Cluster {
    pub(crate) async fn start(origins: usize) -> Self {
        Self::with(origins, |_| {}).await
    }

    pub(crate) async fn with(origins: usize, change: fn(&mut Config)) -> Self {
        let (mut cluster, listeners) = Self::planned(origins, change).await;
        for (index, listener) in listeners.into_iter().enumerate() {
            cluster.spawn(index, listener, Vec::new());
        }
        cluster.leader().await;
        cluster
    }

    /// Founders that do not run yet, and where each will listen.
    pub(crate) async fn planned(origins: usize, change: fn(&mut Config)) -> (Self, Vec<Listener>) {
        let mut listeners = Vec::new();
        for _ in 0..origins {
            listeners.push(listen(0).await);
        }
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let founders = addresses
            .iter()
            .zip(1..)
            .map(|(addr, number)| (node_id(number), address(*addr)))
            .collect();
        let mut cluster = Self {
            disks: Vec::new(),
            addresses,
            founders,
            running: Vec::new(),
            change,
        };
        for _ in &listeners {
            cluster.disks.push(Ram::new());
            cluster.running.push(None);
        }
        (cluster, listeners)
    }

    /// Changes what those that start from now on take for the founders.
    pub(crate) fn founders(&mut self) -> &mut BTreeMap<NodeId, Address> {
        &mut self.founders
    }

    /// Waits until an origin without a cluster says that it waits for this.
    pub(crate) async fn until_waiting(&self, index: usize, why: &str) {
        within(async {
            loop {
                let mut client = ClusterClient::new(self.channel(index));
                if let Ok(status) = client.status(StatusRequest::default()).await
                    && status.get_ref().waiting.contains(why)
                {
                    return;
                }
                breathe().await;
            }
        })
        .await;
    }

    pub(crate) fn spawn(&mut self, index: usize, listener: Listener, join: Vec<Address>) {
        let founder = join.is_empty() && self.founders.contains_key(&node_id(index as u64 + 1));
        let founders = match founder {
            true => self.founders.clone(),
            false => BTreeMap::new(),
        };
        self.spawn_told(index, listener, founders, join);
    }

    fn spawn_told(
        &mut self,
        index: usize,
        listener: Listener,
        founders: BTreeMap<NodeId, Address>,
        join: Vec<Address>,
    ) {
        let mut config = Config {
            id: format!("origin-{index}"),
            drain_grace: Duration::from_millis(100),
            ..Config::default()
        };
        (self.change)(&mut config);
        let parts = Parts {
            listener,
            founders,
            join: join.into_iter().map(Entry::from).collect(),
            disk: Box::new(self.disks[index].clone()),
        };
        let origin = Origin::compose(config, parts).unwrap();
        let drain = Drain::new();
        let task = tokio::spawn(origin.run(drain.clone()));
        self.running[index] = Some((task, drain));
    }

    /// Ends it at once; its disk loses what was not synced.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some((task, _)) = self.running[index].take() {
            task.abort();
        }
        self.disks[index] = self.disks[index].crash(Crash::Keeps(0));
    }

    pub(crate) async fn restart(&mut self, index: usize) {
        let listener = self.listen_again(index).await;
        self.spawn(index, listener, Vec::new());
    }

    /// Starts one as all of them are configured where one configuration serves all: the first
    /// is the founder, and everybody is told of everybody.
    pub(crate) async fn start_alike(&mut self, index: usize) {
        let listener = self.listen_again(index).await;
        let founders = BTreeMap::from([(node_id(1), address(self.addresses[0]))]);
        let join = self.addresses.iter().copied().map(address).collect();
        self.spawn_told(index, listener, founders, join);
    }

    async fn listen_again(&self, index: usize) -> Listener {
        within(async {
            loop {
                match Listener::tcp(self.addresses[index]).await {
                    Ok(listener) => return listener,
                    Err(_) => breathe().await,
                }
            }
        })
        .await
    }

    /// One more origin, which is told of the first.
    pub(crate) async fn join(&mut self) {
        let listener = listen(0).await;
        self.addresses.push(listener.local_addr().unwrap());
        self.disks.push(Ram::new());
        self.running.push(None);
        let join = vec![address(self.addresses[0])];
        self.spawn(self.addresses.len() - 1, listener, join);
    }

    /// Tells it to end, and waits until it has.
    pub(crate) async fn leave(&mut self, index: usize) {
        if let Some((task, drain)) = self.running[index].take() {
            drain.start();
            within(task).await.unwrap().unwrap();
        }
    }

    pub(crate) async fn ended(&mut self, index: usize) -> Result<(), RunError> {
        let (task, _) = self.running[index].take().unwrap();
        within(task).await.unwrap()
    }

    pub(crate) async fn status(&self, index: usize) -> Option<ClusterStatus> {
        self.running[index].as_ref()?;
        let mut client = ClusterClient::new(self.channel(index));
        let request = StatusRequest { digest: true };
        let status = client.status(request).await.ok()?.into_inner();
        (!status.blank).then_some(status)
    }

    /// What is told to those who do not ask for a digest.
    pub(crate) async fn plain_status(&self, index: usize) -> ClusterStatus {
        let mut client = ClusterClient::new(self.channel(index));
        let request = StatusRequest::default();
        within(client.status(request)).await.unwrap().into_inner()
    }

    async fn statuses(&self) -> Vec<Option<ClusterStatus>> {
        let mut statuses = Vec::new();
        for index in 0..self.running.len() {
            statuses.push(self.status(index).await);
        }
        statuses
    }

    /// Which of those that run leads, once all of them agree.
    pub(crate) async fn leader(&self) -> usize {
        self.until(|statuses| {
            let leader = statuses.iter().flatten().next()?.leader;
            let agreed = statuses
                .iter()
                .flatten()
                .all(|status| status.leader == leader);
            let is_leader = |status: &Option<ClusterStatus>| {
                status.as_ref().is_some_and(|status| status.node == leader)
            };
            statuses.iter().position(is_leader).filter(|_| agreed)
        })
        .await
    }

    pub(crate) async fn until_voters(&self, count: usize) {
        self.until(|statuses| {
            let voters = |status: &ClusterStatus| status.members.iter().filter(|m| m.voter).count();
            let all = statuses
                .iter()
                .flatten()
                .all(|status| voters(status) == count);
            all.then_some(())
        })
        .await;
    }

    /// Waits until all that run say that just these are members, and that each votes.
    pub(crate) async fn until_voting(&self, nodes: &[u64]) {
        self.until(|statuses| {
            let just = |status: &ClusterStatus| {
                let members = status.members.iter();
                members.clone().all(|member| member.voter)
                    && members.map(|member| member.node).eq(nodes.iter().copied())
            };
            let running = self.running.iter().flatten().count();
            let told = statuses.iter().flatten().filter(|status| just(status));
            (told.count() == running).then_some(())
        })
        .await;
    }

    /// Waits until all have the same state.
    pub(crate) async fn agree(&self) {
        let running = self.running.iter().flatten().count();
        self.until(|statuses| {
            let mut all = statuses.iter().flatten();
            let first = all.next()?;
            let same = all
                .all(|status| (status.applied, &status.digest) == (first.applied, &first.digest));
            (same && statuses.iter().flatten().count() == running).then_some(())
        })
        .await;
    }

    async fn until<T>(&self, found: impl Fn(&[Option<ClusterStatus>]) -> Option<T>) -> T {
        let last = std::cell::RefCell::new(Vec::new());
        let looked = tokio::time::timeout(PATIENCE, async {
            loop {
                *last.borrow_mut() = self.statuses().await;
                let running = self.running.iter().flatten().count();
                let answered = last.borrow().iter().flatten().count();
                if running == answered
                    && let Some(found) = found(&last.borrow())
                {
                    return found;
                }
                breathe().await;
            }
        });
        match looked.await {
            Ok(found) => found,
            Err(_) => panic!("it never came about: {:#?}", last.borrow()),
        }
    }

    fn channel(&self, index: usize) -> Channel {
        node::link::connect(&address(self.addresses[index]), &Settings::default()).unwrap()
    }
}

/// An edge that is attached to one origin, and asks in one session.
pub(crate) struct Attached {
    life: EdgeLife,
    to: mpsc::UnboundedSender<ToLedger>,
    from: Streaming<ToReplica>,
    ahead: VecDeque<ToEdge>,
}

impl Attached {
    pub(crate) async fn new(cluster: &Cluster, origin: usize, name: &str) -> Self {
        let life = EdgeLife {
            edge: EdgeId::new(name).unwrap(),
            incarnation: 7,
        };
        // As an edge does, again until the origin takes part.
        let (to, from) = within(async {
            loop {
                let (to, asked) = mpsc::unbounded_channel();
                let mut client = SharedClient::new(cluster.channel(origin));
                match client.attach(UnboundedReceiverStream::new(asked)).await {
                    Ok(from) => break (to, from.into_inner()),
                    Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
                }
                breathe().await;
            }
        })
        .await;
        let mut edge = Self {
            life: life.clone(),
            to,
            from,
            ahead: VecDeque::new(),
        };
        edge.say(&ToOrigin::Attach {
            edge: life,
            log: LogName::default(),
            seen: LogIndex(0),
            objects: Vec::new(),
            streams: Vec::new(),
        });
        edge.until(|message| matches!(message, ToEdge::Attached { .. }).then_some(()))
            .await;
        edge
    }

    fn say(&self, message: &ToOrigin) {
        self.say_bytes(&message.encode());
    }

    pub(crate) fn say_bytes(&self, message: &[u8]) {
        let messages = vec![Bytes::copy_from_slice(message)];
        let _ = self.to.send(ToLedger { messages });
    }

    /// Asks until it is answered: what is on its way to a leader may be lost with it.
    pub(crate) async fn ask(&mut self, seq: u64, request: Request) -> Answer {
        let session = SessionId(u128::from(self.life.incarnation) << 64 | name_number(&self.life));
        let command = Command::Propose(Proposal {
            session,
            seq,
            edge: self.life.clone(),
            durable: false,
            trace: Bytes::new(),
            request,
        });
        let command = command.encode();
        within(async {
            loop {
                self.say(&ToOrigin::Propose(command.clone()));
                let answer = self.until(|message| {
                    let ToEdge::Applied(applied) = message else {
                        return None;
                    };
                    applied.effects.iter().find_map(|effect| match effect {
                        Effect::Answer {
                            session: to,
                            seq: of,
                            answer,
                            ..
                        } if *to == session && *of == seq => Some(answer.clone()),
                        _ => None,
                    })
                });
                match tokio::time::timeout(Duration::from_millis(500), answer).await {
                    Ok(answer) => return answer,
                    Err(_) => continue,
                }
            }
        })
        .await
    }

    /// Waits until it is told that the origin leaves: by a message, or by how the stream ends
    /// when the origin is gone before the message is read.
    pub(crate) async fn until_leaving(&mut self) {
        within(async {
            loop {
                if self
                    .ahead
                    .drain(..)
                    .any(|message| matches!(message, ToEdge::Leaving))
                {
                    return;
                }
                match self.from.message().await {
                    Ok(batch) => {
                        let messages = batch.expect("the stream goes on").messages.into_iter();
                        let messages = messages.map(|message| ToEdge::decode(message).unwrap());
                        self.ahead.extend(messages);
                    }
                    Err(status) => {
                        assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
                        assert!(status.message().contains("is leaving"), "{status}");
                        return;
                    }
                }
            }
        })
        .await;
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> tonic::Code {
        within(async {
            loop {
                match self.from.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return tonic::Code::Ok,
                    Err(status) => return status.code(),
                }
            }
        })
        .await
    }

    async fn until<T>(&mut self, found: impl Fn(&ToEdge) -> Option<T>) -> T {
        within(async {
            loop {
                while let Some(message) = self.ahead.pop_front() {
                    if let Some(found) = found(&message) {
                        return found;
                    }
                }
                let batch = self
                    .from
                    .message()
                    .await
                    .unwrap()
                    .expect("the stream goes on");
                for message in batch.messages {
                    self.ahead.push_back(ToEdge::decode(message).unwrap());
                }
            }
        })
        .await
    }
}

pub(crate) fn stream(name: &str) -> StreamKey {
    StreamKey {
        at: AppInstance {
            vhost: VhostName::new("_defaultVHost_").unwrap(),
            app: AppName::new("live").unwrap(),
            instance: InstanceName::new("_definst_").unwrap(),
        },
        name: StreamName::new(name).unwrap(),
    }
}

fn name_number(life: &EdgeLife) -> u128 {
    life.edge.as_str().bytes().map(u128::from).sum()
}

pub(crate) fn node_id(number: u64) -> NodeId {
    NodeId(NonZeroU64::new(number).unwrap())
}

fn address(addr: SocketAddr) -> Address {
    addr.to_string().parse().unwrap()
}

async fn listen(port: u16) -> Listener {
    Listener::tcp((Ipv4Addr::LOCALHOST, port).into())
        .await
        .unwrap()
}

async fn breathe() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

async fn within<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it takes too long")
}
