//! The layers of a configuration: flags over environment over file.
//!
//! A layer holds raw values; [`Reader`] finds the uppermost one that gives a
//! key, keeps where it came from, and gathers mistakes instead of stopping at
//! the first. The environment and the files are arguments, so that all of this
//! is tested without touching either.
//!
//! An empty environment variable counts as unset.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::mistake::{Mistake, Source};
use super::secret::Secret;

/// A key of the configuration, and its names in the three layers.
#[derive(Debug)]
pub struct Key {
    /// In the file: `listen`, or `api.require_key` for a key of a table.
    pub path: &'static str,
    /// The environment variables, the first that is set wins.
    pub variables: &'static [&'static str],
    /// The flag, without its dashes.
    pub flag: Option<&'static str>,
}

/// What the command line gave, as text: it is parsed where everything else is.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The file that `--config` names.
    pub(super) config: Option<PathBuf>,
    values: BTreeMap<&'static str, String>,
}

impl Flags {
    /// No flags, but perhaps the file that `--config` names.
    #[must_use]
    pub fn new(config: Option<PathBuf>) -> Self {
        Self { config, values: BTreeMap::new() }
    }

    /// Notes the value of a flag, if it was given.
    ///
    /// # Panics
    ///
    /// Where the key has no flag.
    pub fn set(&mut self, key: &'static Key, value: Option<String>) {
        assert!(key.flag.is_some(), "{} has no flag", key.path);
        if let Some(value) = value {
            self.values.insert(key.path, value);
        }
    }
}

/// The environment variables of the process, or those of a test.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The environment of this process. Variables whose name is no UTF-8 cannot
    /// be ours.
    #[must_use]
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
        )
    }

    /// The value of a variable; `None` where it is unset or empty.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, Mistake> {
        Ok(self.get_even_empty(name)?.filter(|value| !value.is_empty()))
    }

    /// The value of a variable; `None` where it is unset.
    pub(super) fn get_even_empty(&self, name: &str) -> Result<Option<&str>, Mistake> {
        match self.0.get(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => Err(Source::variable(name).mistake("is not UTF-8")),
        }
    }

    /// The names of the variables that are set and not empty.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.as_str())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }
}

/// Reads a file as text.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// The configuration file, parsed but not yet understood.
#[derive(Debug, Default)]
pub(super) struct File {
    /// As the user wrote it: it stands in every mistake.
    pub(super) name: String,
    /// Relative paths in the file start from there.
    folder: PathBuf,
    pub(super) table: toml::Table,
}

impl File {
    /// Parses the text of a file. A mistake tells the line but does not quote
    /// it: it may hold a secret.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Mistake> {
        let name = path.display().to_string();
        let table = text.parse::<toml::Table>().map_err(|error| {
            let line = error.span().map_or(1, |span| {
                let before = text.get(..span.start).unwrap_or(text);
                before.matches('\n').count() + 1
            });
            Mistake::new(format!("{name}: line {line}: {}", error.message()))
        })?;
        Ok(Self { name, folder: path.parent().map(Path::to_owned).unwrap_or_default(), table })
    }

    fn get(&self, path: &str) -> Option<&toml::Value> {
        let mut keys = path.split('.');
        let first = self.table.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }
}

/// Finds the values of keys in the layers, and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) flags: &'a Flags,
    pub(super) environment: &'a Environment,
    pub(super) file: File,
    pub(super) read_file: ReadFile<'a>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    /// The value of a key from the uppermost layer that gives it, understood by
    /// `understand`. `None` where no layer gives it, or where it is a mistake,
    /// which is noted.
    pub(super) fn read<T>(
        &mut self,
        key: &Key,
        understand: impl FnOnce(&Given) -> Result<T, Mistake>,
    ) -> Option<T> {
        let flag = key.flag.zip(self.flags.values.get(key.path));
        if let Some((flag, value)) = flag {
            let given = Given::text_at(Source::flag(flag), value);
            return self.note(understand(&given));
        }
        self.read_below(key.path, key.variables, understand)
    }

    /// Like [`Reader::read`] for a key that has no flag.
    pub(super) fn read_below<T>(
        &mut self,
        path: &str,
        variables: &[&str],
        understand: impl FnOnce(&Given) -> Result<T, Mistake>,
    ) -> Option<T> {
        for name in variables {
            match self.environment.get(name) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    let given = Given::text_at(Source::variable(name), value);
                    return self.note(understand(&given));
                }
                Err(mistake) => return self.note(Err(mistake)),
            }
        }
        let value = self.file.get(path)?.clone();
        let given = Given {
            source: Source::file(&self.file.name, path),
            value,
            splits: false,
            folder: self.file.folder.clone(),
        };
        self.note(understand(&given))
    }

    /// Keeps the value, or notes the mistake.
    pub(super) fn note<T>(&mut self, result: Result<T, Mistake>) -> Option<T> {
        result.map_err(|mistake| self.mistakes.push(mistake)).ok()
    }
}

