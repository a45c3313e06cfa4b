//! A shard: one thread with its own reactor, and the connections that live on it.
//!
//! Everything of a connection (socket, session, cursors) is touched by its shard's
//! thread alone, so nothing of it is locked. The rest of the edge speaks to a shard by
//! messages.

mod inbox;
mod objects;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledger::replica::SubscriberId;
use model::{SessionId, StreamKey};
use node::telemetry::SpanPlace;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio::time::Instant;
use tracing::error;

pub(crate) use self::inbox::{ShardHandle, Standing, ToShard};
use crate::accept::Accepted;
use crate::channel::{Change, ChannelId};
use crate::connection::{self, Connection};
use crate::datagram::{Door, Guest, Handshakes};
use crate::follow::{Chooser, Tracing};
use crate::limits::{INBOX_BATCH, STRAYS_MAX};
use crate::metrics::{Counts, Figures};
use crate::peers;
use crate::play::LocalChannel;
use crate::shared;
use crate::traces::Fanout;
use crate::upstream::{Ask, sleep_until};

/// One publish of one client of this edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PublicationId(pub u64);

/// How connections behave.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long what arrives may wait for more, before viewers are written to.
    pub(crate) coalesce: Duration,
    /// Chunk size towards clients.
    pub(crate) chunk_size: u32,
    /// How long a publish is kept while no origin holds it.
    pub(crate) publish_keep: Duration,
    /// How long a client waits for the right to publish.
    pub(crate) publish_wait: Duration,
    /// How long a publisher may be silent when somebody else wants its name.
    pub(crate) publish_timeout: Duration,
    /// Streams that may be published, and that may be watched, on one shard.
    pub(crate) streams: usize,
    /// SharedObjects.
    pub(crate) objects: Arc<crate::config::Objects>,
    /// What clients that come by datagrams must bring, if anything.
    pub(crate) developer_key: Option<Arc<node::config::Secret>>,
    /// Session timeouts and limits.
    pub(crate) session: session::ServerSetup,
    /// Whether clients may say which trace they belong to.
    pub(crate) trace_clients: bool,
    /// What is counted.
    pub(crate) figures: Figures,
    /// Which frames are traced.
    pub(crate) tracing: Tracing,
}

/// A number of this edge begins with its shard's; so many bits are the shard's own.
pub(crate) const NUMBER_BITS: u32 = 48;

/// The ways to the edge's tasks.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    /// Which origin carries what.
    pub(crate) upstream: mpsc::UnboundedSender<Ask>,
    /// The replicated log.
    pub(crate) shared: shared::Handle,
    /// Who is where, of those who came by datagrams.
    pub(crate) peers: peers::Handle,
}

/// A shard's own state.
pub(crate) struct Shard {
    /// How others reach it.
    pub(crate) handle: ShardHandle,
    /// How connections behave.
    pub(crate) settings: Settings,
    /// The ways to the edge's tasks.
    pub(crate) ways: Ways,
    /// Where clients' sessions are drawn from: keyed by chance.
    chance: RandomState,
    /// Streams watched here.
    channels: RefCell<HashMap<StreamKey, Rc<LocalChannel>>>,
    joined: RefCell<HashMap<ChannelId, Rc<LocalChannel>>>,
    /// Publishes asked for or granted here.
    pub(crate) publications: RefCell<HashMap<PublicationId, Rc<Connection>>>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    /// Where clients come in by datagrams.
    door: Option<Rc<Door>>,
    /// All shards of the edge.
    others: RefCell<Vec<ShardHandle>>,
    draining: Cell<bool>,
    next: Cell<u64>,
    left: Notify,
    closing: Cell<bool>,
    walking: Cell<bool>,
    /// Clients that have been told of objects since they were last written to.
    touched: RefCell<Vec<Rc<Connection>>>,
    /// Spans of what they were told.
    telling: RefCell<Vec<Arc<Fanout>>>,
    leaving: RefCell<Vec<(Rc<LocalChannel>, Rc<Connection>)>>,
    /// What is counted here alone.
    pub(crate) counts: Counts,
    /// What a read is read into.
    pub(crate) read_buffer: RefCell<bytes::BytesMut>,
}

