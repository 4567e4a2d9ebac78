//! What the rules promise of a call, tested from outside: events in, call and
//! outcomes out. Nothing here looks at how the fold does it.
//!
//! | file | holds |
//! | --- | --- |
//! | [`given`] | events written in one line each; every way they may arrive |
//! | [`examples`] | the rules' worked examples, one test each |
//! | [`attempts`] | which dial an event is of |
//! | [`fields`] | what a call keeps beside its status |
//! | [`reasons`] | every sentence that an event may be given |
//! | [`model`] | the rules a second time, from their text |
//! | [`properties`] | what holds for any events at all, the model's word included |

mod attempts;
mod examples;
mod fields;
mod given;
mod model;
mod properties;
mod reasons;
