//! The command as a person types it: `selvage publish` and `selvage play`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::TcpListener;

use selvage_cluster_tests::fixture::Fixture;
use selvage_cluster_tests::lab::peer::{self, Ffmpeg};
use selvage_cluster_tests::lab::raw::Raw;
use selvage_cluster_tests::lab::{Dev, Live, PLAYER, Pace, Process, SOON, until};

#[test]
fn a_file_that_is_published_and_played_is_the_same_film() {
    let mut dev = Dev::start(2, 2);
    let urls = [0, 1].map(|edge| dev.url(edge, "live", "a"));
    is_the_same_film(urls);
}

#[test]
fn a_file_that_is_published_and_played_by_datagrams_is_the_same_film() {
    let mut dev = Dev::start(2, 2);
    let urls = [0, 1].map(|edge| {
        let addr = dev.process.listening(&format!("edge-{edge}"), "rtmfp");
        format!("rtmfp://{addr}/live/a")
    });
    is_the_same_film(urls);
}

#[track_caller]
fn is_the_same_film([near, far]: [String; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.flv");
    let original = Fixture::H264.path();
    let url = far;
    let player = selvage(&["play", &url, "--linger", "1", "-o", copy.to_str().unwrap()]);
    // The player is there before the first picture.
    until("the player has opened its file", SOON, || copy.is_file());
    let url = near;
    let publisher = selvage(&["publish", original.to_str().unwrap(), &url]);
    let published = publisher.wait(PLAYER).well("selvage publish");
    let played = player.wait(PLAYER).well("selvage play");
    assert_eq!(
        published.stderr + &played.stderr,
        "",
        "quiet when nobody watches"
    );
    let [original, copy] = [&original, &copy].map(|file| peer::decode_file(Ffmpeg::Debian, file));
    assert!(original.video.len() > 200);
    assert_eq!(original, copy, "the decoded films differ");
}

#[test]
fn tls_a_duration_and_standard_output_work() {
    let mut dev = Dev::start(1, 2);
    let live = Live::publish(dev.rtmp(0), "live", "a", Pace::real());
    live.go_on(40);
    let url = dev.tls_url(1, "live", "a");
    let player = selvage(&["play", &url, "--insecure", "--duration", "1", "-o", "-"]);
    let played = player.wait(PLAYER).well("selvage play");
    assert!(
        played.stdout.starts_with("FLV"),
        "an FLV file on standard output"
    );
    assert!(played.stdout.contains("onMetaData"));
}

#[test]
fn a_certificate_that_nobody_signed_is_not_trusted_unless_asked_to() {
    let mut dev = Dev::start(1, 1);
    let url = dev.tls_url(0, "live", "a");
    ends_with(3, &["play", &url, "--timeout", "1"]);
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let mut dev = Dev::start(1, 1);
    let url = dev.url(0, "live", "a");
    let film = Fixture::H264.path().display().to_string();
    ends_with(1, &["publish", "/nowhere/film.flv", &url]);
    ends_with(1, &["play", &url, "-o", "/nowhere/film.flv"]);
    ends_with(2, &["play"]);
    ends_with(2, &["play", "http://127.0.0.1/live/a"]);
    ends_with(4, &["play", &url, "--timeout", "0.5"]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let unreachable = format!("rtmp://{}/live/a", nobody.local_addr().unwrap());
    drop(nobody);
    ends_with(3, &["play", &unreachable]);
    // The name is taken.
    let mut holder = Raw::connect(dev.rtmp(0), "live").unwrap();
    let stream = holder.create_stream().unwrap();
    assert_eq!(
        holder.publish(stream, "a").unwrap(),
        "NetStream.Publish.Start"
    );
    ends_with(4, &["publish", &film, &url]);
}

#[test]
fn a_server_that_dies_is_an_interruption() {
    let mut dev = Dev::start(1, 1);
    let url = dev.url(0, "live", "a");
    let live = Live::publish(dev.rtmp(0), "live", "a", Pace::real());
    live.go_on(20);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.flv");
    let player = selvage(&["play", &url, "-o", copy.to_str().unwrap()]);
    // More than fits into the player's buffer.
    let size = || copy.metadata().map_or(0, |metadata| metadata.len());
    until("the player writes", SOON, || size() > 100_000);
    dev.process.kill();
    let played = player.wait(PLAYER);
    assert_eq!(played.status.code(), Some(5), "{}", played.stderr);
    assert!(!played.stderr.is_empty(), "a reason is given");
}

fn selvage(args: &[&str]) -> Process {
    Process::selvage(&format!("selvage {}", args[0]), args)
}

#[track_caller]
fn ends_with(code: i32, args: &[&str]) {
    let ended = selvage(args).wait(PLAYER);
    assert_eq!(
        ended.status.code(),
        Some(code),
        "{args:?}: {}",
        ended.stderr
    );
    assert!(
        !ended.stderr.is_empty(),
        "{args:?} ended with {code} and gave no reason"
    );
}
