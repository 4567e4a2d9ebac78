//! Where the programs of Postgres are.
//!
//! A configured folder is the only one looked at. Otherwise: `PATH`, then where distributions, Homebrew, Postgres.app
//! and EDB put them, then what was fetched earlier. The newest wins, unless a cluster decides. Nothing is cached:
//! an upgrade of the system's Postgres is seen at the next start.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Error, layout::Layout};

/// The oldest major version that the schema works with.
pub const OLDEST: u32 = 15;

/// Folders of programs by parent, prefix of the versioned name, and what follows it.
const PLACES: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),          // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                   // PGDG on Red Hat and SUSE
    ("/usr/lib", "postgresql", "bin"),           // SUSE
    ("/usr/libexec", "postgresql", ""),          // Alpine
    ("/usr/lib64", "postgresql-", "bin"),        // Gentoo
    ("/opt/homebrew/opt", "postgresql@", "bin"), // Homebrew, Apple silicon
    ("/usr/local/opt", "postgresql@", "bin"),    // Homebrew, Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"), // Homebrew, Linux
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"), // Postgres.app
    ("/Library/PostgreSQL", "", "bin"),          // EDB, macOS
    ("/opt/PostgreSQL", "", "bin"),              // EDB, Linux
];

/// The programs of one installed Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The real folder of `postgres` and `initdb`.
    pub dir: PathBuf,
    /// The major version.
    pub major: u32,
    /// The minor version; 0 for a beta.
    pub minor: u32,
}

impl Programs {
    /// The programs in a folder, if `postgres` and `initdb` are there and say their version.
    #[must_use]
    pub fn at(dir: &Path) -> Option<Self> {
        // A package manager's link farm holds links; what they need lies around the real file.
        let postgres = fs::canonicalize(dir.join("postgres")).ok()?;
        let dir = postgres.parent()?.to_owned();
        if !dir.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(&postgres)
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let (major, minor) = version(std::str::from_utf8(&output.stdout).ok()?)?;
        Some(Self { dir, major, minor })
    }

    /// All that are installed and new enough, newest first.
    ///
    /// # Errors
    ///
    /// [`Error::NoProgramsThere`] where a configured folder does not hold them.
    pub fn installed(configured: Option<&Path>, fetched: &Path) -> Result<Vec<Self>, Error> {
        if let Some(path) = configured {
            return match Self::at(path) {
                Some(programs) if programs.major >= OLDEST => Ok(vec![programs]),
                _ => Err(Error::NoProgramsThere { path: path.to_owned(), oldest: OLDEST }),
            };
        }
        // By real folder, as `PATH` often leads to one of the others.
        let found: BTreeMap<PathBuf, Self> = folders(fetched)
            .iter()
            .filter_map(|folder| Self::at(folder))
            .filter(|programs| programs.major >= OLDEST)
            .map(|programs| (programs.dir.clone(), programs))
            .collect();
        let mut found: Vec<Self> = found.into_values().collect();
        found.sort_by_key(|programs| std::cmp::Reverse((programs.major, programs.minor)));
        Ok(found)
    }
}

/// The places that were looked at, for an error.
fn looked() -> String {
    let usual: Vec<String> = PLACES
        .iter()
        .map(|(parent, prefix, rest)| {
            format!("{parent}/{prefix}*/{rest}").trim_end_matches('/').to_owned()
        })
        .collect();
    format!("PATH, {}", usual.join(", "))
}

fn folders(fetched: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .filter(|folder| folder.is_absolute())
        .collect();
    for (parent, prefix, rest) in PLACES {
        folders.extend(versioned(Path::new(parent), prefix, rest));
    }
    folders.extend(versioned(fetched, "", "bin"));
    folders
}

fn versioned(parent: &Path, prefix: &str, rest: &str) -> Vec<PathBuf> {
    fs::read_dir(parent).map_or_else(
        |_| Vec::new(),
        |entries| {
            entries
                .flatten()
                .filter(|entry| {
                    // A version follows; the hidden folder of a fetch that was cut off is none.
                    let name = entry.file_name();
                    let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
                    rest.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
                })
                .map(|entry| entry.path().join(rest))
                .collect()
        },
    )
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also `18beta1`.
fn version(said: &str) -> Option<(u32, u32)> {
    let number = said.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let (major, rest) =
        number.split_at(number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len()));
    let minor = rest.strip_prefix('.').and_then(|minor| minor.parse().ok()).unwrap_or(0);
    Some((major.parse().ok()?, minor))
}

/// The programs to use: of the cluster's version where there is one, else the newest; fetched where none is installed.
pub(super) async fn choose(
    root: &Path,
    configured: Option<&Path>,
    cluster: Option<&Layout>,
) -> Result<Programs, Error> {
    let fetched = root.join("fetched");
    let installed = Programs::installed(configured, &fetched)?;
    let suits = |programs: &&Programs| cluster.is_none_or(|layout| layout.major == programs.major);
    if let Some(programs) = installed.iter().find(suits) {
        return Ok(programs.clone());
    }
    // A configured folder says what to use, so nothing else is brought in behind the user's back.
    let fetching = match configured {
        Some(_) => String::new(),
        None => match super::fetch::fetch(&fetched, cluster.map(|layout| layout.major)).await {
            Ok(programs) => return Ok(programs),
            Err(reason) => format!("; {reason}"),
        },
    };
    Err(match cluster {
        Some(layout) => {
            let found: Vec<String> =
                installed.iter().map(|found| format!("{}.{}", found.major, found.minor)).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            Error::OtherMajor { path: layout.data(), cluster: layout.major, found, fetching }
        }
        None => Error::NoPrograms { oldest: OLDEST, looked: looked(), fetching },
    })
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_read_as_packagers_write_them() {
        assert_eq!(
            version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, 18))
        );
        assert_eq!(version("postgres (PostgreSQL) 18.1\n"), Some((18, 1)));
        assert_eq!(version("postgres (PostgreSQL) 19beta2\n"), Some((19, 0)));
        assert_eq!(version("postgres (PostgreSQL) 18devel"), Some((18, 0)));
        assert_eq!(version("pg_ctl: something else"), None);
    }
}
