//! `selvage so`: shared objects from the command line.
//!
//! Several addresses are several edges of one fabric: writes go through one of them, and
//! when it is lost through another.

mod json;
mod trace;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use amf::Value;
use client::{
    Change, MultiConnection, MultiEvent, MultiEvents, MultiOptions, Need, Options, ServerState,
    SetupStatus, SoOutcome, SyncCode, SyncEvent, Target, Trust, code_name,
};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::exit::{self, Failure};
use crate::remote::seconds;
use crate::tracer;

/// What is done with a shared object.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print whatever happens to an object.
    #[command(after_help = exit::HELP)]
    Watch(Watch),
    /// Print what an object has, or one slot of it: URL... NAME [SLOT].
    #[command(after_help = exit::HELP)]
    Get(Words),
    /// Write slots, as one batch: URL... NAME SLOT=JSON... (null takes a slot away).
    #[command(after_help = exit::HELP)]
    Set(Words),
    /// Call a method at everybody who uses an object: URL... NAME METHOD [JSON...].
    #[command(after_help = exit::HELP)]
    Send(Words),
    /// Write a time stamp to a slot of one's own every few seconds, and print whatever
    /// happens to the object.
    #[command(after_help = exit::HELP)]
    Trace(trace::Flags),
}

/// How to connect and how to print.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Manner {
    /// The object is kept when nobody uses it.
    #[arg(long)]
    persistent: bool,
    /// Speak AMF3 (objectEncoding 3).
    #[arg(long)]
    amf3: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// Fail unless all servers can be reached in three seconds; otherwise one is enough.
    #[arg(long)]
    all: bool,
    /// Accept any certificate (rtmps).
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Accept certificates signed by the authorities in this PEM file (rtmps).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Seconds that a server may take for each step of the beginning.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    patience: Duration,
}

/// Addresses, a name, and what else belongs to the command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Words {
    /// rtmp://host[:port]/app[/instance], or rtmps://; one or several; then the object's name,
    /// and what belongs to the command.
    #[arg(value_name = "URL... NAME", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    manner: Manner,
}

/// Addresses and a name.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    words: Words,
    /// Stop after so many seconds.
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<Duration>,
}

pub(crate) fn main(command: &Command) -> ExitCode {
    exit::run_traced(async {
        tokio::select! {
            done = run(command) => done,
            interrupted = exit::interrupted() => interrupted,
        }
    })
}

async fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Watch(flags) => watch(flags).await,
        Command::Get(flags) => get(flags).await,
        Command::Set(flags) => set(flags).await,
        Command::Send(flags) => send(flags).await,
        Command::Trace(flags) => trace::run(flags).await,
    }
}

async fn watch(flags: &Watch) -> Result<(), Failure> {
    let words = flags.words.split(0..=0)?;
    let mut object = Object::open(&words.urls, words.name, &flags.words.manner).await?;
    let until = flags
        .duration
        .map(|time| tokio::time::Instant::now() + time);
    loop {
        tokio::select! {
            () = sleep_until(until) => return object.close().await,
            event = object.next() => object.print(&event?)?,
        }
    }
}

async fn get(flags: &Words) -> Result<(), Failure> {
    let words = flags.split(0..=1)?;
    let mut object = Object::open(&words.urls, words.name, &flags.manner).await?;
    object.first_sync().await?;
    let data = object.mc.so_data(words.name).await?;
    if let Some(slot) = words.rest.first() {
        let value = data
            .slots
            .get(slot)
            .ok_or_else(|| Failure::Refused(format!("{} has no slot {slot}", words.name)))?;
        say(&json::show(value).to_string())?;
    } else if flags.manner.json {
        let slots = data.slots.iter().map(|(k, v)| (k.clone(), json::show(v)));
        let slots = Json::Object(slots.collect());
        say(&json!({ "version": data.version, "slots": slots }).to_string())?;
    } else {
        for (slot, value) in &data.slots {
            say(&format!("{slot}={}", json::show(value)))?;
        }
    }
    object.close().await
}

