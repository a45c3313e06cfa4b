//! The streams that tests publish: FLV files made by FFmpeg, once per target folder.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::lab::peer::Ffmpeg;
use crate::lab::process::target_dir;

/// One stream to publish: ten seconds of a test picture (25 pictures a second, a key
/// frame every second unless it says otherwise) and a tone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    /// H.264 with B-frames and AAC.
    H264,
    /// H.264 and AAC with five seconds between key frames.
    LongGop,
    /// AAC alone.
    AudioOnly,
    /// H.264 alone.
    VideoOnly,
    /// HEVC by FourCC, AAC in the old form.
    Hevc,
    /// AV1 and Opus by FourCC.
    Av1,
    /// VP9 and FLAC by FourCC.
    Vp9,
    /// H.264 in the old form with two tracks of AAC, the second one by multitrack
    /// messages.
    Multitrack,
}

impl Fixture {
    /// The FFmpeg that can make, publish and play it.
    pub fn ffmpeg(self) -> Ffmpeg {
        match self {
            Self::H264 | Self::LongGop | Self::AudioOnly | Self::VideoOnly => Ffmpeg::Debian,
            Self::Hevc | Self::Av1 | Self::Vp9 | Self::Multitrack => Ffmpeg::Modern,
        }
    }

    /// Whether there are pictures.
    pub fn has_video(self) -> bool {
        self != Self::AudioOnly
    }

    /// Whether there is sound.
    pub fn has_audio(self) -> bool {
        self != Self::VideoOnly
    }

    /// The file, made if it is not there yet. Several tests may ask at the same time.
    ///
    /// # Panics
    /// When FFmpeg is missing or fails.
    #[track_caller]
    pub fn path(self) -> PathBuf {
        let folder = target_dir().join("fixtures");
        std::fs::create_dir_all(&folder).expect("the target folder takes folders");
        let path = folder.join(format!("{self:?}.flv").to_lowercase());
        let lock = File::create(path.with_extension("lock")).expect("the folder takes files");
        lock.lock().expect("a file can be locked");
        if !path.is_file() {
            self.make(&path);
        }
        path
    }

    #[track_caller]
    fn make(self, path: &Path) {
        const PICTURE: [&str; 4] = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"];
        const TONE: [&str; 4] = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];
        let unfinished = path.with_extension("unfinished");
        let mut command = self.ffmpeg().command();
        command.args(["-v", "error", "-nostdin", "-y"]);
        if self.has_video() {
            command.args(PICTURE);
        }
        if self.has_audio() {
            command.args(TONE);
        }
        if self == Self::Multitrack {
            command
                .args(TONE)
                .args(["-map", "0", "-map", "1", "-map", "2"]);
        }
        command.args(["-t", "10"]).args(self.codecs());
        command
            .args(["-f", "flv", "-flvflags", "no_duration_filesize"])
            .arg(&unfinished);
        let made = command.output().expect("ffmpeg starts");
        assert!(
            made.status.success(),
            "ffmpeg cannot make {self:?}:\n{}",
            String::from_utf8_lossy(&made.stderr)
        );
        std::fs::rename(&unfinished, path).expect("a file can be renamed in its folder");
    }

    fn codecs(self) -> Vec<&'static str> {
        let text = match self {
            Self::H264 | Self::Multitrack => {
                "-c:v libx264 -preset veryfast -g 25 -sc_threshold 0 -pix_fmt yuv420p \
                 -c:a aac -b:a 64k"
            }
            Self::LongGop => {
                "-c:v libx264 -preset veryfast -g 125 -sc_threshold 0 -pix_fmt yuv420p \
                 -c:a aac -b:a 64k"
            }
            Self::AudioOnly => "-c:a aac -b:a 64k",
            Self::VideoOnly => {
                "-c:v libx264 -preset veryfast -g 25 -sc_threshold 0 -pix_fmt yuv420p"
            }
            Self::Hevc => {
                "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -c:a aac -b:a 64k -x265-params \
                 keyint=25:min-keyint=25:scenecut=0:open-gop=0:log-level=error"
            }
            Self::Av1 => {
                "-c:v libaom-av1 -usage realtime -cpu-used 8 -g 25 -pix_fmt yuv420p \
                 -c:a libopus -b:a 64k"
            }
            Self::Vp9 => {
                "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -pix_fmt yuv420p -c:a flac"
            }
        };
        text.split_whitespace().collect()
    }
}
