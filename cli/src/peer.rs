//! `selvage peer`: people who talk with each other directly.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::{
    Error, NetConnection, NetEvent, NetStream, NetStreamEvents, Options, PeerId, PlayRequest,
    PublishMode, StreamEvent, Target, Trust,
};
use node::telemetry::Kind;
use rtmp::{Message, MessageKind, StreamId};
use tokio::sync::mpsc;

use crate::exit::{self, Failure};
use crate::pace::{Pace, Timeline};
use crate::publish::Tags;
use crate::remote::seconds;
use crate::tracer;

/// What people do with each other.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    Chat(Flags),
}

/// Talk: what is typed goes to all, without a server on its way. A line of the form
/// `/connect PEERID` connects to one more; whoever is connected to tells of the others. `/who`
/// shows who is there, and what sound and pictures came. With several addresses, of edges of one
/// cluster, it goes on under the same ID when an edge is lost.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct Flags {
    /// rtmfp://host[:port]/app[/instance]: the server that introduces people to each other.
    /// When it is lost, one of the others takes its place; the talk goes on meanwhile.
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    /// The ID of one who is in the chat already.
    #[arg(long, value_name = "PEERID")]
    connect: Option<PeerId>,
    /// What others are to call us; the beginning of our ID if it is not given.
    #[arg(long)]
    name: Option<String>,
    /// Sound and pictures for the others.
    #[arg(long, value_name = "FILE.flv")]
    file: Option<PathBuf>,
    /// How many peer connections there may be. One is taken by publishing, one by sending,
    /// one is kept for who is connecting, and one is taken by each of the others; together
    /// they have to be fewer.
    #[arg(long, value_name = "N", default_value_t = client::limits::PEERS_MAX)]
    max_peers: usize,
    /// Seconds that the server, and each of the others, may take to be reached.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    patience: Duration,
    /// Accept any certificate.
    #[arg(long, hide = true)]
    insecure: bool,
}

pub(crate) fn main(command: &Command) -> ExitCode {
    match command {
        Command::Chat(flags) => exit::run_traced(chat(flags)),
    }
}

/// The stream of each participant.
const STREAM: &str = "chat";

/// Words from the tasks that listen to the others.
const HEARD_MAX: usize = 64;

async fn chat(flags: &Flags) -> Result<(), Failure> {
    let targets = flags.urls.iter().map(|url| Target::connection(url));
    let mut targets = targets
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::Url)?
        .into_iter();
    // The command line has one at least.
    let Some(target) = targets.next() else {
        return Err(Failure::NoConnection("no address".to_owned()));
    };
    let options = Options::player()
        .with_patience(flags.patience)
        .with_peers(flags.max_peers)
        .with_others(targets);
    let mut options = tracer::traced(options);
    if flags.insecure {
        options.trust = Trust::Anything;
    }
    let mut connecting = tracer::begin_phase("client.connect", Kind::Client);
    connecting.show("server.address", &target.host);
    let connected = NetConnection::connect(&target, &options).await;
    let (nc, mut events) = connected.inspect_err(|error| connecting.fail(error.to_string()))?;
    let Some(id) = nc.near_id() else {
        let why = nc.fell_back().map(|fell| fell.why.clone());
        let why = why.unwrap_or_else(|| "the address is not rtmfp://".to_owned());
        let why = format!("no RTMFP: {why}");
        connecting.fail(why.clone());
        return Err(Failure::NoConnection(why));
    };
    connecting.show("selvage.peer.id", id);
    connecting.end();
    say(&format!("id {id}"));
    let (own, statuses) = NetStream::open_direct(&nc, |_| true).await?;
    own.publish(STREAM, PublishMode::Live).await?;
    let (mouth, mut heard) = mpsc::channel(HEARD_MAX);
    tokio::spawn(listen(id, statuses, mouth.clone()));
    let short: String = id.to_string().chars().take(8).collect();
    let mut room = Room {
        nc,
        id,
        name: flags.name.clone().unwrap_or(short),
        own,
        others: BTreeMap::new(),
        mouth,
    };
    if let Some(peer) = flags.connect {
        room.reach(peer).await?;
    }
    let mut media = flags.file.as_deref().map(Media::open).transpose()?;
    let mut lines = typed_lines();
    let mut connecting = None;
    let mut interrupted = std::pin::pin!(exit::interrupted());
    loop {
        let due = media.as_ref().and_then(|media| media.due);
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => room.typed(&line).await?,
                // Who has nothing more to say leaves.
                None => break,
            },
            Some((peer, what)) = heard.recv() => room.heard(peer, what).await?,
            event = events.next() => match event? {
                NetEvent::Lost { why } => {
                    let phase = tracer::begin_phase("client.connect", Kind::Client);
                    connecting.get_or_insert(phase).show("selvage.lost", &why);
                    say(&format!("lost {why}"));
                }
                NetEvent::Rejoined { to } => {
                    if let Some(mut connecting) = connecting.take() {
                        connecting.show("server.address", &to.host);
                        connecting.show("selvage.peer.id", id);
                    }
                    say(&format!("rejoined {}", to.tc_url()));
                }
                NetEvent::Status(_) | NetEvent::Call { .. } => {}
            },
            () = until(due) => if let Some(media) = &mut media {
                media.send(&room.own).await?;
            },
            interrupted = &mut interrupted => {
                interrupted?;
                break;
            }
        }
    }
    Ok(room.nc.close().await?)
}

