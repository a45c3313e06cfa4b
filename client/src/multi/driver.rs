//! The task of a facade: the machine with its sockets and its clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use amf::Value;
use model::{ObjectName, SessionId, SlotName, SlotValue, Version};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::machine::{Machine, Output, ServerState, Settled, Step, StepCode, Ticket, Told};
use super::server::{self, FromServer, Mouth, News, ToServer};
use super::{MultiEvent, MultiOptions, SetupStatus, SoOutcome};
use crate::handover;
use crate::limits::EVENTS_MAX;
use crate::net::NetConnection;
use crate::sync::{self, Change, Data, SyncCode, SyncEvent};
use crate::{Error, Target};

/// A piece of work that a handle gives to the task.
pub(super) type Turn = Box<dyn FnOnce(&mut Driver) + Send>;

/// The primary, for those who publish: which server, and the way to it.
pub(super) type Primary = Option<(usize, NetConnection)>;

/// The task.
pub(super) struct Driver {
    options: Arc<MultiOptions>,
    session: SessionId,
    machine: Option<Machine>,
    servers: Vec<Server>,
    mouth: mpsc::Sender<FromServer>,
    ears: mpsc::Receiver<FromServer>,
    events: mpsc::Sender<MultiEvent>,
    /// What the program has no room for yet.
    untold: VecDeque<MultiEvent>,
    tickets: BTreeMap<Ticket, oneshot::Sender<SoOutcome>>,
    next_ticket: Ticket,
    primary: watch::Sender<Primary>,
    /// The program publishes, through whichever server is the primary.
    publishes: bool,
}

struct Server {
    target: Target,
    life: u64,
    task: Option<JoinHandle<()>>,
    inbox: Option<mpsc::UnboundedSender<ToServer>>,
    nc: Option<NetConnection>,
    /// For the word at a failed setup.
    state: ServerState,
}

impl Driver {
    pub(super) fn new(
        options: Arc<MultiOptions>,
        session: SessionId,
        events: mpsc::Sender<MultiEvent>,
        primary: watch::Sender<Primary>,
    ) -> Self {
        let (mouth, ears) = mpsc::channel(EVENTS_MAX);
        Self {
            options,
            session,
            machine: None,
            servers: Vec::new(),
            mouth,
            ears,
            events,
            untold: VecDeque::new(),
            tickets: BTreeMap::new(),
            next_ticket: 1,
            primary,
            publishes: false,
        }
    }

    pub(super) async fn run(mut self, mut turns: mpsc::Receiver<Turn>) {
        let events = self.events.clone();
        loop {
            self.act();
            // A setup that failed has closed everything: whoever asks for more is told so.
            self.machine.take_if(|machine| machine.is_over());
            let deadline = self.machine.as_ref().and_then(Machine::deadline);
            // While the program does not listen, the servers are not listened to either, and
            // so their silence means nothing.
            let listening = self.untold.is_empty();
            tokio::select! {
                biased;
                room = events.reserve(), if !listening => match room {
                    Ok(room) => {
                        if let Some(event) = self.untold.pop_front() {
                            room.send(event);
                        }
                    }
                    // Nobody listens, and nobody will.
                    Err(_) => self.untold.clear(),
                },
                Some(word) = self.ears.recv(), if listening => self.hear(word),
                turn = turns.recv() => match turn {
                    Some(turn) => turn(&mut self),
                    None => return,
                },
                () = sleep_until(deadline), if listening => {
                    if let Some(machine) = &mut self.machine {
                        machine.handle_timeout(Instant::now());
                    }
                }
            }
        }
    }

    /// Begins; what was before is over.
    pub(super) fn connect(&mut self, targets: Vec<Target>) {
        self.close();
        self.servers = targets
            .into_iter()
            .map(|target| Server {
                target,
                life: 0,
                task: None,
                inbox: None,
                nc: None,
                state: ServerState::Dialling,
            })
            .collect();
        let now = Instant::now();
        let mut machine = Machine::new(self.servers.len(), self.options.need, now);
        machine.publishes(self.publishes, now);
        self.machine = Some(machine);
    }

    pub(super) fn close(&mut self) {
        if let Some(machine) = &mut self.machine {
            machine.close();
            self.act();
        }
        self.machine = None;
    }

    pub(super) fn publishes(&mut self, publishes: bool) {
        self.publishes = publishes;
        if let Some(machine) = &mut self.machine {
            machine.publishes(publishes, Instant::now());
        }
    }

