//! Validated names.
//!
//! A name is checked when it enters the system and is a cheap, immutable handle from
//! then on. Names become path segments of recordings and log fields, so what could
//! escape a folder or a log line is refused here, once.

use std::fmt;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The name is empty.
    Empty,
    /// The name has more bytes than `max`.
    TooLong {
        /// Bytes the name has.
        len: usize,
        /// Bytes a name of this kind may have.
        max: usize,
    },
    /// The name holds a control character, a backslash, or a slash where none may be.
    BadCharacter(char),
    /// A path segment is empty, `.` or `..`.
    BadSegment,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name is empty"),
            Self::TooLong { len, max } => {
                write!(f, "the name has {len} bytes, at most {max} are allowed")
            }
            Self::BadCharacter(c) => write!(f, "the name holds the character {c:?}"),
            Self::BadSegment => f.write_str("a path segment is empty, '.' or '..'"),
        }
    }
}

impl std::error::Error for NameError {}

/// The rule that all names share.
pub(crate) fn check(text: &str, max: usize, slashes: bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong {
            len: text.len(),
            max,
        });
    }
    if let Some(c) = text
        .chars()
        .find(|c| c.is_control() || *c == '\\' || (*c == '/' && !slashes))
    {
        return Err(NameError::BadCharacter(c));
    }
    if text
        .split('/')
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return Err(NameError::BadSegment);
    }
    Ok(())
}

/// Declares a name: a shared, validated string.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, max = $max:expr, slashes = $slashes:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The most bytes such a name may have.
            pub const MAX_LEN: usize = $max;

            /// Checks and takes a name.
            ///
            /// # Errors
            /// Says what is wrong with it.
            pub fn new(text: &str) -> Result<Self, NameError> {
                $crate::name::check(text, Self::MAX_LEN, $slashes)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}
pub(crate) use name_type;

name_type! {
    /// A virtual host.
    VhostName, max = 253, slashes = false
}

name_type! {
    /// An application: the first segment of the path in `rtmp://host/app/instance`.
    AppName, max = 128, slashes = false
}

name_type! {
    /// An application's instance: everything after the first segment; `_definst_` when
    /// the address names none.
    InstanceName, max = 255, slashes = true
}

name_type! {
    /// A stream's published name, without a type prefix (`flv:`, `mp4:`) and without the
    /// query string. It may hold slashes.
    StreamName, max = 255, slashes = true
}

impl VhostName {
    /// The virtual host of an address that names none of the configured ones.
    #[must_use]
    pub fn default_vhost() -> Self {
        Self("_defaultVHost_".into())
    }
}

impl InstanceName {
    /// `_definst_`, the instance of an address that names none.
    #[must_use]
    pub fn default_instance() -> Self {
        Self("_definst_".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_not_leave_its_folder_or_its_log_line() {
        assert_eq!(StreamName::new(""), Err(NameError::Empty));
        assert_eq!(StreamName::new("a/../b"), Err(NameError::BadSegment));
        assert_eq!(StreamName::new("/a"), Err(NameError::BadSegment));
        assert_eq!(StreamName::new("a\nb"), Err(NameError::BadCharacter('\n')));
        assert_eq!(StreamName::new("a\\b"), Err(NameError::BadCharacter('\\')));
        assert_eq!(AppName::new("a/b"), Err(NameError::BadCharacter('/')));
        assert_eq!(
            StreamName::new(&"x".repeat(256)),
            Err(NameError::TooLong { len: 256, max: 255 })
        );
        assert_eq!(
            StreamName::new("room 1/кино").map(|n| n.to_string()),
            Ok("room 1/кино".into())
        );
    }
}
