//! A live stream whose every message is known, and viewers that write down what they get.
//!
//! [`Live`] publishes synthetic H.264 and AAC: real headers, numbered and otherwise
//! random bodies of very different sizes, B-frames, cue points, a new configuration now
//! and then. [`Viewer`] keeps every message with its arrival. [`Viewer::judge`] is the
//! promise of the product in one function.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::raw::amf::{self, Amf};
use super::raw::{Message, Raw, is_timeout, kind};
use super::until::{SOON, until};

/// Pictures between key frames.
const KEY_EVERY: u32 = 25;

/// Pictures between changes of the configuration.
const CONFIG_EVERY: u32 = 60;

/// Milliseconds from picture to picture on the stream's clock.
const PICTURE_MS: u32 = 40;

/// What a tool that inspects a recording would call the handler of stream properties.
const SET_DATA_FRAME: &str = "@setDataFrame";

/// A publisher in a thread of its own.
#[derive(Debug)]
pub struct Live {
    sent: Arc<Mutex<Vec<(Instant, Message)>>>,
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// How a stream is published.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time from picture to picture. The stream's clock always advances by 40 ms.
    pub every: Duration,
    /// The first timestamp.
    pub from: u32,
    /// Bytes of a key frame, about; other pictures have a tenth.
    pub key_bytes: u32,
}

impl Default for Pace {
    /// Four times as fast as the stream's clock, to be done soon.
    fn default() -> Self {
        Self {
            every: Duration::from_millis(10),
            from: 0,
            key_bytes: 40_000,
        }
    }
}

impl Pace {
    /// As fast as the stream's clock.
    pub fn real() -> Self {
        Self {
            every: Duration::from_millis(40),
            ..Self::default()
        }
    }
}

impl Live {
    /// Publishes at an edge.
    ///
    /// # Panics
    /// When the edge refuses.
    #[track_caller]
    pub fn publish(edge: SocketAddr, app: &str, name: &str, pace: Pace) -> Self {
        let mut raw = Raw::connect(edge, app).expect("the edge takes a publisher");
        let stream = raw.create_stream().expect("the edge gives a stream");
        let code = raw
            .publish(stream, name)
            .expect("the edge answers a publish");
        assert_eq!(code, "NetStream.Publish.Start");
        raw.set_chunk_size(4096).expect("the edge reads");
        let sent = Arc::new(Mutex::new(Vec::new()));
        let leave = Arc::new(AtomicBool::new(false));
        let (kept, told) = (Arc::clone(&sent), Arc::clone(&leave));
        let thread = std::thread::spawn(move || publish(raw, stream, pace, &kept, &told));
        Self {
            sent,
            leave,
            thread: Some(thread),
        }
    }

