//! The edge: RTMP players and publishers in front, origins behind.
