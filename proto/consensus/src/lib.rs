//! raft-rs behind one door.