    pub(super) fn object(
        &mut self,
        name: &ObjectName,
        kind: model::ObjectKind,
    ) -> Result<(), Error> {
        let machine = self.machine.as_mut().ok_or(Error::Disconnected)?;
        if machine.objects() >= super::limits::OBJECTS_MAX {
            return Err(Error::Overloaded("shared objects"));
        }
        machine.object(name, kind);
        Ok(())
    }

    pub(super) fn set(
        &mut self,
        object: &ObjectName,
        slot: SlotName,
        value: Option<SlotValue>,
        answer: oneshot::Sender<SoOutcome>,
    ) -> Result<(), Error> {
        let ticket = self.next_ticket;
        let machine = self.machine(object)?;
        machine
            .set(object, slot, value, ticket, Instant::now())
            .map_err(|_| Error::Overloaded("writes that wait"))?;
        self.tickets.insert(ticket, answer);
        self.next_ticket += 1;
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        object: &ObjectName,
        payload: bytes::Bytes,
        answer: oneshot::Sender<SoOutcome>,
    ) -> Result<(), Error> {
        let ticket = self.next_ticket;
        let machine = self.machine(object)?;
        machine
            .send(object, payload, ticket, Instant::now())
            .map_err(|_| Error::Overloaded("messages that wait"))?;
        self.tickets.insert(ticket, answer);
        self.next_ticket += 1;
        Ok(())
    }

    pub(super) fn value(
        &mut self,
        object: &ObjectName,
        slot: &SlotName,
    ) -> Result<Option<Value>, Error> {
        let machine = self.machine(object)?;
        Ok(machine.value(object, slot).as_ref().map(sync::read))
    }

    pub(super) fn data(&mut self, object: &ObjectName) -> Result<Data, Error> {
        let machine = self.machine(object)?;
        let told = machine.told(object);
        Ok(told.map_or_else(Data::default, |(version, slots)| sync::data(version, slots)))
    }

    pub(super) fn nc(&self, server: usize) -> Result<NetConnection, Error> {
        let server = self.servers.get(server).ok_or(Error::NoServer(server))?;
        server.nc.clone().ok_or(Error::Disconnected)
    }

    fn machine(&mut self, object: &ObjectName) -> Result<&mut Machine, Error> {
        let machine = self.machine.as_mut().ok_or(Error::Disconnected)?;
        if machine.has_object(object) {
            Ok(machine)
        } else {
            Err(Error::NoObject(object.as_str().to_owned()))
        }
    }

    fn hear(&mut self, word: FromServer) {
        let FromServer {
            server,
            life,
            at,
            news,
        } = word;
        let Some(this) = self.servers.get_mut(server).filter(|s| s.life == life) else {
            return;
        };
        let Some(machine) = &mut self.machine else {
            return;
        };
        let now = Instant::now();
        match news {
            News::Up(nc) => {
                this.nc = Some(nc);
                machine.up(server, now);
            }
            News::Down(why) => {
                this.let_go();
                machine.down(server, &why, now);
            }
            News::Pong => machine.heard(server, true, at),
            News::Resumed(answer) => {
                machine.heard(server, false, at);
                machine.resumed(server, answer, now);
            }
            News::Update(update) => {
                machine.heard(server, false, at);
                machine.update(server, &update, now);
            }
            News::Status(status) => {
                machine.heard(server, false, at);
                if self.options.connect.follow && handover::is_request(&status) {
                    machine.asked_to_leave(server, now);
                }
                self.tell(MultiEvent::NetStatus { server, status });
            }
            News::Call {
                request,
                name,
                args,
            } => {
                machine.heard(server, false, at);
                self.tell(MultiEvent::Call {
                    server,
                    request,
                    name,
                    args,
                });
            }
        }
    }

    /// Does what the machine says.
    fn act(&mut self) {
        while let Some(output) = self.machine.as_mut().and_then(Machine::poll_output) {
            match output {
                Output::Dial(server) => self.dial(server),
                Output::HangUp(server) => {
                    if let Some(server) = self.servers.get_mut(server) {
                        server.life += 1;
                        server.let_go();
                    }
                }
                Output::Ping(server) => self.ask(server, ToServer::Ping),
                Output::Resume { server, next } => self.ask(server, ToServer::Resume { next }),
                Output::Ask {
                    server,
                    object,
                    kind,
                    version,
                    ask,
                } => {
                    let ask = ToServer::Ask {
                        object,
                        kind,
                        version,
                        ask,
                    };
                    self.ask(server, ask);
                }
                Output::Tell(told) => self.translate(told),
                Output::Settle(ticket, settled) => {
                    if let Some(answer) = self.tickets.remove(&ticket) {
                        let _ = answer.send(outcome(settled));
                    }
                }
            }
        }
        let primary = self.machine.as_ref().and_then(Machine::primary);
        self.primary.send_if_modified(|known| {
            let now = primary.and_then(|p| Some((p, self.servers.get(p)?.nc.clone()?)));
            let changed = match (&*known, &now) {
                (Some((a, x)), Some((b, y))) => a != b || !x.is_same(y),
                (None, None) => false,
                (Some(_), None) | (None, Some(_)) => true,
            };
            if changed {
                *known = now;
            }
            changed
        });
    }

