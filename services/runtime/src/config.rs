//! One TOML file and the environment, into a typed configuration.
//!
//! The type is any `serde` struct, with `#[serde(deny_unknown_fields)]` so that a misspelt key is an error. Each key is
//! also an environment variable: the prefix, then the key's path in capitals, joined by `_`. `[edge] listen` is
//! `TICKER_EDGE_LISTEN`. The environment goes before the file.

mod shape;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use shape::{Shape, shape};

/// Variables with the prefix that are no settings: where recordings are, which file to read, what to log.
pub const NOT_SETTINGS: [&str; 3] = ["RECORDINGS", "CONFIG", "LOG"];

/// The prefix of all our variables.
pub const PREFIX: &str = "TICKER_";

/// A configuration file is not larger: whoever names a recording by mistake hears of it at once.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Sections nest at most so deep.
const DEPTH_MAX: usize = 8;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        why: std::io::Error,
    },
    /// The file is far too large to be a configuration.
    #[error("{} has {bytes} bytes, which is no configuration file (at most {FILE_BYTES_MAX})", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file holds an unknown key, a wrong value, or no TOML at all.
    #[error("in the configuration file {}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where, what, and which keys are known.
        why: String,
    },
    /// A variable with our prefix is no setting.
    #[error("the environment variable {name} is no setting{}; the settings are {}", did_you_mean(nearest), known.join(", "))]
    Unknown {
        /// The variable.
        name: String,
        /// The setting that it resembles most.
        nearest: Option<String>,
        /// Every setting, as a variable.
        known: Vec<String>,
    },
    /// A variable's value does not fit its setting.
    #[error("the environment variable {name}: {why}")]
    Value {
        /// The variable.
        name: String,
        /// What was expected.
        why: String,
    },
    /// Something is missing, or does not fit together.
    #[error("the configuration is not valid: {0}")]
    Invalid(String),
    /// It would be open to the network, without protection.
    #[error(
        "{what} would listen on {addr}, beyond this machine, without tokens and TLS: set both, or say that this is meant with --insecure"
    )]
    Exposed {
        /// What would listen.
        what: String,
        /// Where.
        addr: SocketAddr,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |n| format!("; did you mean {n}?"))
}

/// Reads the file at `path` (none: every key has its default), then the environment variables that begin with
/// `env_prefix` ([`PREFIX`]), which go before the file.
pub fn load<T: DeserializeOwned>(path: Option<&Path>, env_prefix: &str) -> Result<T, ConfigError> {
    // A name or value that is no UTF-8 is no setting of ours, whose names and values are text.
    let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    load_from(path, env_prefix, variables)
}

/// [`load`], from these variables instead of the process's own.
pub fn load_from<T: DeserializeOwned>(
    path: Option<&Path>,
    env_prefix: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let (path, text) = match path {
        Some(path) => (path, read(path)?),
        None => (Path::new(""), String::new()),
    };
    let content = |why: toml::de::Error| ConfigError::Content { path: path.to_owned(), why: why.to_string() };
    let mut table: Table = toml::from_str(&text).map_err(content)?;
    let mut ours: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(env_prefix)).collect();
    ours.sort();
    let mut set = Vec::new();
    for (name, value) in &ours {
        let rest = &name[env_prefix.len()..];
        if NOT_SETTINGS.contains(&rest) || is_service_link(name, value, &ours) {
            continue;
        }
        let Some((key, shape)) = resolve::<T>(rest, &mut Vec::new()) else {
            let known = settings::<T>(env_prefix);
            let nearest = known.iter().map(|k| (distance(k, name), k)).min().filter(|(d, _)| *d <= 3);
            let nearest = nearest.map(|(_, k)| k.clone());
            return Err(ConfigError::Unknown { name: name.clone(), nearest, known });
        };
        set.push((name, key, parse(value, shape)));
    }
    if set.is_empty() {
        // The file's own text gives errors with line and column.
        return toml::from_str(&text).map_err(content);
    }
    for (name, key, value) in &set {
        insert(&mut table, key, value.clone()).map_err(|why| ConfigError::Value { name: (*name).clone(), why })?;
    }
    let Err(whole) = table.try_into::<T>() else {
        return merged::<T>(&text, &set).map_err(|why| ConfigError::Invalid(why.to_string()));
    };
    Err(blame::<T>(path, &text, &set, &whole))
}

type Setting<'a> = (&'a String, Vec<String>, Value);

