//! The layers a configuration is merged from, and how an operator would name the place of a value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::Error;

/// What the names of our environment variables begin with.
const PREFIX: &str = "SELVAGE_";

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nowhere: it is the default of the program.
    Default,
    /// In the file, at a line counted from 1, or 0 where the line is not known.
    File {
        /// The file as it was named.
        name: String,
        /// The line of the key.
        line: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line: 0 } => f.write_str(name),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The layers, in the order of increasing precedence: file, environment, flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    path: Option<PathBuf>,
    file: Option<File>,
    variables: Vec<Variable>,
    ignored: Vec<String>,
    flags: Vec<Flag>,
}

#[derive(Debug, Clone)]
struct File {
    name: String,
    text: String,
    lines: BTreeMap<String, usize>,
}

#[derive(Debug, Clone)]
struct Variable {
    name: String,
    key: String,
    text: String,
    reading: Reading,
}

/// How the text of a variable is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// As the number, boolean, list or text that it looks like.
    Guess,
    /// As text, whatever it looks like.
    Text,
    /// As texts separated by commas.
    List,
}

#[derive(Debug, Clone)]
struct Flag {
    name: String,
    key: String,
    value: Value,
}

impl Sources {
    /// No layer yet: the defaults alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a TOML file. It must exist.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.path = Some(path.as_ref().to_owned());
        self
    }

    /// Takes `text` as the content of a TOML file called `name`.
    #[must_use]
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        self.file = Some(File {
            name: name.into(),
            lines: lines_of_keys(&text),
            text,
        });
        self
    }

    /// Takes the variables of this process that begin with `SELVAGE_`.
    #[must_use]
    pub fn environment(self) -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        self.variables(variables)
    }

    /// Takes those of the given variables that begin with `SELVAGE_`.
    #[must_use]
    pub fn variables<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        for (name, text) in variables {
            let name = name.into();
            if let Some(rest) = name.strip_prefix(PREFIX).filter(|rest| !rest.is_empty()) {
                let key = rest.to_ascii_lowercase().replace("__", ".");
                let text = text.into();
                self.variables.push(Variable {
                    name,
                    key,
                    text,
                    reading: Reading::Guess,
                });
            }
        }
        // The order of the environment is chance; a shorter key must not hide a longer one.
        self.variables.sort_by(|a, b| a.key.cmp(&b.key));
        self
    }

    /// Leaves out a variable that begins with `SELVAGE_` and is not a key, such as the one that
    /// names the configuration file.
    #[must_use]
    pub fn ignore_variable(mut self, name: impl Into<String>) -> Self {
        self.ignored.push(name.into());
        self
    }

    /// Sets `key` (a path with dots) as the flag `name` says. `None` sets nothing.
    #[must_use]
    pub fn flag(mut self, key: &str, name: impl Into<String>, value: impl Serialize) -> Self {
        match Value::serialize(value) {
            Ok(Value::Empty(..)) | Err(_) => {}
            Ok(value) => self.flags.push(Flag {
                name: name.into(),
                key: key.into(),
                value,
            }),
        }
        self
    }

    /// Takes a whole tree of overrides, in which `None` sets nothing. Each key is named as the
    /// flag `--key.with.dots` in errors.
    #[must_use]
    pub fn overrides(mut self, tree: impl Serialize) -> Self {
        if let Ok(tree) = Value::serialize(tree) {
            self.override_below("", tree);
        }
        self
    }

    fn override_below(&mut self, path: &str, value: Value) {
        match value {
            Value::Empty(..) => {}
            Value::Dict(_, dict) => {
                for (key, value) in dict {
                    self.override_below(&super::join(path, &key), value);
                }
            }
            value @ (Value::String(..)
            | Value::Char(..)
            | Value::Bool(..)
            | Value::Num(..)
            | Value::Array(..)) => {
                let flag = Flag {
                    name: format!("--{path}"),
                    key: path.into(),
                    value,
                };
                self.flags.push(flag);
            }
        }
    }

    pub(super) fn read_file(&mut self) -> Result<(), Error> {
        let Some(path) = self.path.take() else {
            return Ok(());
        };
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Unreadable {
            path: path.clone(),
            source,
        })?;
        let name = path.display().to_string();
        self.file = Some(File {
            name,
            lines: lines_of_keys(&text),
            text,
        });
        Ok(())
    }

    /// The layers merged. Each variable and each flag is a layer of its own, named by what an
    /// operator typed, so that every value knows its origin.
    pub(super) fn figment(&self) -> Result<Figment, Error> {
        let mut figment = Figment::new();
        if let Some(file) = &self.file {
            let data = Toml::string(&file.text)
                .data()
                .map_err(|error| Error::Syntax {
                    name: file.name.clone(),
                    message: error.kind.to_string(),
                })?;
            let dict = data.into_values().next().unwrap_or_default();
            figment = figment.merge(Layer {
                name: "file".into(),
                dict,
            });
        }
        for variable in self
            .variables
            .iter()
            .filter(|v| !self.ignored.contains(&v.name))
        {
            let dict = nest(&variable.key, variable.value());
            figment = figment.merge(Layer {
                name: format!("variable {}", variable.name),
                dict,
            });
        }
        for flag in &self.flags {
            let dict = nest(&flag.key, flag.value.clone());
            figment = figment.merge(Layer {
                name: format!("flag {}", flag.name),
                dict,
            });
        }
        Ok(figment)
    }

    /// The place behind the name of a layer.
    pub(super) fn origin_of(&self, layer: &str, key: &str) -> Origin {
        match layer.split_once(' ') {
            Some(("variable", name)) => Origin::Variable(name.into()),
            Some(("flag", name)) => Origin::Flag(name.into()),
            _ => self
                .file
                .as_ref()
                .map_or(Origin::Default, |file| Origin::File {
                    name: file.name.clone(),
                    line: file.line_of(key),
                }),
        }
    }

    /// Reads the variable behind a type error in another way. False when there is none left.
    pub(super) fn reread_variable(&mut self, error: &figment::Error) -> bool {
        let Kind::InvalidType(_, expected) = &error.kind else {
            return false;
        };
        let layer = error
            .metadata
            .as_ref()
            .map(|metadata| metadata.name.clone());
        let variable = self
            .variables
            .iter_mut()
            .find(|v| layer.as_deref().and_then(|l| l.strip_prefix("variable ")) == Some(&v.name))
            .filter(|v| v.reading == Reading::Guess);
        let Some(variable) = variable else {
            return false;
        };
        let list = expected.contains("sequence") || expected.contains("list");
        variable.reading = if list { Reading::List } else { Reading::Text };
        true
    }
}

