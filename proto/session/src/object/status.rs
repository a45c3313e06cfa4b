//! The table of what can fail about an object.

use model::object::ObjectStatus;

/// The level of all of them.
pub const LEVEL: &str = "error";

/// That a message was given out, in the form of a status with the number of the request in
/// the place of the level. Ours, and only for clients that count their requests.
pub const SENT: &str = "SharedObject.Sent";

/// All failures that we send.
pub const ALL: [ObjectStatus; 6] = [
    ObjectStatus::BadPersistence,
    ObjectStatus::NoReadAccess,
    ObjectStatus::NoWriteAccess,
    ObjectStatus::CreationFailed,
    ObjectStatus::Unavailable,
    ObjectStatus::Undecided,
];

/// As it is written: `SharedObject.BadPersistence`. The last two are ours.
#[must_use]
pub const fn code(status: ObjectStatus) -> &'static str {
    match status {
        ObjectStatus::BadPersistence => "SharedObject.BadPersistence",
        ObjectStatus::NoReadAccess => "SharedObject.NoReadAccess",
        ObjectStatus::NoWriteAccess => "SharedObject.NoWriteAccess",
        ObjectStatus::CreationFailed => "SharedObject.ObjectCreationFailed",
        ObjectStatus::Unavailable => "SharedObject.Unavailable",
        ObjectStatus::Undecided => "SharedObject.Undecided",
    }
}

/// The status of a code, if it is one that we send.
#[must_use]
pub fn from_code(text: &str) -> Option<ObjectStatus> {
    ALL.into_iter().find(|status| code(*status) == text)
}
