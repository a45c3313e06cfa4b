//! Programs of others publish at one edge and play from another: the pictures that come
//! out are the pictures that went in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::SocketAddr;
use std::path::Path;

use selvage_cluster_tests::fixture::Fixture;
use selvage_cluster_tests::lab::live::is_key;
use selvage_cluster_tests::lab::peer::{self, Ffmpeg, Nginx};
use selvage_cluster_tests::lab::raw::{Message, Raw};
use selvage_cluster_tests::lab::{Dev, PLAYER, until};

#[test]
fn h264_and_aac_play_from_both_edges() {
    plays_from_both_edges(Fixture::H264);
}

#[test]
fn five_seconds_between_key_frames_play_from_both_edges() {
    plays_from_both_edges(Fixture::LongGop);
}

#[test]
fn pictures_without_sound_play_from_both_edges() {
    plays_from_both_edges(Fixture::VideoOnly);
}

#[test]
fn sound_without_pictures_plays_from_both_edges() {
    plays_from_both_edges(Fixture::AudioOnly);
}

#[test]
fn hevc_by_enhanced_rtmp_plays_from_both_edges() {
    plays_from_both_edges(Fixture::Hevc);
}

#[test]
fn av1_and_opus_by_enhanced_rtmp_play_from_both_edges() {
    plays_from_both_edges(Fixture::Av1);
}

#[test]
fn vp9_and_flac_by_enhanced_rtmp_play_from_both_edges() {
    plays_from_both_edges(Fixture::Vp9);
}

#[test]
fn a_second_track_of_sound_passes_through() {
    let mut dev = Dev::start(2, 2);
    let _publisher = peer::publish(Fixture::Multitrack, &dev.url(0, "live", "a"));
    until_on_air(dev.rtmp(1), "a");
    let tracks = peer::packets(Ffmpeg::Modern, &dev.url(1, "live", "a"), 3);
    assert_eq!(
        tracks.len(),
        3,
        "a picture and two tracks of sound: {tracks:?}"
    );
    assert!(tracks.iter().all(|packets| *packets >= 70), "{tracks:?}");
}

#[test]
fn ffprobe_names_the_codecs() {
    let mut dev = Dev::start(2, 2);
    let _publisher = peer::publish(Fixture::H264, &dev.url(0, "live", "a"));
    until_on_air(dev.rtmp(1), "a");
    assert_eq!(peer::probe(&dev.url(1, "live", "a")), ["aac", "h264"]);
}

#[test]
fn a_player_that_comes_first_waits_for_the_publisher() {
    let mut dev = Dev::start(2, 2);
    let addr = dev.rtmp(1);
    let mut early = Raw::connect(addr, "live").unwrap();
    let stream = early.create_stream().unwrap();
    assert_eq!(early.play(stream, "a").unwrap(), "NetStream.Play.Start");
    let _publisher = peer::publish(Fixture::H264, &dev.url(0, "live", "a"));
    early.read_media().unwrap();
}

