//! The wire between edge and origin: gRPC services and their conversions.