async fn set(flags: &Words) -> Result<(), Failure> {
    let words = flags.split(1..=usize::MAX)?;
    let mut writes = Vec::new();
    for text in words.rest {
        let (slot, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("'{text}' is not of the form SLOT=JSON")))?;
        let value = json::parse(value).map_err(Failure::Usage)?;
        writes.push((slot.to_owned(), value));
    }
    let mut object = Object::open(&words.urls, words.name, &flags.manner).await?;
    // All of them wait for the first sync, and so go as one batch.
    let mut settled = JoinSet::new();
    for (slot, value) in writes {
        let mc = object.mc.clone();
        let path = format!("{}.data.{slot}", words.name);
        settled.spawn(async move { (slot, mc.set_so_value(&path, value).await) });
    }
    let mut failed = None;
    while let Some((slot, outcome)) = object.settle(&mut settled).await? {
        match check(&slot, &outcome?) {
            Ok(version) => object.report(&slot, version)?,
            Err(failure) => failed = Some(failure),
        }
    }
    object.close().await?;
    failed.map_or(Ok(()), Err)
}

async fn send(flags: &Words) -> Result<(), Failure> {
    let words = flags.split(1..=usize::MAX)?;
    let (handler, rest) = words
        .rest
        .split_first()
        .ok_or_else(|| Failure::Usage("which method?".to_owned()))?;
    let args: Vec<Value> = rest
        .iter()
        .map(|text| json::parse(text))
        .collect::<Result<_, _>>()
        .map_err(Failure::Usage)?;
    let mut object = Object::open(&words.urls, words.name, &flags.manner).await?;
    let mut settled = JoinSet::new();
    let (mc, name, method) = (object.mc.clone(), words.name.to_owned(), handler.clone());
    settled.spawn(async move { (method.clone(), mc.so_send(&name, &method, args).await) });
    while let Some((method, outcome)) = object.settle(&mut settled).await? {
        check(&method, &outcome?)?;
    }
    object.close().await
}

/// The version after a write, or why it failed.
fn check(what: &str, outcome: &SoOutcome) -> Result<u32, Failure> {
    match outcome {
        SoOutcome::Success { version } => Ok(*version),
        SoOutcome::Reject { value } => {
            let now = value.as_ref().map(json::show).unwrap_or_default();
            Err(Failure::Refused(format!(
                "{what}: somebody else wrote first; it has {now}"
            )))
        }
        SoOutcome::Refused { code } => Err(Failure::Refused(format!("{what}: {code}"))),
        SoOutcome::Undecided => Err(Failure::Ended(format!(
            "{what}: it is not known whether it was done"
        ))),
        SoOutcome::Unreachable => Err(Failure::NoConnection(format!("{what}: it was not done"))),
        SoOutcome::Replaced => Err(Failure::Usage(format!("{what} is named twice"))),
    }
}

/// What the words of a command line are.
struct Split<'a> {
    urls: Vec<&'a str>,
    name: &'a str,
    rest: &'a [String],
}

impl Words {
    fn split(&self, rest: std::ops::RangeInclusive<usize>) -> Result<Split<'_>, Failure> {
        let is_url = |word: &&String| word.contains("://");
        let urls: Vec<&str> = self
            .words
            .iter()
            .take_while(is_url)
            .map(String::as_str)
            .collect();
        let words = self.words.get(urls.len()..).unwrap_or_default();
        let usage = |text: &str| Failure::Usage(text.to_owned());
        if urls.is_empty() {
            return Err(usage("the first word must be an address, rtmp://host/app"));
        }
        let (name, words) = words
            .split_first()
            .ok_or_else(|| usage("the addresses must be followed by an object's name"))?;
        if words.len() < *rest.start() {
            return Err(usage("something must follow the object's name; see --help"));
        }
        if words.len() > *rest.end() {
            return Err(usage("too much follows the object's name; see --help"));
        }
        Ok(Split {
            urls,
            name,
            rest: words,
        })
    }
}

/// An object that is in use.
struct Object {
    mc: MultiConnection,
    events: MultiEvents,
    name: String,
    urls: Vec<String>,
    json: bool,
}

