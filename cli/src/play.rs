//! `selvage play`: a stream becomes an FLV file, or only figures.

mod recording;

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::{Arrival, Ended, Item, Options, Player};
use tokio::time::timeout_at;

use self::recording::{Placed, Recording};
use crate::exit::{self, Failure};
use crate::progress::Progress;
use crate::remote::{Remote, seconds, tell_fallback};

/// Play a stream, and write it to an FLV file if one is named.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct Flags {
    #[command(flatten)]
    remote: Remote,
    /// Where to write; - is standard output. Time begins at 0 in the file.
    #[arg(short, value_name = "FILE.flv")]
    output: Option<PathBuf>,
    /// Stop this many seconds after the first message.
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<Duration>,
    /// Give up after so many seconds without a message.
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    /// How many seconds after the publisher has left the play is over.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    linger: Duration,
}

pub(crate) fn main(flags: &Flags) -> ExitCode {
    exit::run_traced(run(flags))
}

async fn run(flags: &Flags) -> Result<(), Failure> {
    let target = flags.remote.target()?;
    let options = flags.remote.options(Options::player().following())?;
    let mut player = Player::open(&target, &options).await?;
    tell_fallback(player.connection());
    let mut sink = Sink::open(flags.output.as_deref())?;
    let outcome = tokio::select! {
        outcome = receive(flags, &mut player, &mut sink) => outcome,
        interrupted = exit::interrupted() => interrupted,
    };
    // The file is finished however the play ended.
    let finished = sink.finish();
    match outcome {
        Ok(()) => {
            // All that was wanted is here; how the goodbye went does not matter.
            let _ = player.close().await;
            finished
        }
        Err(failure) => {
            player.close_abruptly();
            Err(failure)
        }
    }
}

async fn receive(flags: &Flags, player: &mut Player, sink: &mut Sink) -> Result<(), Failure> {
    let mut recording = Recording::default();
    let mut progress = Progress::new(Instant::now());
    let mut stop = None;
    let mut quiet_since = Instant::now();
    let mut left = false;
    progress.say("waiting for the stream");
    loop {
        let patience = if left { flags.linger } else { flags.timeout };
        let give_up = quiet_since + patience;
        let until = stop.map_or(give_up, |stop: Instant| stop.min(give_up));
        let Ok(item) = timeout_at(until.into(), player.next()).await else {
            return match stop {
                Some(stop) if stop <= Instant::now() => Ok(()),
                _ if left => Ok(()),
                None if !recording.has_begun() => Err(Failure::NoStream(patience.as_secs_f64())),
                _ => Err(Failure::Ended(format!(
                    "nothing came for {} s",
                    patience.as_secs_f64()
                ))),
            };
        };
        match item? {
            Item::Message(Arrival { message, at }) => {
                let Some(placed) = recording.place(&message) else {
                    continue;
                };
                // By datagrams the last pictures may come after the word that the publisher
                // has left, so that only a word takes that back.
                quiet_since = at;
                if let Some(duration) = flags.duration {
                    let stop = *stop.get_or_insert(at + duration);
                    if at >= stop {
                        return Ok(());
                    }
                }
                progress.count(at, placed.time, placed.payload.len());
                sink.write(&placed)?;
            }
            Item::Status(status) => match status.code.as_str() {
                "NetStream.Play.UnpublishNotify" => {
                    progress.say("the publisher has left");
                    quiet_since = Instant::now();
                    left = true;
                }
                "NetStream.Play.PublishNotify" => {
                    quiet_since = Instant::now();
                    left = false;
                }
                _ => {}
            },
            Item::Ended(Ended::Complete) => return Ok(()),
            Item::Ended(Ended::Failed(code)) => return Err(Failure::Ended(code)),
        }
    }
}

/// Where the tags go.
struct Sink {
    path: String,
    to: Option<To>,
    audio: bool,
    video: bool,
}

enum To {
    File(io::BufWriter<File>),
    Stdout(io::Stdout),
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let name = path.map_or_else(String::new, |path| path.display().to_string());
        let wrap = |source| Failure::File {
            path: name.clone(),
            source,
        };
        let to = match path {
            None => None,
            Some(path) if path.as_os_str() == "-" => Some(To::Stdout(io::stdout())),
            Some(path) => {
                let file = File::create(path).map_err(wrap)?;
                Some(To::File(io::BufWriter::with_capacity(256 * 1024, file)))
            }
        };
        let mut this = Self {
            path: name,
            to,
            audio: false,
            video: false,
        };
        // Which of the two there will be is known at the end; both is what players expect.
        this.put(&[&flv::file::Writer::header(true, true)])?;
        Ok(this)
    }

    fn write(&mut self, placed: &Placed) -> Result<(), Failure> {
        self.audio |= placed.type_id == 8;
        self.video |= placed.type_id == 9;
        let len = placed.payload.len();
        let (front, back) = flv::file::Writer::around(placed.type_id, placed.time.wire(), len)
            .map_err(|source| Failure::Flv {
                path: self.path.clone(),
                source,
            })?;
        self.put(&[&front, &placed.payload, &back])
    }

    /// Writes what is left and corrects the header.
    fn finish(&mut self) -> Result<(), Failure> {
        let header = flv::file::Writer::header(self.audio, self.video);
        let result = match &mut self.to {
            None => Ok(()),
            Some(To::Stdout(out)) => out.flush(),
            Some(To::File(file)) => file
                .seek(SeekFrom::Start(0))
                .and_then(|_| file.write_all(&header))
                .and_then(|()| file.flush()),
        };
        result.map_err(|source| Failure::File {
            path: self.path.clone(),
            source,
        })
    }

    fn put(&mut self, parts: &[&[u8]]) -> Result<(), Failure> {
        let out: &mut dyn Write = match &mut self.to {
            None => return Ok(()),
            Some(To::File(file)) => file,
            Some(To::Stdout(out)) => out,
        };
        parts
            .iter()
            .try_for_each(|part| out.write_all(part))
            .map_err(|source| Failure::File {
                path: self.path.clone(),
                source,
            })
    }
}
