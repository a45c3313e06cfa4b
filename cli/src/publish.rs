//! `selvage publish`: an FLV file becomes a live stream.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use client::{Options, Publisher};
use flv::file::{Reader, Tag};
use rtmp::MessageKind;

use crate::exit::{self, Failure};
use crate::pace::{Pace, Timeline};
use crate::progress::Progress;
use crate::remote::{Remote, tell_fallback};

/// Publish an FLV file as a live stream.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct Flags {
    /// The file.
    #[arg(value_name = "FILE.flv")]
    file: PathBuf,
    #[command(flatten)]
    remote: Remote,
    /// Begin again at the end of the file; time goes on.
    #[arg(long = "loop")]
    repeat: bool,
    /// Send each tag when it is due; otherwise as fast as the server reads.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    realtime: bool,
}

pub(crate) fn main(flags: &Flags) -> ExitCode {
    exit::run_traced(run(flags))
}

async fn run(flags: &Flags) -> Result<(), Failure> {
    let target = flags.remote.target()?;
    let mut tags = Tags::open(&flags.file)?;
    let options = flags.remote.options(Options::publisher().following())?;
    let mut publisher = Publisher::open(&target, &options).await?;
    tell_fallback(publisher.connection());
    let outcome = tokio::select! {
        outcome = send_all(flags, &mut tags, &mut publisher) => outcome,
        interrupted = exit::interrupted() => interrupted,
    };
    match outcome {
        Ok(()) => Ok(publisher.close().await?),
        Err(failure) => {
            publisher.close_abruptly();
            Err(failure)
        }
    }
}

async fn send_all(
    flags: &Flags,
    tags: &mut Tags,
    publisher: &mut Publisher,
) -> Result<(), Failure> {
    let mut line = Timeline::default();
    let mut pace = Pace::new(Instant::now());
    let mut progress = Progress::new(Instant::now());
    loop {
        let Some(tag) = tags.next()? else {
            if flags.repeat && tags.restart()? {
                line.again();
                continue;
            }
            return Ok(publisher.flush().await?);
        };
        let Some((kind, payload)) = message(&tag) else {
            continue;
        };
        let time = line.place(tag.time);
        if flags.realtime {
            wait_until(pace.due(time), publisher).await?;
        }
        progress.count(Instant::now(), time, payload.len());
        publisher.send(kind, time.wire(), payload).await?;
    }
}

/// Answers the server while there is nothing to send.
async fn wait_until(due: Instant, publisher: &mut Publisher) -> Result<(), Failure> {
    if due <= Instant::now() {
        return Ok(());
    }
    tokio::select! {
        // What was sent before leaves now, not when the timer is polled.
        biased;
        ended = publisher.idle() => match ended? {},
        () = tokio::time::sleep_until(due.into()) => Ok(()),
    }
}

/// The message that a tag travels as. Metadata is marked to be kept for late joiners.
fn message(tag: &Tag) -> Option<(MessageKind, Bytes)> {
    const NAME: &[u8] = b"\x02\x00\x0aonMetaData";
    const KEEP: &[u8] = b"\x02\x00\x0d@setDataFrame";
    match tag.type_id {
        8 => Some((MessageKind::Audio, tag.payload.clone())),
        9 => Some((MessageKind::Video, tag.payload.clone())),
        18 if tag.payload.starts_with(NAME) => Some((
            MessageKind::DataAmf0,
            Bytes::from([KEEP, &tag.payload].concat()),
        )),
        18 => Some((MessageKind::DataAmf0, tag.payload.clone())),
        _ => None,
    }
}

/// The tags of a file, read piece by piece.
pub(crate) struct Tags {
    path: PathBuf,
    file: std::fs::File,
    reader: Reader,
    input: BytesMut,
    chunk: Vec<u8>,
    any: bool,
}

impl Tags {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let path = path.to_owned();
        let file = std::fs::File::open(&path).map_err(|source| Failure::File {
            path: path.display().to_string(),
            source,
        })?;
        let (reader, input) = (Reader::new(), BytesMut::new());
        Ok(Self {
            path,
            file,
            reader,
            input,
            chunk: vec![0; 64 * 1024],
            any: false,
        })
    }

    pub(crate) fn next(&mut self) -> Result<Option<Tag>, Failure> {
        loop {
            let path = || self.path.display().to_string();
            let tag = self.reader.handle_bytes(&mut self.input);
            if let Some(tag) = tag.map_err(|source| Failure::Flv {
                path: path(),
                source,
            })? {
                self.any = true;
                return Ok(Some(tag));
            }
            let read = self.file.read(&mut self.chunk);
            let read = read.map_err(|source| Failure::File {
                path: path(),
                source,
            })?;
            if read == 0 {
                return Ok(None);
            }
            self.input
                .extend_from_slice(self.chunk.get(..read).unwrap_or_default());
        }
    }

    /// Begins again; false if there is nothing to repeat.
    pub(crate) fn restart(&mut self) -> Result<bool, Failure> {
        use std::io::Seek;
        self.file.rewind().map_err(|source| Failure::File {
            path: self.path.display().to_string(),
            source,
        })?;
        self.reader = Reader::new();
        self.input.clear();
        Ok(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(type_id: u8, payload: &'static [u8]) -> Option<(MessageKind, Vec<u8>)> {
        let tag = Tag {
            type_id,
            time: 0,
            payload: Bytes::from_static(payload),
        };
        message(&tag).map(|(kind, payload)| (kind, payload.to_vec()))
    }

    #[test]
    fn metadata_is_kept_for_late_joiners_and_all_else_goes_as_it_stands() {
        let (kind, payload) = sent(18, b"\x02\x00\x0aonMetaData\x05").unwrap();
        assert_eq!(kind, MessageKind::DataAmf0);
        let values = amf::amf0::read_all(&payload).unwrap();
        assert_eq!(
            values,
            [
                "@setDataFrame".into(),
                "onMetaData".into(),
                amf::Value::Null
            ]
        );
        let cue = b"\x02\x00\x0aonCuePoint\x05";
        assert_eq!(sent(18, cue), Some((MessageKind::DataAmf0, cue.to_vec())));
        assert_eq!(
            sent(9, b"\x17"),
            Some((MessageKind::Video, b"\x17".to_vec()))
        );
        assert_eq!(sent(7, b"x"), None);
    }
}