impl Object {
    async fn open(urls: &[&str], name: &str, manner: &Manner) -> Result<Self, Failure> {
        let targets: Vec<Target> = urls
            .iter()
            .map(|url| Target::connection(url))
            .collect::<Result<_, _>>()
            .map_err(client::Error::Url)?;
        let urls = targets.iter().map(ToString::to_string).collect();
        let (mc, events) = MultiConnection::with(manner.options());
        mc.connect_to(targets).await?;
        let mut this = Self {
            mc,
            events,
            name: name.to_owned(),
            urls,
            json: manner.json,
        };
        loop {
            if let MultiEvent::OnStatus(status) = this.next().await? {
                if !status.complete {
                    return Err(Failure::NoConnection(setup(&status)));
                }
                break;
            }
        }
        this.mc
            .shared_object_setup(name, manner.persistent)
            .await
            .map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        Ok(this)
    }

    /// The next event; how the servers stand is said on standard error.
    async fn next(&mut self) -> Result<MultiEvent, Failure> {
        let event = self.events.next().await;
        let event = event.ok_or_else(|| Failure::Ended("the connections".to_owned()))?;
        match &event {
            MultiEvent::Server { server, state } => self.say_state(*server, state),
            MultiEvent::SoStatus { server, code, .. } => {
                let use_failed = [
                    "SharedObject.BadPersistence",
                    "SharedObject.NoReadAccess",
                    "SharedObject.ObjectCreationFailed",
                ];
                if use_failed.contains(&code.as_str()) {
                    return Err(Failure::Refused(format!("{}: {code}", self.name)));
                }
                warn(&format!("{}: {code}", self.url(*server)));
            }
            MultiEvent::OnStatus(_)
            | MultiEvent::Sync { .. }
            | MultiEvent::Message { .. }
            | MultiEvent::NsStatus { .. }
            | MultiEvent::NetStatus { .. }
            | MultiEvent::Call { .. } => {}
        }
        Ok(event)
    }

    /// Waits until the object can be used.
    async fn first_sync(&mut self) -> Result<(), Failure> {
        loop {
            if let MultiEvent::Sync { .. } = self.next().await? {
                return Ok(());
            }
        }
    }

    /// The next thing that is settled, while the servers are listened to.
    async fn settle<T: 'static>(&mut self, tasks: &mut JoinSet<T>) -> Result<Option<T>, Failure> {
        loop {
            tokio::select! {
                done = tasks.join_next() => {
                    let done = done.transpose().map_err(|error| Failure::Here {
                        what: "a task failed".to_owned(),
                        source: io::Error::other(error),
                    });
                    return done;
                }
                event = self.next() => drop(event?),
            }
        }
    }

    /// Prints what happened to the object.
    fn print(&self, event: &MultiEvent) -> Result<(), Failure> {
        match event {
            MultiEvent::Sync { event, .. } => self.print_sync(event),
            MultiEvent::Message { handler, args, .. } => {
                let args: Json = args.iter().map(json::show).collect();
                if self.json {
                    let line = json!({ "code": "message", "method": handler, "args": args });
                    say(&line.to_string())
                } else {
                    say(&format!("- message {handler} {args}"))
                }
            }
            MultiEvent::OnStatus(_)
            | MultiEvent::Server { .. }
            | MultiEvent::SoStatus { .. }
            | MultiEvent::NsStatus { .. }
            | MultiEvent::NetStatus { .. }
            | MultiEvent::Call { .. } => Ok(()),
        }
    }

    fn print_sync(&self, event: &SyncEvent) -> Result<(), Failure> {
        for change in &event.list {
            say(&line(event.version, change, self.json))?;
        }
        Ok(())
    }

    fn report(&self, slot: &str, version: u32) -> Result<(), Failure> {
        let change = Change {
            code: SyncCode::Success,
            name: slot.to_owned(),
            value: None,
            old_value: None,
        };
        say(&line(version, &change, self.json))
    }

    fn say_state(&self, server: usize, state: &ServerState) {
        let url = self.url(server);
        match state {
            ServerState::Dialling => warn(&format!("{url}: connecting")),
            ServerState::Standby => warn(&format!("{url}: connected")),
            ServerState::Primary => warn(&format!("{url}: writes go here")),
            ServerState::Lost(why) => warn(&format!("{url}: lost: {why}")),
            ServerState::Unnumbered(why) => {
                warn(&format!("{url}: writes may be made twice: {why}"));
            }
            ServerState::Closed => {}
        }
    }

    fn url(&self, server: usize) -> &str {
        self.urls.get(server).map_or("?", String::as_str)
    }

    async fn close(self) -> Result<(), Failure> {
        Ok(self.mc.nc_close().await?)
    }
}

