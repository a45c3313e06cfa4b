//! Which status a refusal becomes, for each thing that can be refused.

use amf::Value;

use crate::event::{PublishMode, Refusal};
use crate::status::{Code, Status};

/// Refusals that belong to streams say that the application is not there.
pub(crate) fn connect(refusal: Refusal, app: &str) -> Status {
    match refusal {
        Refusal::Rejected {
            description,
            application,
        } => {
            let status = Status::connection(Code::ConnectRejected).describe(description);
            if application == Value::Undefined {
                status
            } else {
                status.with("application", application)
            }
        }
        Refusal::Redirected { url } => {
            let ex = Value::object([("code", Value::Number(302.0)), ("redirect", url.into())]);
            Status::connection(Code::ConnectRejected)
                .describe("[ Server.Reject ] : (redirected).")
                .with("ex", ex)
        }
        Refusal::AppShutdown => Status::connection(Code::ConnectAppShutdown),
        Refusal::Failed { description } => {
            Status::connection(Code::ConnectFailed).describe(description)
        }
        Refusal::InvalidApp | Refusal::BadName | Refusal::StreamNotFound => {
            Status::connection(Code::ConnectInvalidApp)
                .describe(Code::ConnectInvalidApp.description(app))
        }
    }
}

/// A recording that may not be is `Record.NoAccess`; everything else is `BadName`.
pub(crate) fn publish(name: &str, mode: PublishMode, refusal: Refusal) -> Status {
    match refusal {
        Refusal::Failed { description } if mode.records() => {
            Status::stream(Code::RecordNoAccess, name).describe(description)
        }
        Refusal::Failed { description } | Refusal::Rejected { description, .. } => {
            Status::stream(Code::PublishBadName, name).describe(description)
        }
        Refusal::Redirected { .. }
        | Refusal::InvalidApp
        | Refusal::AppShutdown
        | Refusal::BadName
        | Refusal::StreamNotFound => Status::stream(Code::PublishBadName, name),
    }
}

/// A name that is taken or unknown is one that cannot be found.
pub(crate) fn play(name: &str, refusal: Refusal) -> Status {
    match refusal {
        Refusal::StreamNotFound | Refusal::BadName => {
            Status::stream(Code::PlayStreamNotFound, name)
        }
        Refusal::Failed { description } | Refusal::Rejected { description, .. } => {
            Status::stream(Code::PlayFailed, name).describe(description)
        }
        Refusal::Redirected { .. } | Refusal::InvalidApp | Refusal::AppShutdown => {
            Status::stream(Code::PlayFailed, name)
        }
    }
}