#[test]
fn rtmpdump_records_until_the_publisher_leaves() {
    let mut dev = Dev::start(2, 2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump.flv");
    let publisher = peer::publish(Fixture::H264, &dev.url(0, "live", "a"));
    until_on_air(dev.rtmp(1), "a");
    let recorder = peer::rtmpdump(&dev.url(1, "live", "a"), &file);
    until("rtmpdump has recorded some seconds", PLAYER, || {
        size_of(&file) > 150_000
    });
    drop(publisher);
    recorder.wait(PLAYER).well("rtmpdump");
    let recorded = peer::decode_file(Ffmpeg::Debian, &file).but_the_last(4);
    assert!(
        recorded.video.len() >= 50 && recorded.audio.len() >= 90,
        "{recorded:?}"
    );
    recorded.shows(&peer::decode_file(Ffmpeg::Debian, &Fixture::H264.path()));
}

#[test]
fn gstreamer_rtmp2src_plays() {
    let mut dev = Dev::start(2, 2);
    let _publisher = peer::publish(Fixture::H264, &dev.url(0, "live", "a"));
    until_on_air(dev.rtmp(1), "a");
    plays_in_gstreamer(&["rtmp2src", &format!("location={}", dev.url(1, "live", "a"))]);
}

#[test]
fn gstreamer_rtmpsrc_plays() {
    let mut dev = Dev::start(2, 2);
    let _publisher = peer::publish(Fixture::H264, &dev.url(0, "live", "a"));
    until_on_air(dev.rtmp(1), "a");
    plays_in_gstreamer(&[
        "rtmpsrc",
        &format!("location={} live=1", dev.url(1, "live", "a")),
    ]);
}

#[test]
fn gstreamer_rtmp2sink_publishes() {
    let mut dev = Dev::start(2, 2);
    let target = format!("location={}", dev.url(0, "live", "a"));
    let source = format!("location={}", Fixture::H264.path().display());
    let pipeline = "! flvdemux name=d  flvmux name=m streamable=true ! rtmp2sink";
    let picture = "d.video ! queue ! h264parse ! identity sync=true ! m.video";
    let sound = "d.audio ! queue ! aacparse ! m.audio";
    let mut command = peer::program("gst-launch-1.0", "gstreamer1.0-tools");
    command.args(["--quiet", "filesrc", &source]);
    command.args(pipeline.split_whitespace()).arg(target);
    command
        .args(picture.split_whitespace())
        .args(sound.split_whitespace());
    let _publisher =
        selvage_cluster_tests::lab::Process::spawn("gst-launch-1.0 publishing", &command);
    until_on_air(dev.rtmp(1), "a");
    let decoded = peer::decode(Ffmpeg::Debian, &dev.url(1, "live", "a"), 2);
    assert!(
        decoded.video.len() >= 40 && decoded.audio.len() >= 70,
        "{decoded:?}"
    );
}

#[test]
fn nginx_pulls_a_stream_from_an_edge() {
    let mut dev = Dev::start(2, 2);
    let _publisher = peer::publish(Fixture::H264, &dev.url(0, "live", "a"));
    until_on_air(dev.rtmp(1), "a");
    let nginx = Nginx::start(&format!(
        "application mirror {{ live on; wait_key on; wait_video on; pull rtmp://{}/live; }}",
        dev.rtmp(1)
    ));
    let mut viewer = Raw::connect(nginx.addr, "mirror").unwrap();
    let stream = viewer.create_stream().unwrap();
    viewer.play(stream, "a").unwrap();
    viewer.read_media().unwrap();
    let decoded = peer::decode(
        Ffmpeg::Debian,
        &format!("rtmp://{}/mirror/a", nginx.addr),
        2,
    );
    assert!(decoded.video.len() >= 45, "{decoded:?}\n{}", nginx.log());
}

#[test]
fn nginx_pushes_a_stream_to_an_edge() {
    let mut dev = Dev::start(2, 2);
    let nginx = Nginx::start(&format!(
        "application ingest {{ live on; push rtmp://{}/live; }}",
        dev.rtmp(0)
    ));
    let _publisher = peer::publish(Fixture::H264, &format!("rtmp://{}/ingest/a", nginx.addr));
    // nginx begins anywhere in a group of pictures.
    until_key_frame(dev.rtmp(1), "a");
    plays(Fixture::H264, &dev.url(1, "live", "a"));
}

#[test]
fn tls_carries_publisher_and_players() {
    let mut dev = Dev::start(2, 2);
    let _publisher = peer::publish(Fixture::H264, &dev.tls_url(0, "live", "a"));
    until_on_air(dev.rtmp(1), "a");
    let url = dev.tls_url(1, "live", "a");
    plays(Fixture::H264, &url);
    plays_in_gstreamer(&[
        "rtmp2src",
        "tls-validation-flags=0",
        &format!("location={url}"),
    ]);
}

/// FFmpeg publishes at edge 0; FFmpeg plays from edge 1 and from edge 0.
#[track_caller]
fn plays_from_both_edges(fixture: Fixture) {
    let mut dev = Dev::start(2, 2);
    let _publisher = peer::publish(fixture, &dev.url(0, "live", "a"));
    until_on_air(dev.rtmp(1), "a");
    plays(fixture, &dev.url(1, "live", "a"));
    plays(fixture, &dev.url(0, "live", "a"));
}

#[track_caller]
fn plays(fixture: Fixture, url: &str) {
    let decoded = peer::decode(fixture.ffmpeg(), url, 3);
    if fixture.has_video() {
        assert!(
            decoded.video.len() >= 70,
            "{} pictures in 3 s",
            decoded.video.len()
        );
        decoded.shows(&peer::decode_file(fixture.ffmpeg(), &fixture.path()));
    }
    if fixture.has_audio() {
        // FLAC has the longest blocks: 4608 samples.
        assert!(
            decoded.audio.len() >= 28,
            "{} blocks of sound in 3 s",
            decoded.audio.len()
        );
    }
}

/// A source element and its properties; two seconds of picture and sound are decoded.
#[track_caller]
fn plays_in_gstreamer(source: &[&str]) {
    let picture = "d.video ! queue ! h264parse ! avdec_h264 ! fakesink sync=false num-buffers=50";
    let sound = "d.audio ! queue ! aacparse ! avdec_aac ! fakesink sync=false num-buffers=90";
    let demux = "! flvdemux name=d";
    let rest = [demux, picture, sound]
        .into_iter()
        .flat_map(str::split_whitespace);
    peer::gstreamer(source.iter().copied().chain(rest));
}

/// Waits until a stream of the application `live` sends media.
#[track_caller]
fn until_on_air(edge: SocketAddr, name: &str) {
    until_sent(edge, name, |_| true);
}

/// Waits until a stream of the application `live` sends a key frame of H.264.
#[track_caller]
fn until_key_frame(edge: SocketAddr, name: &str) {
    until_sent(edge, name, is_key);
}

#[track_caller]
fn until_sent(edge: SocketAddr, name: &str, wanted: impl Fn(&Message) -> bool) {
    let mut viewer = Raw::connect(edge, "live").expect("the edge takes players");
    let stream = viewer.create_stream().expect("the edge gives streams");
    viewer.play(stream, name).expect("the edge lets play");
    while !wanted(&viewer.read_media().expect("the stream is on air")) {}
}

fn size_of(file: &Path) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}
