//! Why a body cannot be read as a delivery.

use std::fmt;

use super::json::{Json, JsonError};
use crate::call::InvalidIdentifier;

/// Why a body cannot be read as a delivery.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON that is accepted.
    #[error("the body is {0}")]
    Json(#[from] JsonError),
    /// It is JSON of another shape.
    #[error("the body is {0}; {expected}", expected = .0.expectation())]
    NotAnObject(Shape),
    /// Fields are missing or unusable; all of them are listed.
    #[error("{}", FieldError::join(.0))]
    Fields(Vec<FieldError>),
}

/// Why one field cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The path of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: FieldProblem,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldProblem {
    /// It is not there, or null.
    Missing,
    /// It is an unfilled placeholder: blank, or this word in some case.
    Placeholder(&'static str),
    /// It must be a string.
    NotAString(Shape),
    /// It must be a string or a number.
    NotAnIdentifier(Shape),
    /// It must be an object, in which another field is searched.
    NotAnObject(Shape),
    /// It is text, but not a valid identifier.
    Invalid(InvalidIdentifier),
    /// It contains a lone surrogate, which no Rust string can.
    LoneSurrogate,
}

/// The type of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl Shape {
    pub(super) const fn of(json: &Json<'_>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(_) => Self::Boolean,
            Json::Number(_) => Self::Number,
            Json::String(_) => Self::String,
            Json::Array(_) => Self::Array,
            Json::Object(_) => Self::Object,
        }
    }

    /// What a body of this shape must be instead.
    const fn expectation(self) -> &'static str {
        match self {
            Self::Array => "one delivery per request is expected",
            Self::Null | Self::Boolean | Self::Number | Self::String | Self::Object => {
                "an object is expected"
            }
        }
    }
}

impl fmt::Display for Shape {
    /// With its article.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

impl FieldError {
    fn join(errors: &[Self]) -> String {
        errors.iter().map(Self::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.field)?;
        match self.problem {
            FieldProblem::Missing => f.write_str("is missing"),
            FieldProblem::Placeholder("") => f.write_str("is missing: it is blank"),
            FieldProblem::Placeholder(word) => write!(f, "is missing: it is {word:?}"),
            FieldProblem::NotAString(shape) => write!(f, "must be a string, not {shape}"),
            FieldProblem::NotAnIdentifier(shape) => {
                write!(f, "must be a string or a number, not {shape}")
            }
            FieldProblem::NotAnObject(shape) => write!(f, "must be an object, not {shape}"),
            FieldProblem::Invalid(why) => why.fmt(f),
            FieldProblem::LoneSurrogate => f.write_str("must not contain a lone surrogate"),
        }
    }
}
