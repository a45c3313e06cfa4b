//! What the commands of a script do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use ledger::effect::{Answer, Decision, Effect, ObjectChange, ObjectSync, StreamState};
use ledger::{Command, Ledger, Proposal, Request};
use model::{
    AppInstance, AppName, EdgeId, EdgeLife, Epoch, InstanceName, LogIndex, ObjectKey, ObjectKind,
    ObjectName, OriginId, Policy, SessionId, SlotName, SlotOp, SlotValue, StreamKey, StreamName,
    Version, VhostName,
};
use selvage_ledger as ledger;

/// A log in the making.
pub(crate) struct Stage {
    ledger: Ledger,
    index: LogIndex,
    /// The next number of each session.
    next: BTreeMap<String, u64>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            ledger: Ledger::new(),
            index: LogIndex(0),
            next: BTreeMap::new(),
        }
    }

    /// One line of a script.
    ///
    /// * `WHO@EDGE[#LIFE] REQUEST ...` proposes with the session's next number. `WHO` is one
    ///   letter; a capital letter is a durable session, `-` the edge's own. `again=N` asks
    ///   for number N.
    /// * `lost EDGE[#LIFE]`, `expired OBJECT TOKEN`, `removed ORIGIN`: what the leader adds.
    /// * `sync OBJECT [EPOCH:VERSION]`, `stream NAME`, `snapshot`: questions. `snapshot`
    ///   goes on with what a snapshot gives back.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["sync", name, rest @ ..] => {
                let have = rest.first().map(|have| pair(have));
                match self.ledger.sync(&object(name), have) {
                    Some(sync) => format!("{}\n", show_sync(&sync)),
                    None => "no such object\n".into(),
                }
            }
            ["stream", name] => format!("{}\n", show_stream(&self.ledger.stream(&stream(name)))),
            ["snapshot"] => {
                let again = Ledger::restore(self.ledger.snapshot()).unwrap();
                assert_eq!(again.digest(), self.ledger.digest());
                self.ledger = again;
                "as before\n".into()
            }
            ["lost", edge] => self.apply(&Command::EdgeLost(life(edge))),
            ["expired", name, token] => self.apply(&Command::LockExpired {
                key: object(name),
                token: token.parse().unwrap(),
            }),
            ["removed", origin] => {
                self.apply(&Command::OriginRemoved(OriginId::new(origin).unwrap()))
            }
            [who, rest @ ..] => {
                let command = self.proposal(who, rest);
                self.apply(&command)
            }
            [] => String::new(),
        }
    }

    fn apply(&mut self, command: &Command) -> String {
        self.index.0 += 1;
        let applied = self.ledger.apply(self.index, command);
        let mut text = String::new();
        for (at, effect) in applied.effects.iter().enumerate() {
            let index = if at == 0 {
                self.index.to_string()
            } else {
                String::new()
            };
            writeln!(text, "{index:>3} {}", show(effect)).unwrap();
        }
        if text.is_empty() {
            writeln!(text, "{:>3} nothing", self.index).unwrap();
        }
        text
    }

    fn proposal(&mut self, who: &str, words: &[&str]) -> Command {
        let (name, edge) = who.split_once('@').unwrap();
        let owner = if name == "-" { edge } else { name };
        let next = self.next.entry(owner.into()).or_insert(1);
        let again = words.iter().find_map(|word| word.strip_prefix("again="));
        let seq = match again {
            Some(seq) => seq.parse().unwrap(),
            None => {
                *next += 1;
                *next - 1
            }
        };
        let words: Vec<_> = words
            .iter()
            .copied()
            .filter(|w| !w.starts_with("again="))
            .collect();
        Command::Propose(Proposal {
            session: session(owner),
            seq,
            edge: life(edge),
            durable: name.chars().all(char::is_uppercase),
            trace: Bytes::new(),
            request: self.request(&words),
        })
    }

    fn request(&self, words: &[&str]) -> Request {
        match words {
            ["register"] => Request::Register,
            ["open", name, rest @ ..] => Request::Open {
                key: object(name),
                kind: if rest.contains(&"persistent") {
                    ObjectKind::Persistent
                } else {
                    ObjectKind::Temporary
                },
                have: rest
                    .iter()
                    .find(|word| word.contains(':'))
                    .map(|have| pair(have)),
            },
            ["close", name] => Request::Close { key: object(name) },
            ["end", names @ ..] => {
                Request::EndSessions(names.iter().map(|name| session(name)).collect())
            }
            // `write OBJECT@BASE [lww] slot=value -slot clear`, of the newest incarnation.
            ["write", at, ops @ ..] => {
                let (name, base) = at.split_once('@').unwrap();
                let key = object(name);
                let epoch = self
                    .ledger
                    .sync(&key, None)
                    .map_or(Epoch(0), |sync| sync.epoch);
                Request::Batch {
                    key,
                    epoch,
                    base: Version(base.parse().unwrap()),
                    policy: if ops.contains(&"lww") {
                        Policy::LastWriterWins
                    } else {
                        Policy::Optimistic
                    },
                    ops: ops
                        .iter()
                        .filter(|op| **op != "lww")
                        .map(|op| slot_op(op))
                        .collect(),
                }
            }
            ["send", name, text] => Request::Send {
                key: object(name),
                payload: Bytes::copy_from_slice(text.as_bytes()),
            },
            ["lock", name] => Request::Lock {
                key: object(name),
                lease_ms: 5000,
            },
            ["unlock", name] => Request::Unlock { key: object(name) },
            ["claim", name, publication, rest @ ..] => Request::Claim {
                key: stream(name),
                publication: publication.parse().unwrap(),
                token: Bytes::copy_from_slice(
                    rest.iter()
                        .find_map(|word| word.strip_prefix("token="))
                        .unwrap_or_default()
                        .as_bytes(),
                ),
                above: Epoch(
                    rest.iter()
                        .find_map(|word| word.strip_prefix("above="))
                        .map_or(0, |above| above.parse().unwrap()),
                ),
            },
            ["affirm", name, epoch] => Request::Affirm {
                key: stream(name),
                epoch: Epoch(epoch.parse().unwrap()),
            },
            ["release", name, publication] => Request::Release {
                key: stream(name),
                publication: publication.parse().unwrap(),
            },
            ["place", name, epoch, origin] => Request::Place {
                key: stream(name),
                epoch: Epoch(epoch.parse().unwrap()),
                origin: OriginId::new(origin).unwrap(),
            },
            ["home", app, origin] => Request::Home {
                at: at(app),
                origin: OriginId::new(origin).unwrap(),
            },
            ["void"] => Request::Void,
            _ => panic!("what is {words:?}?"),
        }
    }
}

