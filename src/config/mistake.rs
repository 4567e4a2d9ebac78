//! What is wrong with a configuration, one line per mistake.

use std::error::Error;
use std::fmt;

/// Where a value was given: `--listen`, `CALLSTATE_LISTEN` or
/// `callstate.toml: listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    pub(super) fn flag(flag: &str) -> Self {
        Self(format!("--{flag}"))
    }

    pub(super) fn variable(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub(super) fn file(file: &str, key: &str) -> Self {
        Self(format!("{file}: {key}"))
    }

    pub(super) fn item(&self, index: usize) -> Self {
        Self(format!("{self}[{index}]"))
    }

    /// The mistake of what was given here.
    pub(super) fn mistake(&self, text: impl fmt::Display) -> Mistake {
        Mistake(format!("{self}: {text}"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One mistake: the key, where it was given, and what is wrong. It is one line
/// whatever the value was, and never quotes a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake(String);

impl Mistake {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key or a value may hold anything; a mistake stays one line.
        for character in self.0.chars() {
            if character.is_control() {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                write!(formatter, "{character}")?;
            }
        }
        Ok(())
    }
}

/// All mistakes that were found, at least one. Its `Display` has a line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// The mistakes, unless there is none.
    pub(super) fn check(mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }

    /// The mistakes in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            mistake.fmt(formatter)?;
        }
        Ok(())
    }
}

impl Error for Mistakes {}
