//! Keys of the metadata that opens a link.

/// The W3C trace context of the edge's link span.
pub const TRACEPARENT: &str = "traceparent";

/// Vendor data of the trace context.
pub const TRACESTATE: &str = "tracestate";

/// The edge's id, for the logs of what stands between (proxies, meshes). The origin
/// believes `Hello.edge`.
pub const EDGE: &str = "selvage-edge";
