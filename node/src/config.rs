//! Configuration in layers: a TOML file, then the environment, then flags.
//!
//! A later layer wins key by key. A configuration is any struct with
//! `#[serde(default, deny_unknown_fields)]` on it and on every struct inside: the first makes
//! every key optional, the second is what refuses a misspelt one. [`lenient_tables`] tells a test
//! whether a table forgot the second.
//!
//! ```
//! use node::config::{Invalid, Sources, Validate};
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config {
//!     listen: std::net::SocketAddr,
//!     #[serde(with = "node::config::duration")]
//!     grace: Duration,
//! }
//!
//! impl Default for Config {
//!     fn default() -> Self {
//!         Self { listen: ([0, 0, 0, 0], 1935).into(), grace: Duration::from_secs(30) }
//!     }
//! }
//!
//! impl Validate for Config {}
//!
//! let loaded = Sources::new()
//!     .text("selvage.toml", "listen = '127.0.0.1:0'\ngrace = '10s'")
//!     .variables([("SELVAGE_GRACE", "250ms")])
//!     .load::<Config>()?;
//! assert_eq!(loaded.value.grace, Duration::from_millis(250));
//!
//! let refused = Sources::new().text("selvage.toml", "\ngrcae = '10s'").load::<Config>();
//! assert_eq!(
//!     refused.map(|_| ()).map_err(|e| e.to_string()),
//!     Err("selvage.toml:2: unknown key `grcae`; did you mean `grace`? known here: listen, grace".into()),
//! );
//! # Ok::<(), node::config::Error>(())
//! ```
//!
//! An environment variable is `SELVAGE_` and the key in capitals, with two underscores where the
//! key has a dot: `SELVAGE_LOG__FILTER` is `log.filter`. A list may be written `a,b,c`.

mod humane;
mod secret;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use figment::error::Kind;
use figment::value::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use humane::{bytes, duration, duration_option, format_bytes, format_duration};
pub use humane::{parse_bytes, parse_duration};
pub use secret::Secret;
pub use source::{Origin, Sources};

/// What the whole of a configuration must satisfy beyond the type of each key.
pub trait Validate {
    /// Refuses a value, or a combination of values, that has the right type and cannot work.
    ///
    /// # Errors
    /// The key at fault, its value, and what would be right.
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// A value that its type allows and the program does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The full path of the key, such as `rtmp.listen`.
    pub key: String,
    /// The value as the operator would write it.
    pub value: String,
    /// What would be right, as a phrase that follows "expected".
    pub expected: String,
}

impl Invalid {
    /// A refusal of `key` that has `value` where `expected` would be right.
    pub fn new(
        key: impl Into<String>,
        value: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// The same refusal seen from the table `table` that contains the key.
    #[must_use]
    pub fn within(mut self, table: &str) -> Self {
        self.key = format!("{table}.{}", self.key);
        self
    }
}

/// Why a configuration was refused. The text is one line that names the place, the key, the value
/// and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{name}: not valid TOML: {message}")]
    Syntax {
        /// The file as it was named.
        name: String,
        /// Where and what, as the parser says it.
        message: String,
    },
    /// A key that nobody reads: nearly always a misspelling.
    #[error("{origin}: unknown key `{key}`{}", suggestion(key, known))]
    UnknownKey {
        /// Where it was written.
        origin: Origin,
        /// The full path of the key.
        key: String,
        /// The keys that the same table has.
        known: Vec<String>,
    },
    /// A value that cannot be used.
    #[error("{origin}: `{key}` is {value}, expected {expected}")]
    BadValue {
        /// Where it was written.
        origin: Origin,
        /// The full path of the key.
        key: String,
        /// The value as it was written, or `***` for a secret.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A key without which the program cannot run and that has no default.
    #[error("{origin}: the key `{key}` is missing")]
    Missing {
        /// Where its table was written.
        origin: Origin,
        /// The full path of the key.
        key: String,
    },
}

/// A configuration and where each of its values came from.
///
/// `Display` prints one line per key, `key = value  # where`, fit for the log at start: defaults
/// are included, [`Secret`]s are not legible.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The configuration itself.
    pub value: T,
    origins: BTreeMap<String, Origin>,
}

impl<T> Loaded<T> {
    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return origin.clone();
            }
            let Some((parent, _)) = key.rsplit_once('.') else {
                return Origin::Default;
            };
            key = parent;
        }
    }
}

