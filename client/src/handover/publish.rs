//! The handover of a publish.
//!
//! The second connection publishes the same name with the same `publisher=` and so stands by.
//! At the next key frame all that was sent before has been taken by the old server, whose
//! connection is closed; it is the other's turn then, which begins with that key frame, or with
//! sound or data if there are no pictures, or none any more.

use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use model::{Class, Kind, MediaTime, Slot};
use rtmp::{MessageKind, StreamId};
use session::client::Event;

use super::{Home, Opened, Opening, Pace};
use crate::Publisher;
use crate::limits::{KEPT_CONFIG_BYTES_MAX, KEPT_CONFIGS_MAX, SEAM_SILENCE_MS};
use crate::publisher::judge_status;

/// A publish that is on its way to another server.
pub(crate) struct Standby {
    home: Home,
    tc_url: Option<String>,
    arriving: Arriving,
}

enum Arriving {
    Opening(Opening),
    Open(Box<Opened>),
}

impl std::fmt::Debug for Standby {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standby")
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Standby {
    /// Sets out.
    pub(crate) fn begin(home: &Home, tc_url: Option<String>) -> Self {
        Self {
            arriving: open(home, tc_url.as_deref(), home.pace.asked(Instant::now())),
            home: home.clone(),
            tc_url,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.arriving, Arriving::Open(_))
    }

    /// Gets on until it is open, and then answers what the server says, for as long as it
    /// would have us. May be dropped and called again.
    pub(crate) async fn advance(&mut self) {
        match &mut self.arriving {
            Arriving::Opening(opening) => {
                self.arriving = Arriving::Open(Box::new(opening.await));
            }
            Arriving::Open(open) => {
                while let Ok((event, _)) = open.connection.next_event().await {
                    if let Some(tc_url) = super::request(&event) {
                        // It is about to go as well.
                        self.tc_url = tc_url;
                        break;
                    }
                    if is_over(&event, open.stream) {
                        break;
                    }
                }
                let pace = open.pace.failed(Instant::now());
                self.arriving = self::open(&self.home, self.tc_url.as_deref(), pace);
            }
        }
    }

    /// Gets on as far as it can without waiting.
    pub(crate) async fn nudge(&mut self) {
        poll_fn(|cx| {
            let advance = std::pin::pin!(self.advance());
            let _later = advance.poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Waits until it is open.
    pub(crate) async fn opened(&mut self) {
        while !self.is_open() {
            self.advance().await;
        }
    }

    /// The connection that stands by.
    pub(crate) fn into_open(self) -> Option<Opened> {
        match self.arriving {
            Arriving::Open(open) => Some(*open),
            Arriving::Opening(_) => None,
        }
    }
}

/// Whether nothing can be published there any more.
fn is_over(event: &Event, stream: StreamId) -> bool {
    if let Event::Status { stream: of, status } = event {
        return *of == stream && judge_status(status).is_err();
    }
    matches!(event, Event::Closed { .. })
}

fn open(home: &Home, tc_url: Option<&str>, pace: Pace) -> Arriving {
    Arriving::Opening(home.open(tc_url, pace, |target, options| async move {
        let publisher = Publisher::open_once(&target, &options).await?;
        Ok(publisher.into_parts())
    }))
}

/// What a server that takes over must be told before anything else: the configurations in force.
///
/// In the order in which a server gives them to those who join: data, then video, then audio;
/// within a kind as they were set.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    configs: Vec<Config>,
}

#[derive(Debug)]
struct Config {
    kind: Kind,
    slot: Slot,
    carrier: MessageKind,
    payload: Bytes,
}

impl Kept {
    /// Takes note of what is published, and says what it is; nothing for a message that no
    /// viewer gets.
    pub(crate) fn note(&mut self, carrier: MessageKind, payload: &Bytes) -> Option<Class> {
        let kind = match carrier {
            MessageKind::Audio => Kind::Audio,
            MessageKind::Video => Kind::Video,
            MessageKind::DataAmf0 | MessageKind::DataAmf3 => Kind::Data,
            MessageKind::UserControl
            | MessageKind::SharedObjectAmf3
            | MessageKind::CommandAmf3
            | MessageKind::SharedObjectAmf0
            | MessageKind::CommandAmf0 => return None,
        };
        // One that is wrong is for the server to refuse.
        let frame = flv::frame(kind, MediaTime(0), payload.clone()).ok()??;
        let (class, slot) = (frame.class, frame.slot);
        if matches!(class, Class::Config | Class::Clear) {
            self.configs
                .retain(|old| (old.kind, old.slot) != (kind, slot));
        }
        if class == Class::Config && self.has_room_for(payload) {
            self.configs.push(Config {
                kind,
                slot,
                carrier,
                payload: payload.clone(),
            });
        }
        Some(class)
    }

    fn has_room_for(&self, payload: &Bytes) -> bool {
        let bytes: usize = self.configs.iter().map(|old| old.payload.len()).sum();
        self.configs.len() < KEPT_CONFIGS_MAX && bytes + payload.len() <= KEPT_CONFIG_BYTES_MAX
    }

    pub(crate) fn all(&self) -> Vec<(MessageKind, Bytes)> {
        [Kind::Data, Kind::Video, Kind::Audio]
            .into_iter()
            .flat_map(|kind| {
                self.configs
                    .iter()
                    .filter(move |config| config.kind == kind)
            })
            .map(|config| (config.carrier, config.payload.clone()))
            .collect()
    }
}

/// Finds out where another server can begin: with what no picture depends on.
#[derive(Debug, Default)]
pub(crate) struct Seams {
    /// There is sound, and no picture.
    sound: Alone,
    /// There is data, and neither sound nor pictures.
    data: Alone,
}

impl Seams {
    /// Takes note of what is published, by what [`Kept::note`] says of it. True where another
    /// server can begin.
    pub(crate) fn note(&mut self, carrier: MessageKind, class: Class, time: u32) -> bool {
        match (carrier, class) {
            (MessageKind::Video, Class::Config) => {
                self.sound.announce();
                self.data.announce();
                false
            }
            (MessageKind::Video, _) => {
                self.sound.end();
                self.data.end();
                class == Class::Key
            }
            (MessageKind::Audio, Class::Config) => {
                self.data.announce();
                false
            }
            (MessageKind::Audio, _) => {
                self.data.end();
                self.sound.goes_on(time)
            }
            // There may be nothing else than data that is kept.
            _ => self.data.goes_on(time),
        }
    }
}

/// Whether something is published without that which others should wait for.
#[derive(Clone, Copy, Debug, Default)]
enum Alone {
    /// That was never published.
    #[default]
    Always,
    /// That was the last to be published.
    No,
    /// Since this time.
    Since(u32),
}

impl Alone {
    /// That is about to be published.
    const fn announce(&mut self) {
        if matches!(self, Self::Always) {
            *self = Self::No;
        }
    }

    /// That is published.
    const fn end(&mut self) {
        *self = Self::No;
    }

    /// The other is published. True if there is nothing to wait for.
    const fn goes_on(&mut self, time: u32) -> bool {
        match *self {
            Self::Always => true,
            Self::No => {
                *self = Self::Since(time);
                false
            }
            Self::Since(since) => {
                let passed = time.wrapping_sub(since).cast_signed();
                if passed < 0 {
                    // The publisher has set its clock back.
                    *self = Self::Since(time);
                }
                passed >= SEAM_SILENCE_MS.cast_signed()
            }
        }
    }
}

/// The name with a word in its query by which the fabric knows the publisher again.
pub(crate) fn with_token(name: &str) -> String {
    if name.contains("?publisher=") || name.contains("&publisher=") {
        return name.to_owned();
    }
    let joint = if name.contains('?') { '&' } else { '?' };
    let token = RandomState::new().hash_one(name);
    format!("{name}{joint}publisher={token:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gets_a_token_unless_it_has_one() {
        assert_eq!(with_token("a?publisher=x"), "a?publisher=x");
        assert!(with_token("a").starts_with("a?publisher="));
        assert!(with_token("a?b=c").starts_with("a?b=c&publisher="));
        assert_ne!(with_token("a"), with_token("a"));
    }

    const SEQUENCE_START: Bytes = Bytes::from_static(b"\x90hvc1\x01");
    const COLOUR_INFO: Bytes = Bytes::from_static(b"\x94hvc1\x02\x00\x09colorInfo");

    /// The start of one track of many.
    fn track(id: u8) -> Bytes {
        Bytes::from([b"\x96\x00hvc1", &[id][..], b"\x01"].concat())
    }

    fn told(published: &[(MessageKind, Bytes)]) -> Vec<(MessageKind, Bytes)> {
        let mut kept = Kept::default();
        for (kind, payload) in published {
            kept.note(*kind, payload);
        }
        kept.all()
    }

    #[test]
    fn another_server_can_begin_at_a_key_frame_or_with_any_sound_where_there_are_no_pictures() {
        let (mut kept, mut seams) = (Kept::default(), Seams::default());
        let mut note = |kind, payload| {
            let class = kept.note(kind, &Bytes::from_static(payload)).unwrap();
            seams.note(kind, class, 0)
        };
        assert!(!note(MessageKind::Audio, &[0xaf, 0, 1, 2]));
        assert!(note(MessageKind::Audio, &[0xaf, 1, 1, 2]));
        assert!(!note(MessageKind::Video, &[0x17, 0, 0, 0, 0, 1]));
        assert!(note(MessageKind::Video, &[0x17, 1, 0, 0, 0, 1]));
        assert!(!note(MessageKind::Video, &[0x27, 1, 0, 0, 0, 1]));
        assert!(!note(MessageKind::Audio, &[0xaf, 1, 1, 2]));
        let kinds: Vec<_> = kept.all().into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [MessageKind::Video, MessageKind::Audio]);
    }

    #[test]
    fn data_alone_is_enough_to_begin_with_kept_or_not() {
        let data = MessageKind::DataAmf0;
        let mut seams = Seams::default();
        assert!(seams.note(data, Class::Config, 0));
        assert!(seams.note(data, Class::Data, 0));
        assert!(!seams.note(MessageKind::Audio, Class::Config, 0));
        assert!(!seams.note(data, Class::Data, 40));
        assert!(seams.note(MessageKind::Audio, Class::Audio, 40));
        assert!(!seams.note(data, Class::Data, 80));
    }

    #[test]
    fn sound_and_data_are_enough_when_the_pictures_have_ended() {
        use MessageKind::{Audio, DataAmf0 as Data, Video};
        // The clock of a publisher wraps.
        let at = |ms: u32| (u32::MAX - 1000).wrapping_add(ms);
        let silence = SEAM_SILENCE_MS;
        let mut seams = Seams::default();
        assert!(seams.note(Video, Class::Key, at(0)));
        // Pictures that come seldom are pictures, whatever the clock of the sound says.
        for ms in [0, 2 * silence, 4 * silence] {
            assert!(!seams.note(Audio, Class::Audio, at(ms)));
            assert!(!seams.note(Video, Class::Delta, at(ms)));
        }
        for ms in (0..silence).step_by(100) {
            assert!(!seams.note(Audio, Class::Audio, at(ms)), "{ms}");
            assert!(!seams.note(Data, Class::Data, at(ms)), "{ms}");
        }
        // Nothing comes of it yet that they are announced again.
        assert!(!seams.note(Video, Class::Config, at(silence)));
        assert!(seams.note(Audio, Class::Audio, at(silence)));
        assert!(!seams.note(Data, Class::Data, at(silence)));
        assert!(seams.note(Audio, Class::Audio, at(silence + 20)));
        // The sound ends as well.
        assert!(!seams.note(Data, Class::Data, at(silence + 40)));
        assert!(seams.note(Data, Class::Data, at(2 * silence + 40)));
        // And all is as it was.
        assert!(!seams.note(Video, Class::Delta, at(0)));
        assert!(!seams.note(Audio, Class::Audio, at(2 * silence)));
        assert!(seams.note(Video, Class::Key, at(0)));
    }

    #[test]
    fn a_clock_that_is_set_back_begins_anew() {
        let mut seams = Seams::default();
        seams.note(MessageKind::Video, Class::Delta, 100_000);
        assert!(!seams.note(MessageKind::Audio, Class::Audio, 100_000));
        assert!(!seams.note(MessageKind::Audio, Class::Audio, 0));
        assert!(seams.note(MessageKind::Audio, Class::Audio, SEAM_SILENCE_MS));
    }

    #[test]
    fn configurations_that_are_in_force_side_by_side_are_all_told() {
        let video = |payload| (MessageKind::Video, payload);
        let audio = |payload| (MessageKind::Audio, Bytes::from_static(payload));
        let start = audio(b"\x90Opus\x01");
        let channels = audio(b"\x94Opus\x01\x02\x03");
        let all = [
            video(SEQUENCE_START),
            video(COLOUR_INFO),
            video(track(1)),
            video(track(2)),
            start.clone(),
            channels.clone(),
        ];
        assert_eq!(told(&all), all);
        // In the order in which they were set, but sound behind pictures.
        let [start_of_video, colours, ..] = all;
        let mixed = [
            start.clone(),
            start_of_video.clone(),
            channels.clone(),
            colours.clone(),
            start_of_video.clone(),
        ];
        assert_eq!(told(&mixed), [colours, start_of_video, start, channels]);
    }

    #[test]
    fn data_is_told_first_as_it_came_until_it_is_cleared() {
        let data = |payload| (MessageKind::DataAmf0, Bytes::from_static(payload));
        let metadata = data(b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x05");
        let title = (
            MessageKind::DataAmf3,
            Bytes::from_static(b"\x00\x02\x00\x0d@setDataFrame\x02\x00\x05title\x05"),
        );
        let sound = (MessageKind::Audio, Bytes::from_static(&[0xaf, 0, 1, 2]));
        let mut published = vec![sound.clone(), metadata.clone(), title.clone()];
        published.push(data(b"\x02\x00\x05onCue\x05"));
        assert_eq!(told(&published), [metadata.clone(), title, sound.clone()]);
        published.push(data(b"\x02\x00\x0f@clearDataFrame\x02\x00\x05title"));
        assert_eq!(told(&published), [metadata, sound]);
    }

    #[test]
    fn no_more_is_kept_than_a_server_keeps() {
        let mut kept = Kept::default();
        for id in 0..=u8::MAX {
            kept.note(MessageKind::Video, &track(id));
        }
        assert_eq!(kept.all().len(), KEPT_CONFIGS_MAX);
        let mut long = SEQUENCE_START.to_vec();
        long.resize(KEPT_CONFIG_BYTES_MAX, 0);
        let mut kept = Kept::default();
        kept.note(MessageKind::Video, &track(1));
        kept.note(MessageKind::Video, &SEQUENCE_START);
        kept.note(MessageKind::Video, &long.into());
        // Nor is one left that is out of date.
        assert_eq!(kept.all(), [(MessageKind::Video, track(1))]);
    }
}