impl Manner {
    fn options(&self) -> MultiOptions {
        let mut connect = Options::player().with_patience(self.patience);
        connect.trust = match &self.ca {
            Some(file) => Trust::File(file.clone()),
            None if self.insecure => Trust::Anything,
            None => Trust::WellKnown,
        };
        if self.amf3 {
            connect.setup.encoding = session::ObjectEncoding::Amf3;
        }
        MultiOptions {
            connect: tracer::traced(connect),
            need: if self.all { Need::All } else { Need::One },
        }
    }
}

/// A change as a line: version, code, slot, value, old value.
fn line(version: u32, change: &Change, as_json: bool) -> String {
    let shown = |value: &Option<Value>| value.as_ref().map(json::show);
    let (value, old) = (shown(&change.value), shown(&change.old_value));
    let code = code_name(change.code);
    if as_json {
        let slot = (!change.name.is_empty()).then_some(&change.name);
        return json!({
            "version": version, "code": code, "slot": slot, "value": value, "oldValue": old,
        })
        .to_string();
    }
    let mut line = format!("{version} {code}");
    if !change.name.is_empty() {
        line.push(' ');
        line.push_str(&change.name);
    }
    if let Some(value) = value {
        line.push_str(&format!(" {value}"));
    }
    if let Some(old) = old {
        line.push_str(&format!(" (was {old})"));
    }
    line
}

/// What happened at each server of a setup that failed.
fn setup(status: &SetupStatus) -> String {
    let words = status.servers.iter().map(|(url, state)| match state {
        ServerState::Lost(why) => format!("{url}: {why}"),
        ServerState::Dialling => format!("{url}: no answer in time"),
        ServerState::Standby
        | ServerState::Primary
        | ServerState::Unnumbered(_)
        | ServerState::Closed => format!("{url}: connected"),
    });
    words.collect::<Vec<_>>().join("; ")
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Here {
            what: "cannot write to standard output".to_owned(),
            source,
        })
}

#[allow(
    clippy::print_stderr,
    reason = "standard output is for what programs read"
)]
fn warn(line: &str) {
    eprintln!("selvage: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Words {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            words: Words,
        }
        Line::parse_from(std::iter::once(&"so").chain(words)).words
    }

    #[test]
    fn addresses_come_first_then_the_name() {
        let words = words(&["rtmp://a/x", "rtmp://b/x", "chat", "who=\"rtmp://c\""]);
        let split = words.split(1..=9).ok().unwrap();
        assert_eq!(split.urls, ["rtmp://a/x", "rtmp://b/x"]);
        assert_eq!((split.name, split.rest.len()), ("chat", 1));
    }

    #[test]
    fn a_wrong_command_line_is_refused_in_words() {
        for (line, word) in [
            (&["chat"][..], "address"),
            (&["rtmp://a/x"][..], "name"),
            (&["rtmp://a/x", "chat"][..], "follow"),
            (&["rtmp://a/x", "chat", "a", "b"][..], "too much"),
        ] {
            let failure = words(line).split(1..=1).err().unwrap();
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }

    #[test]
    fn a_change_is_one_line() {
        let change = Change {
            code: SyncCode::Change,
            name: "Object_7".to_owned(),
            value: Some(2.0.into()),
            old_value: Some(1.5.into()),
        };
        assert_eq!(line(12, &change, false), "12 change Object_7 2 (was 1.5)");
        let json: Json = serde_json::from_str(&line(12, &change, true)).unwrap();
        let expected = json!({
            "version": 12, "code": "change", "slot": "Object_7", "value": 2, "oldValue": 1.5,
        });
        assert_eq!(json, expected);
        let clear = Change {
            code: SyncCode::Clear,
            name: String::new(),
            value: None,
            old_value: None,
        };
        assert_eq!(line(1, &clear, false), "1 clear");
    }
}
