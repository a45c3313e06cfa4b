//! The origin: owns streams and hands them to edges.
