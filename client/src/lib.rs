//! An RTMP client on tokio: player and publisher.
