//! The programs of others that speak RTMP: FFmpeg (Debian's, and a newer one for
//! enhanced RTMP), rtmpdump, GStreamer, nginx with its rtmp module.
//!
//! A missing program is a failure that names its Debian package;
//! `cluster-tests/peers/install` installs them all.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Finished, Process, target_dir};
use super::until::{PLAYER, SOON, until_some};
use crate::fixture::Fixture;

/// The codecs that FFmpeg announces in `connect`.
const ENHANCED: &str = "hvc1,av01,vp09,Opus,fLaC,ac-3,ec-3";

/// Which FFmpeg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ffmpeg {
    /// Debian's: RTMP as everybody knows it.
    Debian,
    /// Version 9: enhanced RTMP.
    Modern,
}

impl Ffmpeg {
    /// The program.
    ///
    /// # Panics
    /// When it is not installed.
    #[track_caller]
    pub fn command(self) -> Command {
        match self {
            Self::Debian => program("ffmpeg", "ffmpeg"),
            Self::Modern => {
                let path = target_dir().join("peers/ffmpeg");
                assert!(
                    path.is_file(),
                    "{} is missing: run cluster-tests/peers/install",
                    path.display()
                );
                Command::new(path)
            }
        }
    }
}

/// A program of a Debian package.
///
/// # Panics
/// When it is not installed.
#[track_caller]
pub fn program(name: &str, package: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Programs for administrators are not on everybody's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders
        .map(|folder: PathBuf| folder.join(name))
        .find(|path| path.is_file());
    match found {
        Some(path) => Command::new(path),
        None => panic!(
            "{name} is missing: apt-get install {package} (or run cluster-tests/peers/install)"
        ),
    }
}

/// Publishes a file in real time, over and over, until the process is dropped.
///
/// # Panics
/// When the program is missing.
#[track_caller]
pub fn publish(fixture: Fixture, url: &str) -> Process {
    let mut command = fixture.ffmpeg().command();
    command.args(["-v", "warning", "-nostdin", "-re", "-stream_loop", "-1"]);
    command
        .arg("-i")
        .arg(fixture.path())
        .args(["-map", "0", "-c", "copy"]);
    push_to(fixture.ffmpeg(), url, &mut command);
    Process::spawn(&format!("ffmpeg publishing {fixture:?}"), &command)
}

/// Publishes a file in real time, once.
///
/// # Panics
/// When the program is missing.
#[track_caller]
pub fn publish_once(fixture: Fixture, url: &str) -> Process {
    let mut command = fixture.ffmpeg().command();
    command.args(["-v", "warning", "-nostdin", "-re"]);
    command
        .arg("-i")
        .arg(fixture.path())
        .args(["-map", "0", "-c", "copy"]);
    push_to(fixture.ffmpeg(), url, &mut command);
    Process::spawn(&format!("ffmpeg publishing {fixture:?}"), &command)
}

fn push_to(ffmpeg: Ffmpeg, url: &str, command: &mut Command) {
    command.args(["-f", "flv", "-flvflags", "no_duration_filesize"]);
    if ffmpeg == Ffmpeg::Modern {
        command.args(["-rtmp_enhanced_codecs", ENHANCED]);
    }
    command.arg(url);
}

/// What a player decoded: a checksum of every picture and every block of sound.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Pictures, in the order they are shown.
    pub video: Vec<String>,
    /// Blocks of sound.
    pub audio: Vec<String>,
}

impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} pictures, {} blocks of sound",
            self.video.len(),
            self.audio.len()
        )
    }
}

impl Decoded {
    /// Without the last pictures: where a recording was cut off, those that others lean
    /// on come without those that lean on them.
    #[must_use]
    pub fn but_the_last(mut self, pictures: usize) -> Self {
        self.video
            .truncate(self.video.len().saturating_sub(pictures));
        self
    }

