//! Which calls and clients a body names that could not be read.
//!
//! A body in the quarantine may lack what makes it a delivery and name a call all the
//! same. So the names are searched for wherever they may be: in members of JSON at any
//! depth, in texts such as `callId: call-1`, and in bytes that are not JSON.

use std::collections::BTreeSet;

use serde_json::Value;

use super::identifier::{normalize, project_id};

/// The names that a body contains.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mentions {
    /// The ids of calls.
    pub call_ids: BTreeSet<String>,
    /// The ids of clients.
    pub client_ids: BTreeSet<String>,
    /// The ids of projects.
    pub project_ids: BTreeSet<String>,
}

/// The names that a body contains.
#[must_use]
pub fn mentions(body: &[u8]) -> Mentions {
    let mut mentions = Mentions::default();
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => mentions.search(&value),
        Err(_) => mentions.search_text(&String::from_utf8_lossy(body)),
    }
    mentions
}

impl Mentions {
    /// The names of a kind, by the member that has them.
    fn of(&mut self, member: &str) -> Option<&mut BTreeSet<String>> {
        match member {
            "callId" => Some(&mut self.call_ids),
            "clientId" => Some(&mut self.client_ids),
            "projectId" => Some(&mut self.project_ids),
            _ => None,
        }
    }

    fn add(&mut self, member: &str, name: &str) {
        let Some(name) = normalize(name) else { return };
        let project = (member == "projectId").then(|| project_id(name).ok()).flatten();
        let name = project.map_or_else(|| name.to_owned(), |project| project.as_str().to_owned());
        if let Some(names) = self.of(member) {
            names.insert(name);
        }
    }

    /// Searches JSON, which `serde_json` bounds to a depth of 128.
    fn search(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                for (member, value) in members {
                    match value {
                        Value::String(name) => self.add(member, name),
                        Value::Number(name) => self.add(member, &name.to_string()),
                        _ => {}
                    }
                    self.search(value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.search(value)),
            Value::String(text) => self.search_text(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Searches a text for a name behind its member, as in `callId: call-1` and
    /// `"callId": "call-1"`.
    fn search_text(&mut self, text: &str) {
        for member in ["callId", "clientId", "projectId"] {
            for (start, _) in text.match_indices(member) {
                let rest = text[start + member.len()..].trim_start_matches(['"', '\\', ' ', '\t']);
                let Some(rest) = rest.strip_prefix([':', '=']) else { continue };
                let rest = rest.trim_start_matches(['"', '\\', ' ', '\t']);
                let end = rest.find(['"', '\\', '\n', '\r', ',', '}', '&']).unwrap_or(rest.len());
                self.add(member, &rest[..end]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_are() {
        for body in [
            r#"{"body":{"data":{"callId":" c-1 "}}}"#,
            r#"[{"callId":"c-1"}]"#,
            r#"{"a":[[{"callId":"c\u002d1"}]]}"#,
            r#"{"body":{"text":"[Recho] call\ncallId: c-1\nTime: now"}}"#,
            r#"{"nested":"{\"callId\":\"c-1\"}"}"#,
            r#"{"callId":"c-1""#,
            "callId=c-1&x=y",
            "{\"callId\": \"c-1\", \"bad\": \"\\ud800\"}",
        ] {
            let found = mentions(body.as_bytes());
            assert_eq!(Vec::from_iter(&found.call_ids), ["c-1"], "{body}");
        }
        let body = r#"{"projectId":"p","body":{"data":{"callId":7,"clientId":"x"}}}"#;
        let found = mentions(body.as_bytes());
        assert_eq!(Vec::from_iter(&found.call_ids), ["7"]);
        assert_eq!(Vec::from_iter(&found.client_ids), ["x"]);
        assert_eq!(Vec::from_iter(&found.project_ids), ["p"]);
    }

    #[test]
    fn what_names_nothing_has_no_names() {
        for body in
            ["", "{}", "c-1", r#"{"callId":null}"#, r#"{"call":"c-1"}"#, "callId c-1", "\u{0}"]
        {
            assert_eq!(mentions(body.as_bytes()), Mentions::default(), "{body:?}");
        }
    }
}
