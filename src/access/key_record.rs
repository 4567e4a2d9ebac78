//! What a key is good for.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Projects, key::PREFIX};
use crate::call::{InvalidIdentifier, id, named};

/// How exactly the last use of a key is known. So often, at most, it is written.
pub const USE_PRECISION: TimeDelta = TimeDelta::minutes(1);

named! {
    /// What a key lets its bearer do. Each includes those before it.
    pub enum Scope as "scope" {
        /// Ask about calls.
        Read = "read",
        /// Administer as well.
        Admin = "admin",
    }
}

named! {
    /// Whether a key is good.
    pub enum KeyState as "state" {
        /// It is.
        Active = "active",
        /// Its time is over.
        Expired = "expired",
        /// It was taken back.
        Revoked = "revoked",
    }
}

/// What a key stands for: all that is known of it, but for the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Names the key; tells nothing of it.
    pub id: Uuid,
    /// What people call it; several may have one name.
    pub name: KeyName,
    /// What its bearer may do.
    pub scope: Scope,
    /// What its bearer may see.
    pub projects: Projects,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ceases to be good.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was taken back.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to within [`USE_PRECISION`].
    pub last_used_at: Option<DateTime<Utc>>,
}

impl KeyRecord {
    /// Whether the key is good at that time. A revoked one is not, be the clock
    /// of who revoked it ahead of ours.
    #[must_use]
    pub fn state(&self, now: DateTime<Utc>) -> KeyState {
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    /// Whether a use at that time is worth writing down.
    #[must_use]
    pub fn is_use_news(&self, now: DateTime<Utc>) -> bool {
        self.last_used_at.is_none_or(|at| at <= now - USE_PRECISION)
    }
}

/// What people call a key: text as in identifiers, that can be taken neither for
/// the id of a key nor for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

/// Why a text cannot be the name of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyName {
    /// It is empty, too long, or has control characters.
    #[error(transparent)]
    Text(#[from] InvalidIdentifier),
    /// It reads as a UUID.
    #[error("must not be a UUID, as the ids of keys are")]
    Id,
    /// It begins as keys do.
    #[error("must not begin with {PREFIX}, as keys do")]
    Key,
}

impl KeyName {
    /// Takes a text for a name.
    ///
    /// # Errors
    ///
    /// Where it could be taken for something else.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKeyName> {
        let text = text.into();
        id::check(&text)?;
        if Uuid::parse_str(&text).is_ok() {
            Err(InvalidKeyName::Id)
        } else if text.starts_with(PREFIX) {
            Err(InvalidKeyName::Key)
        } else {
            Ok(Self(text))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for KeyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: DateTime<Utc> = DateTime::from_timestamp(1_779_624_000, 0).unwrap();

    fn record() -> KeyRecord {
        KeyRecord {
            id: Uuid::nil(),
            name: KeyName::new("grafana").unwrap(),
            scope: Scope::Read,
            projects: Projects::All,
            created_at: NOON,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        }
    }

    #[test]
    fn a_key_is_good_until_it_expires_or_is_revoked() {
        let second = TimeDelta::seconds(1);
        assert_eq!(record().state(NOON), KeyState::Active);
        let expiring = KeyRecord { expires_at: Some(NOON), ..record() };
        assert_eq!(expiring.state(NOON - second), KeyState::Active);
        assert_eq!(expiring.state(NOON), KeyState::Expired);
        let revoked = KeyRecord { revoked_at: Some(NOON + second), ..expiring };
        assert_eq!(revoked.state(NOON), KeyState::Revoked);
    }

    #[test]
    fn a_use_is_news_once_a_minute() {
        assert!(record().is_use_news(NOON));
        let used = KeyRecord { last_used_at: Some(NOON), ..record() };
        assert!(!used.is_use_news(NOON - TimeDelta::hours(1)));
        assert!(!used.is_use_news(NOON + TimeDelta::seconds(59)));
        assert!(used.is_use_news(NOON + TimeDelta::seconds(60)));
    }

    #[test]
    fn admin_includes_read() {
        assert!(Scope::Admin > Scope::Read);
    }

    #[test]
    fn a_name_can_be_taken_for_nothing_else() {
        assert!(KeyName::new("Grafana, production").is_ok());
        assert_eq!(KeyName::new(""), Err(InvalidKeyName::Text(InvalidIdentifier::Empty)));
        assert_eq!(
            KeyName::new("a\u{1b}[2J"),
            Err(InvalidKeyName::Text(InvalidIdentifier::ControlCharacter)),
        );
        let id = "0199c8f0-6f8e-4c41-9e1e-0a4d7c3b2a10";
        for id in [id, &id.to_uppercase(), &id.replace('-', "")] {
            assert_eq!(KeyName::new(id), Err(InvalidKeyName::Id));
        }
        assert_eq!(KeyName::new("cs_mine"), Err(InvalidKeyName::Key));
    }
}