    /// Checks that the pictures are those of a file that is repeated for ever, from one
    /// of them on, without a gap.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn shows(&self, file: &Self) {
        let Some(first) = self.video.first() else {
            panic!("no picture was decoded")
        };
        let starts = file
            .video
            .iter()
            .enumerate()
            .filter(|(_, sum)| *sum == first);
        let agreeing = starts.map(|(start, _)| {
            let expected = file.video.iter().cycle().skip(start);
            self.video
                .iter()
                .zip(expected)
                .take_while(|(ours, theirs)| ours == theirs)
                .count()
        });
        let best = agreeing.max();
        assert_eq!(
            best,
            Some(self.video.len()),
            "pictures that agree with the published ones"
        );
    }
}

/// Plays so many seconds with FFmpeg and decodes them, without a single complaint.
///
/// # Panics
/// When the player fails or says anything.
#[track_caller]
pub fn decode(ffmpeg: Ffmpeg, url: &str, seconds: u32) -> Decoded {
    let mut command = player(ffmpeg, url);
    command.args(["-t", &seconds.to_string(), "-f", "framecrc", "-"]);
    let name = format!("{ffmpeg:?} ffmpeg playing {url}");
    let finished = Process::spawn(&name, &command).wait(PLAYER).well(&name);
    assert_eq!(finished.stderr, "", "{name} complained");
    checksums(&finished.stdout)
}

/// Decodes a file.
///
/// # Panics
/// When it cannot be decoded without a complaint.
#[track_caller]
pub fn decode_file(ffmpeg: Ffmpeg, file: &Path) -> Decoded {
    decode(ffmpeg, &file.display().to_string(), 3600)
}

/// How many packets of each track FFmpeg receives in so many seconds, undecoded.
///
/// # Panics
/// When the player fails or says anything.
#[track_caller]
pub fn packets(ffmpeg: Ffmpeg, url: &str, seconds: u32) -> Vec<usize> {
    let mut command = player(ffmpeg, url);
    command.args([
        "-t",
        &seconds.to_string(),
        "-map",
        "0",
        "-c",
        "copy",
        "-f",
        "framecrc",
        "-",
    ]);
    let name = format!("{ffmpeg:?} ffmpeg receiving {url}");
    let finished = Process::spawn(&name, &command).wait(PLAYER).well(&name);
    assert_eq!(finished.stderr, "", "{name} complained");
    let lines = || {
        finished
            .stdout
            .lines()
            .filter(|line| !line.starts_with('#'))
    };
    let of = |track: usize| {
        lines()
            .filter(|line| line.starts_with(&format!("{track},")))
            .count()
    };
    (0..).map(of).take_while(|count| *count > 0).collect()
}

fn player(ffmpeg: Ffmpeg, url: &str) -> Command {
    let mut command = ffmpeg.command();
    command.args(["-v", "error", "-xerror", "-nostdin"]);
    if ffmpeg == Ffmpeg::Modern && url.starts_with("rtmp") {
        command.args(["-rtmp_enhanced_codecs", ENHANCED]);
    }
    command.args(["-i", url]);
    command
}

/// Lines of FFmpeg's framecrc format: `#media_type 0: video`, then
/// `0, dts, pts, duration, size, checksum`.
fn checksums(report: &str) -> Decoded {
    let mut decoded = Decoded::default();
    let kinds: Vec<(&str, &str)> = report
        .lines()
        .filter_map(|line| line.strip_prefix("#media_type ")?.split_once(": "))
        .collect();
    for line in report.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [stream, _, _, _, _, sum, ..] = fields[..] else {
            continue;
        };
        match kinds.iter().find(|(number, _)| *number == stream) {
            Some((_, "video")) => decoded.video.push(sum.to_owned()),
            Some((_, "audio")) => decoded.audio.push(sum.to_owned()),
            _ => {}
        }
    }
    decoded
}

/// The codecs that ffprobe finds in a stream.
///
/// # Panics
/// When it fails or says anything else.
#[track_caller]
pub fn probe(url: &str) -> Vec<String> {
    let mut command = program("ffprobe", "ffmpeg");
    command.args([
        "-v",
        "error",
        "-show_entries",
        "stream=codec_name",
        "-of",
        "csv=p=0",
        url,
    ]);
    let name = format!("ffprobe {url}");
    let finished = Process::spawn(&name, &command).wait(PLAYER).well(&name);
    assert_eq!(finished.stderr, "", "{name} complained");
    let mut codecs: Vec<String> = finished
        .stdout
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    codecs.sort();
    codecs
}