impl File {
    /// The line of a key, or of the nearest table around it.
    fn line_of(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            if let Some(line) = self.lines.get(key) {
                return *line;
            }
            let Some((parent, _)) = key.rsplit_once('.') else {
                return 0;
            };
            key = parent;
        }
    }
}

impl Variable {
    fn value(&self) -> Value {
        match self.reading {
            Reading::Guess => match self.text.parse::<Value>() {
                Ok(value) => value,
                Err(never) => match never {},
            },
            Reading::Text => Value::from(self.text.as_str()),
            Reading::List => {
                let items = self
                    .text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                Value::from(items.map(Value::from).collect::<Vec<_>>())
            }
        }
    }
}

/// One layer of values with a name of its own.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

fn nest(key: &str, value: Value) -> Dict {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Value::from(nest(rest, value))),
        None => (key, value),
    };
    Dict::from([(first.to_owned(), rest)])
}

/// The line of each key, for messages only: headers and `key =` at the start of a line are
/// recognised, which is how people write these files. What is missed is named by its table.
fn lines_of_keys(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    let mut table = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if let Some(header) = line.strip_prefix('[') {
            let Some((header, _)) = header.trim_start_matches('[').split_once(']') else {
                continue;
            };
            table = clean(header);
            lines.entry(table.clone()).or_insert(index + 1);
        } else if !line.starts_with('#')
            && let Some((key, _)) = line.split_once('=')
        {
            lines
                .entry(super::join(&table, &clean(key)))
                .or_insert(index + 1);
        }
    }
    lines
}

fn clean(key: &str) -> String {
    let parts = key
        .split('.')
        .map(|part| part.trim().trim_matches(['"', '\'']));
    parts.collect::<Vec<_>>().join(".")
}