    /// What was sent so far, as a viewer is to get it.
    pub fn sent(&self) -> Vec<Message> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().map(|(_, message)| message.clone()).collect()
    }

    /// As [`Self::sent`], with the moments when the socket was about to be given each.
    pub fn sent_when(&self) -> Vec<(Instant, Message)> {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a message is among the last so many that were sent.
    pub fn sent_lately(&self, message: &Message, count: usize) -> bool {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter()
            .rev()
            .take(count)
            .any(|(_, sent)| sent.body == message.body)
    }

    /// How much was sent so far.
    pub fn count(&self) -> usize {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Waits until so many more messages have been sent.
    ///
    /// # Panics
    /// When the publisher does not get on.
    #[track_caller]
    pub fn go_on(&self, messages: usize) {
        let goal = self.count() + messages;
        until("the publisher has sent more", SOON, || {
            self.count() >= goal || self.is_over()
        });
        assert!(self.count() >= goal, "the publisher was closed");
    }

    /// Whether the publisher's connection has broken.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Closes the connection, and gives out what was sent.
    ///
    /// # Panics
    /// When it broke before.
    #[track_caller]
    pub fn leave(mut self) -> Vec<Message> {
        let result = self.end();
        assert!(
            result.is_ok(),
            "the publisher's connection broke: {result:?}"
        );
        self.sent()
    }

    fn end(&mut self) -> io::Result<()> {
        self.leave.store(true, Ordering::Relaxed);
        let thread = self.thread.take().map(JoinHandle::join);
        thread.map_or(Ok(()), |joined| joined.expect("a publisher does not panic"))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
    }
}

/// A viewer in a thread of its own.
#[derive(Debug)]
pub struct Viewer {
    seen: Arc<Mutex<Seen>>,
    socket: TcpStream,
}

/// What a viewer got.
#[derive(Debug, Default)]
pub struct Seen {
    /// Audio, video and data, without what servers say of their own.
    pub media: Vec<(Instant, Message)>,
    /// The codes of the statuses.
    pub statuses: Vec<String>,
    /// Why the connection ended, if it did.
    pub ended: Option<String>,
}

impl Viewer {
    /// Plays from an edge.
    ///
    /// # Panics
    /// When the edge refuses.
    #[track_caller]
    pub fn play(edge: SocketAddr, app: &str, name: &str) -> Self {
        let mut raw = Raw::connect(edge, app).expect("the edge takes a viewer");
        let stream = raw.create_stream().expect("the edge gives a stream");
        let code = raw.play(stream, name).expect("the edge answers a play");
        assert_eq!(code, "NetStream.Play.Start");
        let socket = raw.socket().try_clone().expect("a socket has two handles");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || watch(raw, &kept));
        Self { seen, socket }
    }

    /// Looks at everything it got so far.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it has got a status with this code.
    pub fn was_told(&self, code: &str) -> bool {
        self.look(|seen| seen.statuses.iter().any(|told| told == code))
    }

    /// How many messages it got so far.
    pub fn count(&self) -> usize {
        self.look(|seen| seen.media.len())
    }

    /// Why its connection ended, if it did.
    pub fn ended(&self) -> Option<String> {
        self.look(|seen| seen.ended.clone())
    }

    /// Waits until it has got a message that was sent.
    ///
    /// # Panics
    /// When it does not get it.
    #[track_caller]
    pub fn until_got(&self, message: &Message) {
        until("the viewer has got the message", SOON, || {
            self.look(|seen| {
                assert_eq!(seen.ended, None, "the viewer's connection ended");
                seen.media
                    .iter()
                    .rev()
                    .any(|(_, got)| got.body == message.body)
            })
        });
    }

    /// The promise: what was in force at the point of joining, then every message from a
    /// key frame on, byte for byte, with the same steps of time. Gives the place in
    /// `sent` where the viewer joined.
    ///
    /// # Panics
    /// When it is broken; says how.
    #[track_caller]
    pub fn judge(&self, sent: &[Message]) -> usize {
        self.look(|seen| {
            assert_eq!(seen.ended, None, "the viewer's connection ended");
            let got: Vec<&Message> = seen.media.iter().map(|(_, message)| message).collect();
            judge(&got, sent).unwrap_or_else(|fault| panic!("{fault}"))
        })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // Wakes the thread, which then drops the connection.
        let _already_closed = self.socket.shutdown(Shutdown::Both);
    }
}

/// See [`Viewer::judge`].
fn judge(got: &[&Message], sent: &[Message]) -> Result<usize, String> {
    let first = got.iter().position(|message| is_picture(message));
    let first = first.ok_or("the viewer saw no picture")?;
    let same = |ours: &&Message| sent.iter().position(|theirs| theirs.body == ours.body);
    let join = same(&got[first]).ok_or("the first picture was never sent")?;
    if !is_key(&sent[join]) {
        return Err(format!("the first picture is no key frame: message {join}"));
    }
    // A viewer who was there from the beginning sees what came before the first picture
    // as it was sent; others are given what was in force, once each.
    for handed in &got[..first] {
        let place = same(handed).ok_or("the viewer got a message that was never sent")?;
        let class = class(&sent[place]);
        let in_force = sent[..join]
            .iter()
            .rposition(|message| self::class(message) == class);
        if class == Class::Other {
            return Err(format!("message {place} came before the first picture"));
        }
        if in_force != Some(place) {
            return Err(format!(
                "{class:?} of message {place} was not in force at {join}"
            ));
        }
    }
    for class in [Class::VideoConfig, Class::AudioConfig, Class::Properties] {
        let handed = got[..first]
            .iter()
            .filter(|message| self::class(message) == class)
            .count();
        if handed != 1 {
            return Err(format!("{class:?} was handed out {handed} times"));
        }
    }
    let start = (got[first].time, sent[join].time);
    for (number, (ours, theirs)) in got[first..].iter().zip(&sent[join..]).enumerate() {
        let place = join + number;
        if (ours.kind, &ours.body) != (theirs.kind, &theirs.body) {
            let what = same(ours).map_or("one that was never sent".into(), |n| format!("{n}"));
            return Err(format!(
                "in the place of message {place} (joined at {join}) came {what}"
            ));
        }
        let steps = (
            ours.time.wrapping_sub(start.0),
            theirs.time.wrapping_sub(start.1),
        );
        if steps.0 != steps.1 {
            return Err(format!(
                "message {place} is {} ms off",
                steps.0.wrapping_sub(steps.1)
            ));
        }
    }
    Ok(join)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    VideoConfig,
    AudioConfig,
    Properties,
    Other,
}

