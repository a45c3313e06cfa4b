//! Tests of the whole: real processes, real clients, the architecture.