/// `rtmpdump --live` into a file; ends when the publisher does.
///
/// # Panics
/// When the program is missing.
#[track_caller]
pub fn rtmpdump(url: &str, file: &Path) -> Process {
    let mut command = program("rtmpdump", "rtmpdump");
    command
        .args(["--live", "--quiet", "-r", url, "-o"])
        .arg(file);
    Process::spawn(&format!("rtmpdump {url}"), &command)
}

/// Runs a GStreamer pipeline until it ends by itself.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn gstreamer<S: AsRef<OsStr>>(pipeline: impl IntoIterator<Item = S>) -> Finished {
    let mut command = program("gst-launch-1.0", "gstreamer1.0-tools");
    command.args(["--quiet", "--no-fault"]).args(pipeline);
    Process::spawn("gst-launch-1.0", &command)
        .wait(PLAYER)
        .well("gst-launch-1.0")
}

/// nginx with its rtmp module on a free port.
#[derive(Debug)]
pub struct Nginx {
    /// Where it speaks RTMP.
    pub addr: SocketAddr,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts nginx with these applications (nginx-rtmp directives).
    ///
    /// # Panics
    /// When it is missing or does not start.
    #[track_caller]
    pub fn start(applications: &str) -> Self {
        let module = Path::new("/usr/lib/nginx/modules/ngx_rtmp_module.so");
        assert!(
            module.is_file(),
            "nginx's rtmp module is missing: apt-get install libnginx-mod-rtmp \
             (or run cluster-tests/peers/install)"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        // nginx cannot be given port 0. A port that was free a moment ago, on an address
        // that only this process uses, is as good.
        let pid = std::process::id().to_be_bytes();
        let free = TcpListener::bind(SocketAddr::from(([127, pid[2] | 1, pid[3], 2], 0)))
            .expect("a free port");
        let addr = free.local_addr().expect("a bound socket has an address");
        drop(free);
        let config = format!(
            "load_module {};\ndaemon off;\nmaster_process off;\npid nginx.pid;\n\
             error_log stderr info;\nevents {{ worker_connections 64; }}\n\
             rtmp {{ server {{ listen {addr}; chunk_size 4096; {applications} }} }}\n",
            module.display()
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("the temporary folder takes files");
        let mut command = program("nginx", "nginx");
        command
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"]);
        let mut process = Process::spawn("nginx", &command);
        until_some("nginx listens", SOON, || {
            if let Some(status) = process.ended() {
                panic!("nginx ended ({status}):\n{}", process.tail());
            }
            TcpStream::connect(addr).ok()
        });
        Self {
            addr,
            process,
            _folder: folder,
        }
    }

    /// What it logged, for a failure's text.
    pub fn log(&self) -> String {
        self.process.tail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_sorted_by_the_kind_of_their_stream() {
        let report = "#media_type 0: video\n#codec_id 0: rawvideo\n#media_type 1: audio\n\
                      0,          0,          0,        1,    86400, 0x1\n\
                      1,          0,          0,     1024,     4096, 0x2\n\
                      1,       1024,       1024,     1024,     4096, 0x3\n";
        let decoded = checksums(report);
        assert_eq!(decoded.video, ["0x1"]);
        assert_eq!(decoded.audio, ["0x2", "0x3"]);
    }

    #[test]
    fn a_missing_picture_is_noticed() {
        let pictures = |sums: &[&str]| Decoded {
            video: sums.iter().map(|sum| (*sum).to_owned()).collect(),
            audio: Vec::new(),
        };
        let file = pictures(&["a", "b", "c", "a"]);
        pictures(&["c", "a", "a", "b"]).shows(&file);
        let gap = std::panic::catch_unwind(|| pictures(&["b", "a"]).shows(&file));
        assert!(gap.is_err());
    }
}