impl<T: Serialize> fmt::Display for Loaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tree = Value::serialize(&self.value).map_err(|_| fmt::Error)?;
        let mut lines = Vec::new();
        flatten("", &tree, &mut lines);
        for (i, (key, value)) in lines.iter().enumerate() {
            let end = if i + 1 == lines.len() { "" } else { "\n" };
            write!(f, "{key} = {value}  # {}{end}", self.origin(key))?;
        }
        Ok(())
    }
}

/// The tables of a configuration that would accept a key which nobody reads, because their struct
/// lacks `#[serde(deny_unknown_fields)]`. A test asserts that this is empty.
pub fn lenient_tables<T: DeserializeOwned + Serialize + Default + Validate>() -> Vec<String> {
    const PROBE: &str = "no_such_key";
    let Ok(tree) = Value::serialize(T::default()) else {
        return vec!["(not a table)".into()];
    };
    let mut tables = vec![String::new()];
    collect_tables("", &tree, &mut tables);
    tables.retain(|table| {
        let key = join(table, PROBE);
        let loaded = Sources::new().flag(&key, "--probe", true).load::<T>();
        !matches!(loaded, Err(Error::UnknownKey { .. }))
    });
    tables
}

impl Sources {
    /// Merges the layers and reads a configuration from them.
    ///
    /// # Errors
    /// The first thing that is wrong; see [`Error`].
    pub fn load<T>(mut self) -> Result<Loaded<T>, Error>
    where
        T: DeserializeOwned + Serialize + Default + Validate,
    {
        self.read_file()?;
        loop {
            let figment = self.figment()?;
            match figment.extract::<T>() {
                Ok(value) => {
                    let merged = figment
                        .find_value("")
                        .unwrap_or_else(|_| Value::from(false));
                    let mut origins = BTreeMap::new();
                    self.collect_origins(&figment, "", &merged, &mut origins);
                    let loaded = Loaded { value, origins };
                    return match loaded.value.validate() {
                        Ok(()) => Ok(loaded),
                        Err(Invalid {
                            key,
                            value,
                            expected,
                        }) => Err(Error::BadValue {
                            origin: loaded.origin(&key),
                            value: redact(&key, value),
                            key,
                            expected,
                        }),
                    };
                }
                // A variable has no type of its own, so the first guess may be wrong: `1` can be
                // a name. Each variable is read differently at most once.
                Err(error) if self.reread_variable(&error) => {}
                Err(error) => return Err(self.explain(&figment, error)),
            }
        }
    }

    fn collect_origins(
        &self,
        figment: &figment::Figment,
        path: &str,
        value: &Value,
        origins: &mut BTreeMap<String, Origin>,
    ) {
        if let Value::Dict(_, dict) = value {
            for (key, value) in dict {
                self.collect_origins(figment, &join(path, key), value, origins);
            }
        } else if let Some(metadata) = figment.get_metadata(value.tag()) {
            origins.insert(path.to_owned(), self.origin_of(&metadata.name, path));
        }
    }

