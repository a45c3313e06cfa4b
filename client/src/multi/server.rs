//! One server of a facade: dialled, driven and given up as the machine says.

use std::pin::Pin;
use std::time::Instant;

use amf::Value;
use model::SessionId;
use model::object::{ObjectAsk, ObjectUpdate};
use model::{ObjectKind, ObjectName, SlotOp, Version};
use session::RequestId;
use session::client::Status;
use session::object::{ObjectMessage, WireEvent, from_message};
use tokio::sync::mpsc;

use crate::limits::EVENTS_MAX;
use crate::net::{NetConnection, NetEvent, NetEvents};
use crate::{Connection, Error, Options, Target};

/// What a server's task is told. The machine asks for no more than its limits allow, so the
/// queue of these is as short as they are.
#[derive(Debug)]
pub(super) enum ToServer {
    Ping,
    Resume {
        next: u64,
    },
    Ask {
        object: ObjectName,
        kind: ObjectKind,
        version: Version,
        ask: ObjectAsk,
    },
}

/// What a server's task says.
#[derive(Debug)]
pub(super) struct FromServer {
    pub(super) server: usize,
    /// Which of its connections: what an earlier one says does not count.
    pub(super) life: u64,
    pub(super) at: Instant,
    pub(super) news: News,
}

/// What happened at a server.
#[derive(Debug)]
pub(super) enum News {
    Up(NetConnection),
    Down(String),
    Pong,
    Resumed(Result<(), String>),
    Update(Box<ObjectUpdate>),
    Status(Box<Status>),
    Call {
        request: Option<RequestId>,
        name: String,
        args: Vec<Value>,
    },
}

/// Where a server's task speaks.
#[derive(Clone, Debug)]
pub(super) struct Mouth {
    pub(super) server: usize,
    pub(super) life: u64,
    pub(super) to: mpsc::Sender<FromServer>,
}

impl Mouth {
    async fn say(&self, news: News) {
        let word = FromServer {
            server: self.server,
            life: self.life,
            at: Instant::now(),
            news,
        };
        // A facade that has gone does not listen.
        let _ = self.to.send(word).await;
    }
}

/// Connects to the server and serves the connection until it ends. Dropping it closes the
/// connection.
pub(super) async fn serve(
    target: Target,
    options: Options,
    session: SessionId,
    inbox: mpsc::UnboundedReceiver<ToServer>,
    mouth: Mouth,
) {
    let connection = match Connection::open(&target, &options).await {
        Ok(connection) => connection,
        Err(error) => return mouth.say(News::Down(chain(&error))).await,
    };
    let (tap, updates) = mpsc::channel(EVENTS_MAX);
    let (nc, events) = NetConnection::tapped(connection, tap);
    mouth.say(News::Up(nc.clone())).await;
    let error = drive(&nc, session, inbox, updates, events, &mouth).await;
    mouth.say(News::Down(chain(&error))).await;
}

type Waiting<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

async fn drive(
    nc: &NetConnection,
    session: SessionId,
    mut inbox: mpsc::UnboundedReceiver<ToServer>,
    mut updates: mpsc::Receiver<Box<ObjectMessage>>,
    mut events: NetEvents,
    mouth: &Mouth,
) -> Error {
    let mut pong: Waiting<Result<(), Error>> = None;
    let mut resumed: Waiting<Result<Value, Error>> = None;
    loop {
        tokio::select! {
            // What the server said before it went is heard before that it went.
            biased;
            Some(message) = updates.recv() => {
                if let Some(update) = from_message(&message) {
                    mouth.say(News::Update(Box::new(update))).await;
                }
            }
            answer = wait(&mut resumed) => {
                resumed = None;
                match answer {
                    Ok(_) => mouth.say(News::Resumed(Ok(()))).await,
                    Err(Error::CallFailed(status)) => {
                        let why = format!("{} {}", status.code, status.description);
                        mouth.say(News::Resumed(Err(why))).await;
                    }
                    // Why the connection ended is said below.
                    Err(_) => {}
                }
            }
            answer = wait(&mut pong) => {
                pong = None;
                if answer.is_ok() {
                    mouth.say(News::Pong).await;
                }
            }
            event = events.next() => match event {
                Ok(NetEvent::Status(status)) => mouth.say(News::Status(status)).await,
                Ok(NetEvent::Call { request, name, args }) => {
                    mouth.say(News::Call { request, name, args }).await;
                }
                // Each server has a connection of its own here.
                Ok(NetEvent::Lost { .. } | NetEvent::Rejoined { .. }) => {}
                Err(error) => return error,
            },
            Some(told) = inbox.recv() => match told {
                ToServer::Ping => {
                    let nc = nc.clone();
                    pong = Some(Box::pin(async move { nc.ping().await }));
                }
                ToServer::Resume { next } => {
                    let nc = nc.clone();
                    resumed = Some(Box::pin(async move { nc.resume(session, next).await }));
                }
                ToServer::Ask { object, kind, version, ask } => {
                    let message = message(&object, kind, version, ask);
                    // If it has ended, the next round says why.
                    let _ = nc.send_object(message).await;
                }
            },
        }
    }
}

fn message(
    object: &ObjectName,
    kind: ObjectKind,
    version: Version,
    ask: ObjectAsk,
) -> ObjectMessage {
    let mut message = ObjectMessage::new(object.as_str(), kind, version.0);
    match ask {
        ObjectAsk::Use => message.events.push(WireEvent::Use),
        ObjectAsk::Release => message.events.push(WireEvent::Release),
        ObjectAsk::Send(payload) => message.events.push(WireEvent::Send(payload)),
        ObjectAsk::Write(ops) => {
            message.events.extend(ops.into_iter().map(|op| match op {
                SlotOp::Set { slot, value } => WireEvent::RequestChange { slot, value },
                SlotOp::Remove { slot } => WireEvent::RequestRemove { slot },
                SlotOp::Clear => WireEvent::RequestClear,
            }));
        }
    }
    message
}

async fn wait<T>(waiting: &mut Waiting<T>) -> T {
    match waiting {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
