//! What a client asks, as spans: from its message to our answer.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use amf::Value;
use bytes::Bytes;
use model::ObjectName;
use model::object::{ObjectAsk, ObjectEvent, ObjectUpdate};
use node::telemetry::{Kind, Phase, SpanPlace, is_traced};
use rtmp::StreamId;
use session::RequestId;
use session::object::ObjectRequest;

use crate::limits::{STRAY_CALLS_SHOWN, TRACED_MESSAGES_MAX, TRACED_WRITES_MAX};
use crate::play::LocalChannel;

/// A play that nothing comes for is looked at no longer: its span is to be seen while it waits.
const FIRST_MEDIA_MAX: Duration = Duration::from_secs(10);

/// A write that is not answered is looked at no longer, so that its span is seen. A message to all
/// never comes back to a sender that does not use the object.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long until one more is shown.
const STRAY_CALL_EVERY: Duration = Duration::from_millis(100);

/// The command by which a client says which trace its next request belongs to.
pub(super) const CONTEXT: &str = "traceparent";

/// The methods that there are. What else clients call has no name in a trace that could be
/// counted by.
const METHODS: [&str; 2] = ["selvage.lock", "selvage.unlock"];

/// Bytes of a method's name that are shown when it is none of ours.
const METHOD_SHOWN: usize = 64;

/// What of a client is told in spans and is not done.
#[derive(Default)]
pub(super) struct Traces {
    /// The client may say which trace it belongs to.
    trusted: bool,
    /// What it said last, for its next request.
    context: Option<SpanPlace>,
    plays: Vec<Opening>,
    calls: BTreeMap<RequestId, Phase>,
    writes: VecDeque<Writing>,
    /// Stray calls that were shown and are not made up for, as of a moment.
    strays: (u32, Option<Instant>),
}

/// A play that has brought nothing yet.
struct Opening {
    stream: StreamId,
    phase: Phase,
    until: Instant,
}

/// What a client wrote to an object.
struct Writing {
    name: ObjectName,
    /// Answers that are missing.
    left: usize,
    /// Messages to all come back as they are: length and digest of each.
    messages: Vec<(usize, u64)>,
    until: Instant,
    phase: Phase,
}

impl Traces {
    pub(super) fn new(trusted: bool) -> Self {
        Self {
            trusted,
            ..Self::default()
        }
    }

    /// The client says which trace its next request belongs to. What is none, or of a client
    /// that has no say, is passed over.
    pub(super) fn context(&mut self, args: &[Value]) {
        if self.trusted {
            let said = args.first().and_then(Value::as_str);
            self.context = said.and_then(|text| SpanPlace::parse(text.as_bytes()));
        }
    }

    /// A request begins.
    pub(super) fn root(&mut self, name: &'static str) -> Phase {
        Phase::root(name, Kind::Server, self.context.take())
    }

    // ----- plays

    /// A play begins that `phase` tells of.
    pub(super) fn plays(&mut self, stream: StreamId, phase: Phase, now: Instant) {
        if phase.is_wanted() {
            let until = now + FIRST_MEDIA_MAX;
            self.plays.push(Opening {
                stream,
                phase,
                until,
            });
        }
    }

    /// A play is given media.
    pub(super) fn media(&mut self, stream: StreamId, channel: &LocalChannel) {
        // Nearly always there is none that waits for it.
        if self.plays.is_empty() {
            return;
        }
        if let Some(at) = self.plays.iter().position(|one| one.stream == stream) {
            let mut phase = self.plays.swap_remove(at).phase;
            phase.link(channel.publish.get());
            phase.set("selvage.play.media", true);
            phase.end();
        }
    }