/// How clients come by datagrams.
pub(crate) struct Datagrams {
    /// Makes the door, in the shard's thread.
    pub(crate) door: Box<dyn FnOnce() -> Door + Send>,
    /// Its socket, bound.
    pub(crate) socket: std::net::UdpSocket,
}

/// Starts a shard's thread. It ends after [`ToShard::Close`], when every connection is
/// closed, and drops `alive` then.
///
/// # Errors
/// The thread or its reactor cannot be made.
pub(crate) fn start(
    index: usize,
    settings: Settings,
    ways: Ways,
    datagrams: Option<Datagrams>,
    alive: mpsc::Sender<()>,
) -> std::io::Result<(ShardHandle, std::thread::JoinHandle<()>)> {
    let (inbox, receiver) = mpsc::unbounded_channel();
    let handle = ShardHandle {
        index,
        inbox,
        load: Arc::default(),
        strays: Arc::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let own = handle.clone();
    let thread = std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            let (door, socket) = match datagrams {
                Some(Datagrams { door, socket }) => (Some(Rc::new(door())), Some(socket)),
                None => (None, None),
            };
            let counts = settings.figures.counts();
            let shard = Rc::new(Shard {
                handle: own,
                settings,
                ways,
                chance: RandomState::new(),
                channels: RefCell::default(),
                joined: RefCell::default(),
                publications: RefCell::default(),
                connections: RefCell::default(),
                door,
                others: RefCell::default(),
                draining: Cell::new(false),
                next: Cell::new(0),
                left: Notify::new(),
                closing: Cell::new(false),
                walking: Cell::new(false),
                touched: RefCell::default(),
                telling: RefCell::default(),
                leaving: RefCell::default(),
                counts,
                read_buffer: RefCell::default(),
            });
            let local = LocalSet::new();
            if let (Some(door), Some(socket)) = (shard.door.clone(), socket) {
                let shard = shard.clone();
                local.spawn_local(async move { door.run(socket, &shard).await });
            }
            local.block_on(&runtime, shard.run(receiver));
            drop(local);
            drop(alive);
        })?;
    Ok((handle, thread))
}

impl Shard {
    async fn run(self: Rc<Self>, mut inbox: mpsc::UnboundedReceiver<ToShard>) {
        let mut ready = Vec::with_capacity(INBOX_BATCH);
        let mut due: Vec<Rc<LocalChannel>> = Vec::new();
        let mut closing = false;
        loop {
            let flush_at = due
                .iter()
                .filter_map(|channel| channel.flush_at.get())
                .min();
            tokio::select! {
                biased;
                count = inbox.recv_many(&mut ready, INBOX_BATCH) => if count == 0 { return },
                () = sleep_until(flush_at) => {}
                () = self.empty(), if closing => return,
            }
            for message in ready.drain(..) {
                closing |= matches!(message, ToShard::Close);
                self.handle(message, &mut due);
            }
            self.write_touched();
            let now = Instant::now();
            due.retain(|channel| {
                if channel.flush_at.get().is_some_and(|at| at > now) {
                    return true;
                }
                channel.flush_at.set(None);
                if channel.is_to_be_followed() {
                    channel.walk_comes();
                }
                self.walk(channel, |viewer| viewer.pump_from_walk(&self));
                if let Some(delay) = channel.delay() {
                    self.counts.delivery.observe(delay);
                }
                false
            });
            // The clients' own tasks get their turn between two walks.
            tokio::task::yield_now().await;
        }
    }