    fn explain(&self, figment: &figment::Figment, error: figment::Error) -> Error {
        let key = error.path.join(".");
        let origin = error.metadata.as_ref().map_or(Origin::Default, |metadata| {
            self.origin_of(&metadata.name, &key)
        });
        let expected = match error.kind {
            Kind::UnknownField(_, known) => {
                let known = known.iter().map(|&k| k.to_owned()).collect();
                return Error::UnknownKey { origin, key, known };
            }
            Kind::MissingField(field) => {
                return Error::Missing {
                    origin,
                    key: join(&key, &field),
                };
            }
            Kind::InvalidType(_, expected)
            | Kind::InvalidValue(_, expected)
            | Kind::InvalidLength(_, expected) => expected,
            Kind::UnknownVariant(_, known) => format!("one of {}", known.join(", ")),
            // The only thing the standard library says about an address.
            Kind::Message(text) if text.contains("socket address") => {
                "an IP address and a port, such as 127.0.0.1:1935 or [::]:0".into()
            }
            Kind::Message(text) => text,
            other @ (Kind::DuplicateField(_)
            | Kind::ISizeOutOfRange(_)
            | Kind::USizeOutOfRange(_)
            | Kind::Unsupported(_)
            | Kind::UnsupportedKey(..)) => format!("something else ({other})"),
        };
        let value = figment
            .find_value("")
            .ok()
            .and_then(|tree| walk(&tree, &error.path).map(render))
            .unwrap_or_else(|| "unreadable".into());
        Error::BadValue {
            origin,
            value: redact(&key, value),
            key,
            expected,
        }
    }
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

fn walk<'a>(tree: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |value, step| match value {
        Value::Dict(_, dict) => dict.get(step),
        Value::Array(_, items) => items.get(step.parse::<usize>().ok()?),
        Value::String(..)
        | Value::Char(..)
        | Value::Bool(..)
        | Value::Num(..)
        | Value::Empty(..) => None,
    })
}

fn collect_tables(path: &str, value: &Value, tables: &mut Vec<String>) {
    if let Value::Dict(_, dict) = value {
        for (key, value) in dict {
            if let Value::Dict(_, inner) = value
                && !inner.is_empty()
            {
                let table = join(path, key);
                tables.push(table.clone());
                collect_tables(&table, value, tables);
            }
        }
    }
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Dict(_, dict) => {
            for (key, value) in dict {
                flatten(&join(path, key), value, lines);
            }
        }
        Value::Empty(..) => {}
        Value::String(..)
        | Value::Char(..)
        | Value::Bool(..)
        | Value::Num(..)
        | Value::Array(..) => lines.push((path.to_owned(), redact(path, render(value)))),
    }
}

/// A value as an operator would write it in the file.
fn render(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("{:?}", c.to_string()),
        Value::Bool(_, b) => b.to_string(),
        Value::Num(_, n) => match (n.to_u128(), n.to_i128(), n.to_f64()) {
            (Some(n), _, _) => n.to_string(),
            (_, Some(n), _) => n.to_string(),
            (_, _, Some(n)) => n.to_string(),
            (None, None, None) => "a number".into(),
        },
        Value::Empty(..) => "nothing".into(),
        Value::Array(_, items) => {
            format!(
                "[{}]",
                items.iter().map(render).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Dict(_, dict) => {
            let pairs: Vec<_> = dict
                .iter()
                .map(|(k, v)| format!("{k} = {}", render(v)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// Hides the value of a key that sounds like a secret. [`Secret`] hides itself; this is for the
/// error that arises before there is a `Secret`.
fn redact(key: &str, value: String) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let hidden = ["secret", "password", "token"]
        .iter()
        .any(|word| last.contains(word));
    if hidden {
        secret::REDACTED.into()
    } else {
        value
    }
}

fn suggestion(key: &str, known: &[String]) -> String {
    if known.is_empty() {
        return "; no key is known here".into();
    }
    let (table, last) = key.rsplit_once('.').unwrap_or(("", key));
    // Two slips of the finger; more would suggest strangers.
    let near = known
        .iter()
        .map(|candidate| (distance(last, candidate), candidate))
        .filter(|(d, _)| *d <= 2)
        .min();
    let hint = near.map_or_else(String::new, |(_, candidate)| {
        format!("; did you mean `{}`?", join(table, candidate))
    });
    let colon = if hint.is_empty() { ";" } else { "" };
    format!("{hint}{colon} known here: {}", known.join(", "))
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = a[i - 1] == b[j - 1];
                let mut best = (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + usize::from(!same));
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests;