/// The lines of standard input. They are read by a thread that nobody waits for: the command
/// ends though nothing is typed.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Who is there.
struct Room {
    nc: NetConnection,
    id: PeerId,
    name: String,
    own: NetStream,
    others: BTreeMap<PeerId, Other>,
    mouth: mpsc::Sender<(PeerId, Heard)>,
}

/// Somebody else's stream.
#[derive(Default)]
struct Other {
    stream: Option<NetStream>,
    /// Messages of sound and pictures, and their bytes.
    media: (u64, usize),
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (messages, bytes) = self.media;
        write!(f, "{messages} messages of media, {bytes} bytes")
    }
}

/// What is heard on a stream: somebody else's, or our own.
enum Heard {
    Reached(NetStream),
    Failed(Error),
    Event(StreamEvent),
}

impl Room {
    /// Listens to somebody else.
    async fn reach(&mut self, peer: PeerId) -> Result<(), Failure> {
        if peer == self.id || self.others.contains_key(&peer) {
            return Ok(());
        }
        let (stream, events) = NetStream::open_peer(&self.nc, peer).await?;
        self.others.insert(peer, Other::default());
        let mouth = self.mouth.clone();
        let mut phase = tracer::begin_phase("client.reach", Kind::Client);
        phase.show("selvage.peer.id", peer);
        phase.set("selvage.stream.name", STREAM);
        tokio::spawn(async move {
            let played = stream.play(STREAM, PlayRequest::default()).await;
            if let Err(error) = &played {
                phase.fail(error.to_string());
            }
            phase.end();
            let reached = played.is_ok();
            let word = played.map_or_else(Heard::Failed, |()| Heard::Reached(stream));
            if mouth.send((peer, word)).await.is_ok() && reached {
                listen(peer, events, mouth).await;
            }
        });
        Ok(())
    }

    async fn typed(&mut self, line: &str) -> Result<(), Failure> {
        if let Some(word) = line.strip_prefix("/connect ") {
            match word.trim().parse() {
                Ok(peer) => self.reach(peer).await?,
                Err(error) => say(&format!("error {error}")),
            }
            return Ok(());
        }
        if line.trim() == "/who" {
            for (peer, other) in &self.others {
                say(&format!("with {peer} {other}"));
            }
            return Ok(());
        }
        if !line.is_empty() {
            let mut phase = tracer::begin_phase("client.send", Kind::Producer);
            phase.count("selvage.peers", self.others.len() as u64);
            phase.count("selvage.bytes", line.len() as u64);
            let words = [self.name.as_str().into(), line.into()];
            let sent = self.own.send(0, "onChat", words).await;
            sent.inspect_err(|error| phase.fail(error.to_string()))?;
        }
        Ok(())
    }