/// A value as it was given, and where.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) source: Source,
    value: toml::Value,
    /// Whether a text may stand for a list, split at commas, or for another
    /// type: flags and variables are nothing but text.
    splits: bool,
    folder: PathBuf,
}

impl Given {
    fn text_at(source: Source, text: &str) -> Self {
        Self {
            source,
            value: toml::Value::String(text.to_owned()),
            splits: true,
            folder: PathBuf::new(),
        }
    }

    pub(super) fn mistake(&self, text: impl std::fmt::Display) -> Mistake {
        self.source.mistake(text)
    }

    /// The mistake of a value of another type. It names the type and not the
    /// value, which may be a secret.
    fn other_type(&self, expected: &str) -> Mistake {
        self.mistake(format!("expected {expected}, found {}", describe_type(&self.value)))
    }

    pub(super) fn text(&self) -> Result<&str, Mistake> {
        self.text_of("a string")
    }

    /// The text of a value that is written as a string; `expected` describes
    /// the value for the mistake of another type.
    pub(super) fn text_of(&self, expected: &str) -> Result<&str, Mistake> {
        match &self.value {
            toml::Value::String(text) => Ok(text),
            _ => Err(self.other_type(expected)),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, Mistake> {
        match &self.value {
            toml::Value::Boolean(boolean) => Ok(*boolean),
            toml::Value::String(text) if self.splits => match text.as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(self.mistake(format!("unknown value {text:?}, expected true or false"))),
            },
            _ => Err(self.other_type("true or false")),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number<T>(&self, bounds: std::ops::RangeInclusive<T>) -> Result<T, Mistake>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let (low, high) = (bounds.start(), bounds.end());
        let number = match &self.value {
            toml::Value::Integer(number) => *number,
            toml::Value::String(text) if self.splits => text.parse().map_err(|_| {
                self.mistake(format!("{text:?} is not a whole number from {low} to {high}"))
            })?,
            _ => return Err(self.other_type(&format!("a whole number from {low} to {high}"))),
        };
        let within = T::try_from(number).ok().filter(|number| bounds.contains(number));
        within.ok_or_else(|| self.mistake(format!("{number} is not between {low} and {high}")))
    }

    /// The items of a list, which is not empty.
    pub(super) fn list(&self) -> Result<Vec<Given>, Mistake> {
        let values = match &self.value {
            toml::Value::Array(values) => values.clone(),
            toml::Value::String(text) if self.splits => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| toml::Value::String(item.to_owned()))
                .collect(),
            _ => return Err(self.other_type("a list of strings")),
        };
        if values.is_empty() {
            return Err(self.mistake("the list is empty"));
        }
        let items = values.into_iter().enumerate().map(|(index, value)| Given {
            source: self.source.item(index),
            value,
            splits: self.splits,
            folder: self.folder.clone(),
        });
        Ok(items.collect())
    }

    /// The items of a list, each understood by `understand`; the first mistake
    /// counts.
    pub(super) fn each<T>(
        &self,
        understand: impl Fn(&Given) -> Result<T, Mistake>,
    ) -> Result<Vec<T>, Mistake> {
        self.list()?.iter().map(understand).collect()
    }

    /// A path. In a file, a relative one starts from the file's folder.
    pub(super) fn path(&self) -> Result<PathBuf, Mistake> {
        let text = self.text()?;
        if text.is_empty() {
            return Err(self.mistake("is empty"));
        }
        Ok(self.folder.join(text))
    }

    /// A secret: what `env:NAME` or `file:PATH` holds, without the white space
    /// around it, or the text itself.
    pub(super) fn secret(
        &self,
        environment: &Environment,
        read_file: ReadFile<'_>,
    ) -> Result<Secret, Mistake> {
        let text = self.text()?;
        let (text, origin) = if let Some(name) = text.strip_prefix("env:") {
            let value = environment
                .get_even_empty(name)
                .map_err(|_| self.mistake(format!("the variable {name} is not UTF-8")))?
                .ok_or_else(|| self.mistake(format!("the variable {name} is not set")))?;
            (value.to_owned(), format!("the variable {name}"))
        } else if let Some(path) = text.strip_prefix("file:") {
            let path = self.folder.join(path);
            let text = read_file(&path).map_err(|error| {
                self.mistake(format!("cannot read {}: {error}", path.display()))
            })?;
            (text, format!("the file {}", path.display()))
        } else {
            (text.to_owned(), "the value".to_owned())
        };
        match text.trim() {
            "" => Err(self.mistake(format!("{origin} is empty"))),
            text => Ok(Secret::new(text)),
        }
    }
}

fn describe_type(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) => "a whole number",
        toml::Value::Float(_) => "a decimal number",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a time",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}
