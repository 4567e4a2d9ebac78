//! Enums whose values have one name each, the same in JSON, SQL and Rust.

/// A name that no value of the kind has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no {kind}; must be one of {}", .known.join(", "))]
pub struct UnknownName {
    /// The kind of name that was expected, such as `status`.
    pub kind: &'static str,
    /// The unknown name.
    pub name: String,
    /// The names of the kind.
    pub known: &'static [&'static str],
}

/// Defines an enum with a name per value: `ALL`, `as_str`, `Display`, `FromStr` and
/// serde by name, all from one list.
macro_rules! named {
    (
        $(#[$enum_meta:meta])*
        pub enum $enum:ident as $kind:literal {
            $($(#[$meta:meta])* $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$enum_meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum {
            $($(#[$meta])* $variant,)+
        }

        impl $enum {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that JSON, SQL and people use.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $enum {
            type Err = $crate::call::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::call::UnknownName {
                        kind: $kind,
                        name: name.to_owned(),
                        known: &[$($name),+],
                    }),
                }
            }
        }

        impl serde::Serialize for $enum {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $enum {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use named;
