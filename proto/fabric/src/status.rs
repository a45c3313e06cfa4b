//! Why a link ended, as a gRPC status and back.
//!
//! One table: the code tells who is to blame and whether trying again makes sense.
//!
//! | [`LinkError`] | code | try again |
//! |---|---|---|
//! | `Invalid` | `INVALID_ARGUMENT` | no: the same message will be refused again |
//! | `OutOfOrder` | `FAILED_PRECONDITION` | no |
//! | `LimitExceeded` | `RESOURCE_EXHAUSTED` | later |
//! | `Leaving` | `UNAVAILABLE` | at once, elsewhere |

use std::fmt;

use tonic::{Code, Status};

use crate::convert::Invalid;

/// Why one side ends a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The peer sent a message that is wrong in itself.
    Invalid(Invalid),
    /// The peer sent a message where it may not come; the text names both.
    OutOfOrder(String),
    /// The peer makes us hold more than we may; the text names the limit.
    LimitExceeded(String),
    /// This side is leaving.
    Leaving,
}

/// What the peer of an ended link may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Open the link again, with increasing delays.
    Later,
    /// Ask another origin at once; this one later.
    Elsewhere,
    /// Not without a change: one of the two sides has a fault. A caller that has nothing
    /// else to do may still try again, at its longest delay.
    Never,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::OutOfOrder(what) => f.write_str(what),
            Self::LimitExceeded(limit) => write!(f, "limit exceeded: {limit}"),
            Self::Leaving => f.write_str("this origin is leaving"),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Invalid(invalid) => Some(invalid),
            Self::OutOfOrder(_) | Self::LimitExceeded(_) | Self::Leaving => None,
        }
    }
}

impl From<Invalid> for LinkError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<LinkError> for Status {
    fn from(error: LinkError) -> Self {
        let code = match error {
            LinkError::Invalid(_) => Code::InvalidArgument,
            LinkError::OutOfOrder(_) => Code::FailedPrecondition,
            LinkError::LimitExceeded(_) => Code::ResourceExhausted,
            LinkError::Leaving => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// What to do about a link that ended with `status`.
#[must_use]
pub fn retry(status: &Status) -> Retry {
    match status.code() {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::OutOfRange
        | Code::NotFound
        | Code::AlreadyExists => Retry::Never,
        Code::Unavailable => Retry::Elsewhere,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => Retry::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds() {
        let table = [
            (
                LinkError::Invalid(Invalid::Missing {
                    field: "Publish.key",
                }),
                Code::InvalidArgument,
                "Publish.key is missing",
                Retry::Never,
            ),
            (
                LinkError::OutOfOrder("the first message must be Hello".into()),
                Code::FailedPrecondition,
                "the first message must be Hello",
                Retry::Never,
            ),
            (
                LinkError::LimitExceeded("publications of one link".into()),
                Code::ResourceExhausted,
                "limit exceeded: publications of one link",
                Retry::Later,
            ),
            (
                LinkError::Leaving,
                Code::Unavailable,
                "this origin is leaving",
                Retry::Elsewhere,
            ),
        ];
        for (error, code, text, then) in table {
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text));
            assert_eq!(retry(&status), then);
        }
    }
}
