//! NetConnection and NetStream semantics, server and client role.