fn class(message: &Message) -> Class {
    match (message.kind, &message.body[..]) {
        (kind::VIDEO, [_, 0, ..]) => Class::VideoConfig,
        (kind::AUDIO, [_, 0, ..]) => Class::AudioConfig,
        (kind::DATA, body) if name(body) == "onMetaData" => Class::Properties,
        _ => Class::Other,
    }
}

fn is_picture(message: &Message) -> bool {
    message.kind == kind::VIDEO && message.body.get(1) == Some(&1)
}

/// Whether a message is a key frame of a picture.
pub fn is_key(message: &Message) -> bool {
    is_picture(message) && message.body[0] >> 4 == 1
}

/// The handler of a data message.
fn name(body: &[u8]) -> String {
    let values = amf::values(body).unwrap_or_default();
    values
        .first()
        .and_then(Amf::as_text)
        .unwrap_or_default()
        .to_owned()
}

fn publish(
    mut raw: Raw,
    stream: u32,
    pace: Pace,
    sent: &Mutex<Vec<(Instant, Message)>>,
    leave: &AtomicBool,
) -> io::Result<()> {
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let send = |raw: &mut Raw, message: Message, as_sent: &[u8]| {
        // First kept, then sent: whoever sees it can find it.
        let (kind, time) = (message.kind, message.time);
        sent.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((Instant::now(), message));
        raw.send(kind, stream, time, as_sent)
    };
    let started = Instant::now();
    for picture in 0_u32.. {
        let time = pace.from.wrapping_add(picture * PICTURE_MS);
        let mut out: Vec<Message> = Vec::new();
        if picture % CONFIG_EVERY == 0 {
            out.push(properties(time, stream, picture));
            let numbered = [&[0x17, 0, 0, 0, 0][..], &picture.to_be_bytes()].concat();
            out.push(Message {
                kind: kind::VIDEO,
                stream,
                time,
                body: numbered,
            });
            let numbered = [&[0xaf, 0][..], &picture.to_be_bytes()].concat();
            out.push(Message {
                kind: kind::AUDIO,
                stream,
                time,
                body: numbered,
            });
        }
        let key = picture % KEY_EVERY == 0;
        let mean = if key {
            pace.key_bytes
        } else {
            pace.key_bytes / 10
        };
        let head = if key { 0x17 } else { 0x27 };
        let composition = u8::try_from(picture % 3 * PICTURE_MS).unwrap_or(0);
        let mut body = vec![head, 1, 0, 0, composition];
        body.extend(picture.to_be_bytes());
        fill(&mut body, mean, &mut dice);
        out.push(Message {
            kind: kind::VIDEO,
            stream,
            time,
            body,
        });
        for part in 0..2 {
            let mut body = vec![0xaf, 1];
            body.extend((picture * 2 + part).to_be_bytes());
            fill(&mut body, 300, &mut dice);
            // Sound that is a little older than the picture before it.
            let time = time
                .wrapping_add(part * 21)
                .wrapping_sub(if picture > 0 { 7 } else { 0 });
            out.push(Message {
                kind: kind::AUDIO,
                stream,
                time,
                body,
            });
        }
        if picture % 10 == 5 {
            let body = amf::bytes(&[Amf::text("onCuePoint"), Amf::Number(picture.into())]);
            out.push(Message {
                kind: kind::DATA,
                stream,
                time,
                body,
            });
        }
        for message in out {
            let as_sent = as_sent(&message);
            send(&mut raw, message, &as_sent)?;
        }
        if leave.load(Ordering::Relaxed) {
            return Ok(());
        }
        let due = started + pace.every * (picture + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Stream properties as viewers get them.
fn properties(time: u32, stream: u32, number: u32) -> Message {
    let object = Amf::Object(vec![
        ("width".into(), Amf::Number(320.0)),
        ("number".into(), Amf::Number(number.into())),
        ("encoder".into(), Amf::text("lab")),
    ]);
    let body = amf::bytes(&[Amf::text("onMetaData"), object]);
    Message {
        kind: kind::DATA,
        stream,
        time,
        body,
    }
}

/// Stream properties are sent with `@setDataFrame` before them.
fn as_sent(message: &Message) -> Vec<u8> {
    if class(message) == Class::Properties {
        [
            amf::bytes(&[Amf::text(SET_DATA_FRAME)]),
            message.body.clone(),
        ]
        .concat()
    } else {
        message.body.clone()
    }
}

/// Appends random bytes, from none to twice the mean.
fn fill(body: &mut Vec<u8>, mean: u32, dice: &mut u64) {
    let mut throw = || {
        // Marsaglia's xorshift.
        *dice ^= *dice << 13;
        *dice ^= *dice >> 7;
        *dice ^= *dice << 17;
        *dice
    };
    let length = throw() % u64::from(mean * 2);
    for _ in 0..length.div_ceil(8) {
        body.extend(throw().to_be_bytes());
    }
}

fn watch(mut raw: Raw, seen: &Mutex<Seen>) {
    let _bad_socket_shows_below = raw
        .socket()
        .set_read_timeout(Some(Duration::from_secs(120)));
    loop {
        let message = raw.read();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            Ok(message) if message.is_media() => {
                // `|RtmpSampleAccess` and `NetStream.Data.Start` are the server's own.
                let own = message.kind == kind::DATA
                    && matches!(
                        name(&message.body).as_str(),
                        "|RtmpSampleAccess" | "onStatus"
                    );
                if !own {
                    seen.media.push((Instant::now(), message));
                }
            }
            Ok(message) => seen.statuses.extend(message.status()),
            Err(error) if is_timeout(&error) => {
                seen.ended = Some("nothing came for two minutes".into());
                return;
            }
            Err(error) => {
                seen.ended = Some(error.to_string());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five pictures after the configuration; the first and the fourth are key frames.
    fn stream() -> Vec<Message> {
        let message = |kind, time, body: &[u8]| Message {
            kind,
            stream: 1,
            time,
            body: body.into(),
        };
        let mut sent = vec![
            properties(0, 1, 0),
            message(kind::VIDEO, 0, &[0x17, 0, 0, 0, 0, 9]),
            message(kind::AUDIO, 0, &[0xaf, 0, 9]),
        ];
        for (number, head) in [(0, 0x17), (1, 0x27), (2, 0x27), (3, 0x17), (4, 0x27)] {
            let time = u32::from(number) * 40;
            sent.push(message(kind::VIDEO, time, &[head, 1, 0, 0, 0, number]));
        }
        sent
    }

    fn verdict(places: &[usize], change: impl Fn(usize, &mut Message)) -> Result<usize, String> {
        let sent = stream();
        let mut got: Vec<Message> = places.iter().map(|place| sent[*place].clone()).collect();
        got.iter_mut()
            .enumerate()
            .for_each(|(number, message)| change(number, message));
        judge(&got.iter().collect::<Vec<_>>(), &sent)
    }

    #[test]
    fn the_judge_accepts_a_join_at_either_key_frame() {
        assert_eq!(verdict(&[0, 1, 2, 3, 4, 5, 6, 7], |_, _| {}), Ok(3));
        assert_eq!(
            verdict(&[1, 2, 0, 6, 7], |_, message| message.time += 1000),
            Ok(6)
        );
    }

    #[test]
    fn the_judge_refuses_a_gap_a_wrong_join_a_changed_byte_and_a_changed_step() {
        assert!(verdict(&[0, 1, 2, 3, 4, 6, 7], |_, _| {}).is_err());
        assert!(verdict(&[0, 1, 2, 4, 5], |_, _| {}).is_err());
        assert!(
            verdict(&[0, 1, 6, 7], |_, _| {}).is_err(),
            "no sound configuration"
        );
        let late = |number, message: &mut Message| message.time += u32::from(number == 4);
        assert!(verdict(&[0, 1, 2, 6, 7], late).is_err());
        let bent = |number, message: &mut Message| {
            if number == 4 {
                message.body.push(0);
            }
        };
        assert!(verdict(&[0, 1, 2, 6, 7], bent).is_err());
    }
}