    async fn heard(&mut self, peer: PeerId, what: Heard) -> Result<(), Failure> {
        match what {
            Heard::Reached(stream) => {
                if let Some(other) = self.others.get_mut(&peer) {
                    other.stream = Some(stream);
                }
                say(&format!("joined {peer}"));
            }
            Heard::Failed(error) => {
                self.others.remove(&peer);
                say(&format!("failed {peer} {error}"));
            }
            Heard::Event(StreamEvent::Status(status)) if peer == self.id => {
                if status.code == "NetStream.Connect.Success"
                    && let Ok(peer) = status.description.parse()
                {
                    self.came(peer).await?;
                }
            }
            Heard::Event(StreamEvent::Status(status)) => {
                if status.code == "NetStream.Connect.Closed"
                    && let Some(other) = self.others.remove(&peer)
                {
                    say(&format!("left {peer} {other}"));
                }
            }
            Heard::Event(StreamEvent::Message(arrival)) => {
                self.message(peer, &arrival.message).await?;
            }
            Heard::Event(StreamEvent::Progress(_)) => {}
        }
        Ok(())
    }

    /// Somebody listens to us: we listen to it as well, and tell it of the others.
    async fn came(&mut self, peer: PeerId) -> Result<(), Failure> {
        let others = self.others.keys().filter(|other| **other != peer);
        let others: Vec<String> = others.map(PeerId::to_string).collect();
        let words = [peer.to_string().into(), others.join(" ").into()];
        self.own.send(0, "onPeers", words).await?;
        self.reach(peer).await
    }

    async fn message(&mut self, peer: PeerId, message: &Message) -> Result<(), Failure> {
        if matches!(message.kind, MessageKind::Audio | MessageKind::Video) {
            if let Some(other) = self.others.get_mut(&peer) {
                other.media.0 += 1;
                other.media.1 += message.payload.len();
                if other.media.0 == 1 {
                    say(&format!("media {peer}"));
                }
            }
            return Ok(());
        }
        // What another program may say means nothing here.
        let Ok(values) = amf::amf0::read_all(&message.payload) else {
            return Ok(());
        };
        let words: Vec<&str> = values.iter().filter_map(amf::Value::as_str).collect();
        match words[..] {
            ["onChat", name, text] => say(&format!("{name}: {text}")),
            ["onPeers", to, others] if to == self.id.to_string() => {
                for other in others.split(' ').filter_map(|word| word.parse().ok()) {
                    self.reach(other).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Passes on what is heard on a stream, until there is nothing more.
async fn listen(peer: PeerId, mut events: NetStreamEvents, mouth: mpsc::Sender<(PeerId, Heard)>) {
    while let Ok(event) = events.next().await {
        if mouth.send((peer, Heard::Event(event))).await.is_err() {
            return;
        }
    }
}

/// A file that is shown to the others, over and over.
struct Media {
    tags: Tags,
    line: Timeline,
    pace: Pace,
    next: Option<Message>,
    due: Option<Instant>,
}

impl Media {
    fn open(path: &std::path::Path) -> Result<Self, Failure> {
        let mut media = Self {
            tags: Tags::open(path)?,
            line: Timeline::default(),
            pace: Pace::new(Instant::now()),
            next: None,
            due: None,
        };
        media.advance()?;
        Ok(media)
    }

    /// Sends what is due.
    async fn send(&mut self, own: &NetStream) -> Result<(), Failure> {
        if let Some(message) = self.next.take() {
            own.send_message(message).await?;
        }
        self.advance()
    }

    fn advance(&mut self) -> Result<(), Failure> {
        self.due = None;
        loop {
            let Some(tag) = self.tags.next()? else {
                if self.tags.restart()? {
                    self.line.again();
                    continue;
                }
                return Ok(());
            };
            let kind = match tag.type_id {
                8 => MessageKind::Audio,
                9 => MessageKind::Video,
                _ => continue,
            };
            let time = self.line.place(tag.time);
            self.due = Some(self.pace.due(time));
            self.next = Some(Message {
                kind,
                stream: StreamId::CONNECTION,
                time: time.wire(),
                payload: tag.payload,
            });
            return Ok(());
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[allow(clippy::print_stdout, reason = "what a command line has to say")]
fn say(line: &str) {
    println!("{line}");
}
