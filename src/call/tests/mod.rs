//! What the rules require of a call, tested from outside: events in, call and
//! outcomes out. Nothing here depends on how the fold works.
//!
//! | file | holds |
//! | --- | --- |
//! | [`given`] | events written in one line each; every order of arrival |
//! | [`examples`] | the worked examples of the rules, a test each |
//! | [`cases`] | the cases from use in `tests/fixtures/cases/lifecycle.json` |
//! | [`attempts`] | which attempt an event belongs to |
//! | [`fields`] | what a call keeps beside its status |
//! | [`reasons`] | the sentences |
//! | [`specs`] | the tables of statuses, event types and codes |
//! | [`model`] | the rules a second time, from their text |
//! | [`properties`] | what holds for any events, the model included |

mod attempts;
mod cases;
mod examples;
mod fields;
mod given;
mod model;
mod properties;
mod reasons;
mod specs;