/// The file's table with these settings in it.
fn merged<T: DeserializeOwned>(text: &str, set: &[Setting<'_>]) -> Result<T, toml::de::Error> {
    let mut table: Table = toml::from_str(text)?;
    for (_, key, value) in set {
        let _checked_before = insert(&mut table, key, value.clone());
    }
    table.try_into()
}

/// Says who is at fault for `whole`: the file, or the first variable with which it fails as it does with all.
fn blame<T: DeserializeOwned>(path: &Path, text: &str, set: &[Setting<'_>], whole: &toml::de::Error) -> ConfigError {
    if let Err(why) = toml::from_str::<T>(text)
        && why.message() == whole.message()
        && !path.as_os_str().is_empty()
    {
        return ConfigError::Content { path: path.to_owned(), why: why.to_string() };
    }
    for (i, (name, _, _)) in set.iter().enumerate() {
        let fails = |upto| merged::<T>(text, &set[..upto]).is_err_and(|e| e.message() == whole.message());
        if fails(i + 1) && !fails(i) {
            return ConfigError::Value { name: (*name).clone(), why: whole.message().to_owned() };
        }
    }
    ConfigError::Invalid(whole.message().to_owned())
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |why| ConfigError::File { path: path.to_owned(), why };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The key that a variable's name (without prefix) stands for. Keys may hold `_` themselves, so every split is tried,
/// the longest key first.
fn resolve<T: DeserializeOwned>(rest: &str, path: &mut Vec<String>) -> Option<(Vec<String>, Shape)> {
    let here = shape::<T>(path)?;
    if rest.is_empty() {
        return Some((path.clone(), here));
    }
    if path.len() >= DEPTH_MAX {
        return None;
    }
    let mut keys: Vec<(String, &str)> = match here {
        Shape::Section(fields) => fields
            .iter()
            .filter_map(|field| {
                let tail = rest.strip_prefix(variable_of(field).as_str())?;
                let tail = if tail.is_empty() { tail } else { tail.strip_prefix('_').filter(|t| !t.is_empty())? };
                Some(((*field).to_owned(), tail))
            })
            .collect(),
        // A table's keys are names such as venues: in small letters, with `-`.
        Shape::Map => rest
            .match_indices('_')
            .map(|(at, _)| (&rest[..at], &rest[at + 1..]))
            .chain([(rest, "")])
            .filter(|(key, tail)| !key.is_empty() && (!tail.is_empty() || key.len() == rest.len()))
            .map(|(key, tail)| (key.to_ascii_lowercase().replace('_', "-"), tail))
            .collect(),
        _ => return None,
    };
    keys.sort_by_key(|(_, tail)| tail.len());
    // In a table every key is known, so the split that leads on into a section goes before the one that swallows all.
    if here == Shape::Map {
        keys.rotate_left(1);
    }
    keys.into_iter().find_map(|(key, tail)| {
        path.push(key);
        let found = resolve::<T>(tail, path);
        path.pop();
        found
    })
}

/// Every setting of `T` as a variable. A table's own keys are shown as `*`.
fn settings<T: DeserializeOwned>(prefix: &str) -> Vec<String> {
    fn walk<T: DeserializeOwned>(path: &mut Vec<String>, name: &str, all: &mut Vec<String>) {
        let inside: Vec<String> = match shape::<T>(path) {
            Some(Shape::Section(fields)) if path.len() < DEPTH_MAX => fields.iter().map(|f| (*f).to_owned()).collect(),
            Some(Shape::Map) if path.len() < DEPTH_MAX => vec!["*".to_owned()],
            _ => return all.push(name.to_owned()),
        };
        for key in inside {
            let name = if path.is_empty() { name.to_owned() } else { format!("{name}_") } + &variable_of(&key);
            path.push(key);
            walk::<T>(path, &name, all);
            path.pop();
        }
    }
    let mut all = Vec::new();
    walk::<T>(&mut Vec::new(), prefix, &mut all);
    all
}

fn variable_of(key: &str) -> String {
    key.to_ascii_uppercase().replace('-', "_")
}

fn parse(value: &str, shape: Shape) -> Value {
    match shape {
        Shape::Text => Value::String(value.to_owned()),
        // `a,b` is what people write for a list.
        Shape::List if !value.trim_start().starts_with('[') => value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Value::String(item.to_owned()))
            .collect::<Vec<_>>()
            .into(),
        _ => value.parse().unwrap_or_else(|_| Value::String(value.to_owned())),
    }
}

fn insert(table: &mut Table, key: &[String], value: Value) -> Result<(), String> {
    let Some((last, sections)) = key.split_last() else {
        return Err("names no key".to_owned());
    };
    let mut here = table;
    for section in sections {
        let inner = here.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        here = inner.as_table_mut().ok_or_else(|| format!("`{section}` is no section in the configuration file"))?;
    }
    here.insert(last.clone(), value);
    Ok(())
}

/// Kubernetes gives every container variables for each service of the namespace, named after the service: those of a
/// service `ticker-fanout` look like ours (`TICKER_FANOUT_PORT=tcp://10.0.0.1:50051`) and must not stop us.
fn is_service_link(name: &str, value: &str, all: &[(String, String)]) -> bool {
    let linked = |service: &str| all.iter().any(|(n, _)| n.strip_suffix("_SERVICE_HOST") == Some(service));
    if let Some((service, _)) = name.rsplit_once("_SERVICE_") {
        return linked(service);
    }
    name.match_indices("_PORT").any(|(at, found)| {
        let tail = &name[at + found.len()..];
        let shaped =
            if tail.is_empty() { value.contains("://") } else { tail.contains("_TCP") || tail.contains("_UDP") };
        shaped && linked(&name[..at])
    })
}

/// Letters to change to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replace = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

/// Can only programs on this machine reach a listener at `addr`?
pub fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

/// Refuses to listen beyond this machine, unless that is protected by tokens and TLS, or meant (`insecure`).
pub fn check_exposure(what: &str, addr: SocketAddr, protected: bool, insecure: bool) -> Result<(), ConfigError> {
    if is_loopback(addr) || protected || insecure {
        Ok(())
    } else {
        Err(ConfigError::Exposed { what: what.to_owned(), addr })
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