    fn handle(self: &Rc<Self>, message: ToShard, due: &mut Vec<Rc<LocalChannel>>) {
        match message {
            ToShard::Accept(accepted) => self.accept(*accepted),
            ToShard::Datagram { from, mut bytes } => {
                self.handle.strays.fetch_sub(1, Ordering::Relaxed);
                if let Some(door) = &self.door {
                    door.handed_on(from, &mut bytes);
                }
            }
            ToShard::Others(others) => *self.others.borrow_mut() = others,
            ToShard::Joined {
                channel,
                key,
                backlog,
                publish,
            } => {
                // The last viewer may have left while the answer was under way.
                let Some(local) = self.channels.borrow().get(&key).cloned() else {
                    self.ask(Ask::Leave {
                        channel,
                        shard: self.handle.index,
                    });
                    return;
                };
                // A stream left and watched again before the first answer is answered twice.
                if local.id.get() == Some(channel) {
                    return;
                }
                local.joined(channel, *backlog);
                local.publish.set(publish);
                self.joined.borrow_mut().insert(channel, local.clone());
                due.push(local);
            }
            ToShard::Media {
                channel,
                items,
                traced,
                ingest_micros,
                credit: _credit,
            } => {
                let Some(local) = self.joined.borrow().get(&channel).cloned() else {
                    return;
                };
                let here = (self.handle.index, &self.settings.tracing);
                local.push(&items, traced, ingest_micros, here);
                if local.flush_at.get().is_none() {
                    local
                        .flush_at
                        .set(Some(Instant::now() + self.settings.coalesce));
                    due.push(local);
                }
            }
            ToShard::Source { channel, change } => {
                if let Some(local) = self.joined.borrow().get(&channel).cloned() {
                    self.walk(&local, |viewer| viewer.source_changed(self, &local, change));
                    if change == Change::Unpublished {
                        local.ended();
                    }
                }
            }
            ToShard::Notified {
                channel,
                publish,
                told,
            } => {
                if let Some(local) = self.joined.borrow().get(&channel) {
                    local.publish.set(publish);
                    if let Some(told) = told {
                        told.told(local.viewers(), 0);
                    }
                }
            }
            ToShard::Granted { publication, grant } => match self.publisher(publication) {
                Some(connection) => connection.granted(self, publication, grant),
                None => grant.decline(false),
            },
            ToShard::Credit {
                publication,
                link,
                bytes,
            } => {
                if let Some(connection) = self.publisher(publication) {
                    connection.credited(publication, link, bytes);
                }
            }
            ToShard::Detached { publication, link } => {
                if let Some(connection) = self.publisher(publication) {
                    connection.detached(publication, link);
                }
            }
            ToShard::Standby { publication } => {
                if let Some(connection) = self.publisher(publication) {
                    connection.standby(self, publication);
                }
            }
            ToShard::Incarnate { publication, epoch } => {
                if let Some(connection) = self.publisher(publication) {
                    connection.incarnate(publication, epoch);
                }
                self.say_position(publication);
            }
            ToShard::Challenged { publication } => match self.publisher(publication) {
                Some(connection) => connection.challenged(self, publication),
                None => self.ask(Ask::Unpublish { publication }),
            },
            ToShard::Reattach { publication } => self.say_position(publication),
            ToShard::Ended {
                publication,
                reason,
            } => {
                if let Some(connection) = self.publisher(publication) {
                    connection.ended(self, publication, reason);
                }
            }
            ToShard::Object { to, update, told } => self.tell(&to, update, told),
            ToShard::Called {
                client,
                call,
                result,
            } => {
                if let Some(connection) = self.client(client) {
                    connection.called(self, call, result);
                }
            }
            ToShard::Introduce(what) => {
                if let Some(door) = &self.door {
                    door.introduce(what);
                }
            }
            ToShard::Dismiss(client) => {
                if let Some(connection) = self.client(client) {
                    connection.dismiss();
                }
            }
            ToShard::Count(answer) => {
                self.counts.flush();
                let _ = answer.send(self.standing());
            }
            ToShard::Audience(answer) => {
                let channels = self.channels.borrow();
                let audience = channels
                    .iter()
                    .map(|(key, channel)| (key.clone(), channel.viewers()));
                let _ = answer.send(audience.collect());
            }
            ToShard::Trace {
                stream,
                asked,
                answer,
            } => {
                let clients = self.connections.borrow();
                let taken = clients
                    .values()
                    .filter(|client| client.trace(&stream, &asked))
                    .count();
                let _ = answer.send(taken > 0);
            }
            ToShard::Drain(spread) => {
                self.draining.set(true);
                self.send_away(spread);
            }
            ToShard::Close => {
                self.closing.set(true);
                self.each(Connection::close);
            }
        }
    }