    /// A play is over.
    pub(super) fn play_ends(&mut self, stream: StreamId) {
        if let Some(at) = self.plays.iter().position(|one| one.stream == stream) {
            let mut phase = self.plays.swap_remove(at).phase;
            phase.set("selvage.play.media", false);
            phase.end();
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let plays = self.plays.iter().map(|one| one.until);
        plays.chain(self.writes.front().map(|one| one.until)).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for mut late in self.plays.extract_if(.., |one| one.until <= now) {
            late.phase.set("selvage.play.media", false);
        }
        while self.writes.front().is_some_and(|one| one.until <= now) {
            self.writes.pop_front();
        }
    }

    // ----- calls

    /// Whether one more call of a method that does not exist is shown.
    fn shows_stray(&mut self, now: Instant) -> bool {
        let (shown, since) = &mut self.strays;
        let since = since.get_or_insert(now);
        let steps =
            now.saturating_duration_since(*since).as_millis() / STRAY_CALL_EVERY.as_millis();
        if let Ok(steps) = u32::try_from(steps)
            && steps < *shown
        {
            *shown -= steps;
            *since += STRAY_CALL_EVERY * steps;
        } else {
            (*shown, *since) = (0, now);
        }
        let room = *shown < STRAY_CALLS_SHOWN;
        *shown += u32::from(room);
        room
    }

    /// A method is called that does not exist.
    pub(super) fn stray_call(&mut self, name: &str, now: Instant) {
        if !is_traced() || !self.shows_stray(now) {
            self.context = None;
            return;
        }
        let mut phase = self.call(name);
        phase.set("error.type", "not_found");
        phase.fail("no such method");
    }

    /// A call begins. The session bounds how many wait for an answer.
    pub(super) fn call(&mut self, name: &str) -> Phase {
        let mut phase = self.root("call");
        if phase.is_wanted() {
            match METHODS.iter().find(|method| **method == name) {
                Some(method) => phase.set("rpc.method", *method),
                None => {
                    phase.set("rpc.method", "_OTHER");
                    let shown = name.floor_char_boundary(METHOD_SHOWN);
                    let shown = name.get(..shown).unwrap_or_default();
                    phase.set("rpc.method_original", shown.to_owned());
                }
            }
            phase.set("rpc.system.name", "rtmp");
        }
        phase
    }

    /// A call waits for its answer.
    pub(super) fn called(&mut self, request: RequestId, phase: Phase) {
        if phase.is_wanted() {
            self.calls.insert(request, phase);
        }
    }

    /// A call is answered. `wrong` says what it came to if nothing came of it.
    pub(super) fn returned(&mut self, request: RequestId, wrong: Option<&'static str>) {
        if let Some(mut phase) = self.calls.remove(&request)
            && let Some(wrong) = wrong
        {
            phase.set("error.type", wrong);
            phase.fail(wrong);
        }
    }

    // ----- writes

    /// The client writes to an object, or says something to all who use it. Gives the context
    /// for the commands, empty when its trace is not wanted.
    pub(super) fn writes(
        &mut self,
        request: &ObjectRequest,
        key: &model::ObjectKey,
        now: Instant,
    ) -> Bytes {
        let count = |wanted: fn(&ObjectAsk) -> bool| {
            let asks = request.asks.iter();
            asks.filter(|ask| wanted(ask)).count()
        };
        let written = count(|ask| matches!(ask, ObjectAsk::Write(_)));
        let sent = count(|ask| matches!(ask, ObjectAsk::Send(_)));
        let left = written + sent.min(TRACED_MESSAGES_MAX);
        if left == 0 {
            return Bytes::new();
        }
        let mut phase = self.root("object.write");
        let Some(place) = phase.sampled() else {
            return Bytes::new();
        };
        if phase.is_wanted() {
            let (mut operations, mut bytes) = (0, 0);
            let mut messages = Vec::new();
            for ask in &request.asks {
                match ask {
                    ObjectAsk::Write(ops) => {
                        operations += ops.len();
                        bytes += ops.iter().map(size).sum::<usize>();
                    }
                    ObjectAsk::Send(payload) => {
                        bytes += payload.len();
                        if messages.len() < TRACED_MESSAGES_MAX {
                            messages.push((payload.len(), digest(payload)));
                        }
                    }
                    ObjectAsk::Use | ObjectAsk::Release => {}
                }
            }
            phase.show("selvage.object.key", key);
            phase.count("selvage.object.operations", operations as u64);
            phase.count("selvage.object.messages", sent as u64);
            phase.count("selvage.bytes", bytes as u64);
            if self.writes.len() >= TRACED_WRITES_MAX {
                self.writes.pop_front();
            }
            self.writes.push_back(Writing {
                name: request.name.clone(),
                left,
                messages,
                until: now + ANSWER_MAX,
                phase,
            });
        }
        Bytes::from(place.text())
    }

    /// The client alone is told something of an object: what became of its oldest write, if it
    /// is not what it asked to use.
    pub(super) fn answered(&mut self, update: &ObjectUpdate) {
        let used = |event: &ObjectEvent| matches!(event, ObjectEvent::UseSuccess);
        if self.writes.is_empty() || update.events.iter().any(used) {
            return;
        }
        let status = update.events.iter().find_map(|event| {
            if let ObjectEvent::Status(status) = event {
                Some(*status)
            } else {
                None
            }
        });
        let of = |one: &Writing| one.name == update.name && one.left > one.messages.len();
        let any = |one: &Writing| one.name == update.name;
        let at = self.writes.iter().position(of);
        if let Some(at) = at.or_else(|| self.writes.iter().position(any)) {
            if let Some(one) = self.writes.get_mut(at) {
                one.phase
                    .count("selvage.object.version", u64::from(update.version.0));
                if let Some(status) = status {
                    let text = format!("{status:?}");
                    one.phase.set("error.type", text.clone());
                    one.phase.fail(text);
                }
            }
            self.settle(at);
        }
    }

    /// All who use an object are told something, perhaps what the client said.
    pub(super) fn heard(&mut self, update: &ObjectUpdate) {
        if self.writes.is_empty() {
            return;
        }
        for event in &update.events {
            let ObjectEvent::Send(payload) = event else {
                continue;
            };
            let alike = |one: &Writing| {
                let mut lengths = one.messages.iter().map(|(length, _)| *length);
                one.name == update.name && lengths.any(|length| length == payload.len())
            };
            if !self.writes.iter().any(alike) {
                continue;
            }
            let heard = (payload.len(), digest(payload));
            let own = |one: &Writing| one.name == update.name && one.messages.contains(&heard);
            if let Some(at) = self.writes.iter().position(own) {
                if let Some(one) = self.writes.get_mut(at)
                    && let Some(said) = one.messages.iter().position(|said| *said == heard)
                {
                    one.messages.swap_remove(said);
                }
                self.settle(at);
            }
        }
    }

    /// One answer more is there.
    fn settle(&mut self, at: usize) {
        if let Some(one) = self.writes.get_mut(at) {
            one.left = one.left.saturating_sub(1);
            if one.left == 0 {
                self.writes.remove(at);
            }
        }
    }
}

/// Whoever makes two messages alike sees one of its own spans end early.
fn digest(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

fn size(op: &model::SlotOp) -> usize {
    match op {
        model::SlotOp::Set { slot, value } => slot.as_str().len() + value.0.len(),
        model::SlotOp::Remove { slot } => slot.as_str().len(),
        model::SlotOp::Clear => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stray_calls_are_shown_so_often_and_then_once_in_a_while() {
        let mut traces = Traces::new(false);
        let start = Instant::now();
        let shown =
            |traces: &mut Traces, now| (0..1000).filter(|_| traces.shows_stray(now)).count();
        assert_eq!(shown(&mut traces, start), STRAY_CALLS_SHOWN as usize);
        assert_eq!(shown(&mut traces, start), 0);
        let later = start + STRAY_CALL_EVERY * 5 / 2;
        assert_eq!(shown(&mut traces, later), 2);
        assert_eq!(
            shown(&mut traces, later + STRAY_CALL_EVERY / 2),
            1,
            "the half is kept"
        );
        let much_later = later + STRAY_CALL_EVERY * 10_000;
        assert_eq!(shown(&mut traces, much_later), STRAY_CALLS_SHOWN as usize);
    }
}