fn at(app: &str) -> AppInstance {
    AppInstance {
        vhost: VhostName::default_vhost(),
        app: AppName::new(app).unwrap(),
        instance: InstanceName::default_instance(),
    }
}

fn object(name: &str) -> ObjectKey {
    ObjectKey {
        at: at("app"),
        name: ObjectName::new(name).unwrap(),
    }
}

fn stream(name: &str) -> StreamKey {
    StreamKey {
        at: at("app"),
        name: StreamName::new(name).unwrap(),
    }
}

fn session(name: &str) -> SessionId {
    let bytes = name.bytes().fold(0, |id, byte| id << 8 | u128::from(byte));
    SessionId(bytes)
}

fn life(text: &str) -> EdgeLife {
    let (edge, incarnation) = text.split_once('#').unwrap_or((text, "1"));
    EdgeLife {
        edge: EdgeId::new(edge).unwrap(),
        incarnation: incarnation.parse().unwrap(),
    }
}

fn pair(text: &str) -> (Epoch, Version) {
    let (epoch, version) = text.split_once(':').unwrap();
    (
        Epoch(epoch.parse().unwrap()),
        Version(version.parse().unwrap()),
    )
}

fn slot_op(text: &str) -> SlotOp {
    let slot = |name: &str| SlotName::new(name).unwrap();
    if text == "clear" {
        SlotOp::Clear
    } else if let Some(name) = text.strip_prefix('-') {
        SlotOp::Remove { slot: slot(name) }
    } else {
        let (name, value) = text.split_once('=').unwrap();
        SlotOp::Set {
            slot: slot(name),
            value: SlotValue(Bytes::copy_from_slice(value.as_bytes())),
        }
    }
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn who(id: SessionId) -> String {
    let bytes = id.0.to_be_bytes();
    String::from_utf8(bytes.into_iter().filter(|byte| *byte > 0).collect()).unwrap()
}

fn show(effect: &Effect) -> String {
    match effect {
        Effect::Answer {
            to,
            session,
            seq,
            answer,
        } => {
            format!("{to} <- {}/{seq}: {}", who(*session), show_answer(answer))
        }
        Effect::Object {
            key,
            epoch,
            by,
            change,
        } => {
            let by = by.map_or(String::new(), |(id, seq)| format!(" by {}/{seq}", who(id)));
            format!("{} of {}{by}: {}", key.name, epoch.0, show_change(change))
        }
        Effect::Stream { key, state } => format!("stream {}: {}", key.name, show_stream(state)),
        Effect::Challenge {
            to,
            key,
            epoch,
            publication,
        } => {
            format!(
                "{to} <- does {publication} of {} live, epoch {}?",
                key.name, epoch.0
            )
        }
        Effect::Claim {
            to,
            key,
            publication,
            decision,
        } => {
            let decision = match decision {
                Decision::Granted {
                    epoch,
                    takeover: false,
                } => format!("granted, epoch {}", epoch.0),
                Decision::Granted {
                    epoch,
                    takeover: true,
                } => format!("takes over, epoch {}", epoch.0),
                Decision::Refused => "refused".into(),
                Decision::Ended { epoch } => format!("epoch {} has ended", epoch.0),
            };
            format!("{to} <- {publication} of {}: {decision}", key.name)
        }
        Effect::EdgeLost { edge } => format!("{edge} is lost"),
        Effect::Locked {
            key,
            token,
            lease_ms,
        } => {
            format!("{} is locked: token {token} for {lease_ms} ms", key.name)
        }
        Effect::Unlocked { key, token } => format!("{} is unlocked: token {token}", key.name),
        Effect::Home { at, origin } => match origin {
            Some(origin) => format!("{at} lives at {origin}"),
            None => format!("{at} has no home"),
        },
    }
}

fn show_answer(answer: &Answer) -> String {
    match answer {
        Answer::Opened(sync) => format!("opened, {}", show_sync(sync)),
        Answer::Written { version, refused } if refused.is_empty() => {
            format!("written, version {version}")
        }
        Answer::Written { version, refused } => {
            format!("written, version {version}, but for {refused:?}")
        }
        Answer::Granted { epoch } => format!("granted, epoch {}", epoch.0),
        other => format!("{other:?}"),
    }
}

fn show_change(change: &ObjectChange) -> String {
    match change {
        ObjectChange::Slots {
            version,
            cleared,
            slots,
        } => {
            let mut shown = format!("version {version}");
            if *cleared {
                shown.push_str(" clear");
            }
            for (name, value) in slots {
                match value {
                    Some(value) => write!(shown, " {name}={}", text(&value.0)).unwrap(),
                    None => write!(shown, " -{name}").unwrap(),
                }
            }
            shown
        }
        ObjectChange::Send { payload } => format!("message {}", text(payload)),
    }
}

fn show_sync(sync: &ObjectSync) -> String {
    let mut shown = format!("{}:{}", sync.epoch.0, sync.version);
    shown.push_str(if sync.reset { " all:" } else { " news:" });
    for (name, value, version) in &sync.slots {
        write!(shown, " {name}={}@{version}", text(&value.0)).unwrap();
    }
    for (name, version) in &sync.removed {
        write!(shown, " -{name}@{version}").unwrap();
    }
    write!(shown, " (forgotten {})", sync.forgotten).unwrap();
    shown
}

fn show_stream(state: &StreamState) -> String {
    let holder = match &state.holder {
        Some(holder) => format!("held by {holder}"),
        None => "held by nobody".into(),
    };
    let origin = state
        .origin
        .as_ref()
        .map_or(String::new(), |o| format!(", media at {o}"));
    format!("epoch {}, {holder}{origin}", state.epoch.0)
}