    fn dial(&mut self, index: usize) {
        let Some(server) = self.servers.get_mut(index) else {
            return;
        };
        server.life += 1;
        let (inbox, orders) = mpsc::unbounded_channel();
        let mouth = Mouth {
            server: index,
            life: server.life,
            to: self.mouth.clone(),
        };
        let options = self.options.connect.clone().identify(self.session);
        let serve = server::serve(server.target.clone(), options, self.session, orders, mouth);
        server.inbox = Some(inbox);
        server.task = Some(tokio::spawn(serve));
    }

    fn ask(&self, server: usize, ask: ToServer) {
        if let Some(inbox) = self.servers.get(server).and_then(|s| s.inbox.as_ref()) {
            // A task that has ended says so itself.
            let _ = inbox.send(ask);
        }
    }

    fn translate(&mut self, told: Told) {
        match told {
            Told::Setup { complete } => {
                let servers = self
                    .servers
                    .iter()
                    .map(|s| (s.target.to_string(), s.state.clone()));
                let status = SetupStatus {
                    complete,
                    servers: servers.collect(),
                };
                self.tell(MultiEvent::OnStatus(status));
            }
            Told::Server { server, state } => {
                if let Some(this) = self.servers.get_mut(server)
                    && state != ServerState::Closed
                {
                    this.state = state.clone();
                }
                self.tell(MultiEvent::Server { server, state });
            }
            Told::Sync {
                object,
                version,
                steps,
            } => {
                let event = sync_event(version, steps);
                let name = object.as_str().to_owned();
                self.tell(MultiEvent::Sync { name, event });
            }
            Told::Send { object, payload } => {
                let Ok(values) = amf::amf0::read_all(&payload) else {
                    return;
                };
                let mut values = values.into_iter();
                if let Some(handler) = values.next().as_ref().and_then(Value::as_str) {
                    self.tell(MultiEvent::Message {
                        name: object.as_str().to_owned(),
                        handler: handler.to_owned(),
                        args: values.collect(),
                    });
                }
            }
            Told::Status {
                object,
                server,
                status,
            } => self.tell(MultiEvent::SoStatus {
                name: object.as_str().to_owned(),
                server,
                code: session::object::status::code(status).to_owned(),
            }),
        }
    }

    pub(super) fn tell(&mut self, event: MultiEvent) {
        if self.untold.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => self.untold.push_back(event),
            }
        } else {
            self.untold.push_back(event);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.let_go();
        }
    }
}

impl Server {
    /// The connection closes when nobody holds it any more.
    fn let_go(&mut self) {
        self.nc = None;
        self.inbox = None;
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn sync_event(version: Version, steps: Vec<Step>) -> SyncEvent {
    let list = steps.into_iter().map(|step| Change {
        code: match step.code {
            StepCode::Clear => SyncCode::Clear,
            StepCode::Success => SyncCode::Success,
            StepCode::Reject => SyncCode::Reject,
            StepCode::Change => SyncCode::Change,
            StepCode::Delete => SyncCode::Delete,
        },
        name: step
            .slot
            .map_or_else(String::new, |slot| slot.as_str().to_owned()),
        value: step.value.as_ref().map(sync::read),
        old_value: step.old.as_ref().map(sync::read),
    });
    SyncEvent {
        list: list.collect(),
        version: version.0,
    }
}

fn outcome(settled: Settled) -> SoOutcome {
    match settled {
        Settled::Success(version) => SoOutcome::Success { version: version.0 },
        Settled::Reject(now) => SoOutcome::Reject {
            value: now.as_ref().map(sync::read),
        },
        Settled::Refused(status) => SoOutcome::Refused {
            code: session::object::status::code(status).to_owned(),
        },
        Settled::Undecided => SoOutcome::Undecided,
        Settled::Unreachable => SoOutcome::Unreachable,
        Settled::Replaced => SoOutcome::Replaced,
    }
}
