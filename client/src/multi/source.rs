//! Where the media of a publish comes from.

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flv::file::{Reader, Tag};
use rtmp::MessageKind;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A source of audio or video, in the place of a microphone or a camera.
#[derive(Debug)]
pub enum Source {
    /// The audio or the video of an FLV file, in its own time.
    Flv(PathBuf),
    /// Frames as they come. Whoever sends faster than the network waits.
    Frames(mpsc::Receiver<SourceFrame>),
}

/// A frame: the body of an FLV tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFrame {
    /// Milliseconds.
    pub time: u32,
    /// The body.
    pub payload: Bytes,
}

/// A message to be published.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) kind: MessageKind,
    pub(super) time: u32,
    pub(super) payload: Bytes,
}

/// Gives out the part of a source that is wanted, until it ends or nobody listens. Files are
/// given out in their own time from `began` on. Returns why it ended before its time.
pub(super) async fn pour(
    source: Source,
    kind: MessageKind,
    began: Instant,
    out: mpsc::Sender<Piece>,
) -> Result<(), String> {
    match source {
        Source::Frames(mut frames) => {
            while let Some(SourceFrame { time, payload }) = frames.recv().await {
                let piece = Piece {
                    kind,
                    time,
                    payload,
                };
                if out.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(())
        }
        Source::Flv(path) => {
            let name = path.display().to_string();
            pour_file(path, kind, began, out)
                .await
                .map_err(|why| format!("{name}: {why}"))
        }
    }
}

async fn pour_file(
    path: PathBuf,
    kind: MessageKind,
    began: Instant,
    out: mpsc::Sender<Piece>,
) -> Result<(), String> {
    let mut file = tokio::fs::File::open(path)
        .await
        .map_err(|error| error.to_string())?;
    let mut reader = Reader::new();
    let mut input = BytesMut::new();
    let mut first = None;
    loop {
        while let Some(tag) = reader
            .handle_bytes(&mut input)
            .map_err(|error| error.to_string())?
        {
            let Some(piece) = piece(&tag, kind) else {
                continue;
            };
            let first = *first.get_or_insert(tag.time);
            let due = began + Duration::from_millis(tag.time.saturating_sub(first).into());
            tokio::time::sleep_until(due).await;
            if out.send(piece).await.is_err() {
                return Ok(());
            }
        }
        let read = file.read_buf(&mut input).await;
        if read.map_err(|error| error.to_string())? == 0 {
            return Ok(());
        }
    }
}

/// The message that a tag travels as, if it is of the part that is wanted. Metadata goes with
/// the video, and is marked to be kept for late joiners.
fn piece(tag: &Tag, wanted: MessageKind) -> Option<Piece> {
    const KEEP: &[u8] = b"\x02\x00\x0d@setDataFrame";
    const NAME: &[u8] = b"\x02\x00\x0aonMetaData";
    let (kind, payload) = match (tag.type_id, wanted) {
        (8, MessageKind::Audio) | (9, MessageKind::Video) => (wanted, tag.payload.clone()),
        (18, MessageKind::Video) if tag.payload.starts_with(NAME) => (
            MessageKind::DataAmf0,
            Bytes::from([KEEP, &tag.payload].concat()),
        ),
        (18, MessageKind::Video) => (MessageKind::DataAmf0, tag.payload.clone()),
        _ => return None,
    };
    let time = tag.time;
    Some(Piece {
        kind,
        time,
        payload,
    })
}