    fn standing(&self) -> Standing {
        let channels = self.channels.borrow();
        Standing {
            viewers: channels.values().map(|channel| channel.viewers()).sum(),
            published: self.publications.borrow().len(),
            watched: channels.len(),
            backlog: channels.values().map(|channel| channel.bytes()).sum(),
            handshakes: self
                .door
                .as_ref()
                .map_or_else(Handshakes::default, |d| d.handshakes()),
        }
    }

    fn say_position(&self, publication: PublicationId) {
        let position = self
            .publisher(publication)
            .and_then(|c| c.position(publication));
        self.ask(match position {
            Some((epoch, next)) => Ask::Reattach {
                publication,
                epoch,
                next,
            },
            None => Ask::Unpublish { publication },
        });
    }

    fn client(&self, client: SubscriberId) -> Option<Rc<Connection>> {
        self.connections.borrow().get(&client.0).cloned()
    }

    /// A new session that nobody can guess.
    pub(crate) fn session(&self) -> SessionId {
        let half = |salt: u8| u128::from(self.chance.hash_one((self.number(), salt)));
        SessionId(half(0) << 64 | half(1))
    }

    fn publisher(&self, publication: PublicationId) -> Option<Rc<Connection>> {
        self.publications.borrow().get(&publication).cloned()
    }

    fn each(self: &Rc<Self>, act: impl Fn(&Rc<Connection>, &Rc<Self>)) {
        let all: Vec<_> = self.connections.borrow().values().cloned().collect();
        for connection in all {
            act(&connection, self);
        }
    }

