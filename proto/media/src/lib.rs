//! Time and memory of a live stream: backlog, cursors, join points.
