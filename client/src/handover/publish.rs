//! The handover of a publish.
//!
//! The second connection publishes the same name with the same `publisher=` and so stands by.
//! At the next key frame all that was sent before has been taken by the old server, whose
//! connection is closed; it is the other's turn then, which begins with that key frame.

use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use model::Class;
use rtmp::{MessageKind, StreamId};
use session::client::Event;

use super::{Home, Opened, Opening, Pace};
use crate::Publisher;
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

/// What a server that takes over must be told before anything else.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    metadata: Option<(MessageKind, Bytes)>,
    video: Option<Bytes>,
    audio: Option<Bytes>,
    /// There are pictures.
    pictures: bool,
}

impl Kept {
    /// Takes note of what is published. True where another server can begin.
    pub(crate) fn note(&mut self, kind: MessageKind, payload: &Bytes) -> bool {
        match kind {
            MessageKind::Audio => {
                if flv::classify_audio(payload).class != Class::Config {
                    return !self.pictures;
                }
                self.audio = Some(payload.clone());
            }
            MessageKind::Video => {
                self.pictures = true;
                let class = flv::classify_video(payload).class;
                if class == Class::Config {
                    self.video = Some(payload.clone());
                }
                return class == Class::Key;
            }
            MessageKind::DataAmf0 | MessageKind::DataAmf3 => {
                const KEEP: &[u8] = b"\x02\x00\x0d@setDataFrame";
                let selector = usize::from(kind == MessageKind::DataAmf3);
                let body = payload.get(selector..).unwrap_or_default();
                if body.starts_with(KEEP) {
                    self.metadata = Some((kind, payload.clone()));
                }
            }
            MessageKind::UserControl
            | MessageKind::SharedObjectAmf3
            | MessageKind::CommandAmf3
            | MessageKind::SharedObjectAmf0
            | MessageKind::CommandAmf0 => {}
        }
        false
    }

    pub(crate) fn all(&self) -> Vec<(MessageKind, Bytes)> {
        let video = self.video.clone().map(|b| (MessageKind::Video, b));
        let audio = self.audio.clone().map(|b| (MessageKind::Audio, b));
        [self.metadata.clone(), video, audio]
            .into_iter()
            .flatten()
            .collect()
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

    #[test]
    fn another_server_can_begin_at_a_key_frame_or_with_any_sound_where_there_are_no_pictures() {
        let mut kept = Kept::default();
        let bytes = Bytes::from_static;
        assert!(!kept.note(MessageKind::Audio, &bytes(&[0xaf, 0, 1, 2])));
        assert!(kept.note(MessageKind::Audio, &bytes(&[0xaf, 1, 1, 2])));
        assert!(!kept.note(MessageKind::Video, &bytes(&[0x17, 0, 0, 0, 0, 1])));
        assert!(kept.note(MessageKind::Video, &bytes(&[0x17, 1, 0, 0, 0, 1])));
        assert!(!kept.note(MessageKind::Video, &bytes(&[0x27, 1, 0, 0, 0, 1])));
        assert!(!kept.note(MessageKind::Audio, &bytes(&[0xaf, 1, 1, 2])));
        let kinds: Vec<_> = kept.all().into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [MessageKind::Video, MessageKind::Audio]);
    }
}