    fn accept(self: &Rc<Self>, accepted: Accepted) {
        let number = self.number();
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            match Connection::open(&shard, number, accepted).await {
                Ok(connection) => {
                    shard
                        .connections
                        .borrow_mut()
                        .insert(number, connection.clone());
                    // It was still in its TLS handshake when the others were told.
                    if shard.closing.get() {
                        connection.close(&shard);
                    }
                    connection::drive(&connection, &shard).await;
                    shard.connections.borrow_mut().remove(&number);
                }
                Err(error) => tracing::debug!(%error, "connection was not taken over"),
            }
            shard.handle.load.fetch_sub(1, Ordering::Relaxed);
            shard.left.notify_one();
        });
    }

    /// Asks all clients that can to go elsewhere, one after the other: those that all come back
    /// in the same moment are a burden to whoever takes them.
    fn send_away(self: &Rc<Self>, spread: Duration) {
        let mut all: Vec<u64> = self.connections.borrow().keys().copied().collect();
        // In no order that a client could know.
        all.sort_by_key(|number| self.chance.hash_one(number));
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let from = Instant::now();
            let pause = spread / u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
            for (place, number) in (0_u32..).zip(all) {
                tokio::time::sleep_until(from + pause * place).await;
                let connection = shard.connections.borrow().get(&number).cloned();
                if let Some(connection) = connection {
                    connection.drain(&shard);
                }
            }
        });
    }

    /// Whether clients may come by datagrams, and those that came may stay.
    pub(crate) fn takes_clients(&self) -> bool {
        !self.draining.get() && !self.closing.get()
    }

    /// Takes over a client that came by datagrams.
    pub(crate) fn welcome(self: &Rc<Self>, guest: Guest) -> Rc<Connection> {
        let number = self.number();
        self.handle.expect();
        let session = guest.flows.session();
        let connection = Connection::welcome(self, number, guest);
        self.connections
            .borrow_mut()
            .insert(number, connection.clone());
        let (shard, driven) = (self.clone(), connection.clone());
        tokio::task::spawn_local(async move {
            connection::drive(&driven, &shard).await;
            shard.connections.borrow_mut().remove(&number);
            if let Some(door) = &shard.door {
                door.forget(session);
            }
            // The door says goodbye before the shard may end.
            tokio::task::yield_now().await;
            shard.handle.load.fetch_sub(1, Ordering::Relaxed);
            shard.left.notify_one();
        });
        connection
    }

    /// Hands a datagram to the shard whose session it belongs to.
    pub(crate) fn hand_on(&self, index: u32, from: std::net::SocketAddr, datagram: &[u8]) {
        // Such datagrams are few: the first ones after a client's address changed, until it
        // leaves. Whoever sends others by the thousand must not fill an inbox.
        let others = self.others.borrow();
        let other = others.iter().find(|other| other.index == index as usize);
        if let Some(other) = other
            && other.strays.load(Ordering::Relaxed) < STRAYS_MAX
        {
            other.strays.fetch_add(1, Ordering::Relaxed);
            other.send(ToShard::Datagram {
                from,
                bytes: datagram.to_vec(),
            });
        }
    }

    /// A number that no other thing of this edge has.
    fn number(&self) -> u64 {
        let next = self.next.get() + 1;
        self.next.set(next);
        (self.handle.index as u64) << NUMBER_BITS | next
    }

    /// Chooses which frames of a publication are traced.
    pub(crate) fn chooser(&self, publication: PublicationId) -> Chooser {
        Chooser::new(self.settings.tracing.clone(), publication)
    }

    /// A new publication's number.
    pub(crate) fn publication(&self) -> PublicationId {
        PublicationId(self.number())
    }

    /// Asks the upstream task.
    pub(crate) fn ask(&self, ask: Ask) {
        // Unbounded: an ask costs the upstream task less than the command behind it costs
        // the shard that parsed it, so the queue cannot outgrow the shards' inboxes.
        if self.ways.upstream.send(ask).is_err() {
            error!("the upstream task is gone");
        }
    }

    /// A publish is over here.
    pub(crate) fn forget(&self, publication: PublicationId) {
        self.publications.borrow_mut().remove(&publication);
    }

    /// The channel of a stream; asks for it when nobody here watches it yet, as a part of
    /// the span there. `None` when the shard has as many as it may.
    pub(crate) fn channel(
        &self,
        key: &StreamKey,
        span: Option<SpanPlace>,
    ) -> Option<Rc<LocalChannel>> {
        let mut channels = self.channels.borrow_mut();
        if let Some(channel) = channels.get(key) {
            return Some(channel.clone());
        }
        if channels.len() >= self.settings.streams {
            return None;
        }
        let channel = Rc::new(LocalChannel::new(key.clone()));
        channels.insert(key.clone(), channel.clone());
        self.ask(Ask::Join {
            key: key.clone(),
            shard: self.handle.clone(),
            span,
        });
        Some(channel)
    }

    /// A viewer leaves a channel; with the last one the shard lets go of it.
    pub(crate) fn leave(&self, channel: Rc<LocalChannel>, viewer: Rc<Connection>) {
        self.leaving.borrow_mut().push((channel, viewer));
        // A walk goes on over the list that the viewer is in.
        if !self.walking.get() {
            self.settle_leaving();
        }
    }

    /// Calls `visit` for every viewer of a channel, in whose course viewers may leave.
    fn walk(&self, channel: &LocalChannel, visit: impl FnMut(&Rc<Connection>)) {
        self.walking.set(true);
        channel.each(visit);
        self.walking.set(false);
        self.settle_leaving();
    }

    fn settle_leaving(&self) {
        for (channel, viewer) in self.leaving.take() {
            if channel.remove(&viewer) {
                self.let_go(&channel);
            }
        }
    }

    fn let_go(&self, channel: &LocalChannel) {
        self.channels.borrow_mut().remove(&channel.key);
        if let Some(id) = channel.id.get() {
            self.joined.borrow_mut().remove(&id);
            self.ask(Ask::Leave {
                channel: id,
                shard: self.handle.index,
            });
        }
    }

    /// Resolves when no connection is left.
    async fn empty(&self) {
        while self.handle.load() > 0 {
            self.left.notified().await;
        }
    }
}
