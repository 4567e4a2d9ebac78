//! Which projects somebody may see.

use std::collections::BTreeSet;

use crate::call::ProjectId;

/// The projects whose calls may be shown. What is of another one is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Projects {
    /// Every project, also those that are yet to come.
    All,
    /// These; none where it is empty.
    Only(BTreeSet<ProjectId>),
}

impl Projects {
    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, project_id: &ProjectId) -> bool {
        match self {
            Self::All => true,
            Self::Only(projects) => projects.contains(project_id),
        }
    }

    /// Of these the one that was asked for, or all where none was.
    #[must_use]
    pub fn among(&self, asked: Option<&ProjectId>) -> Self {
        match asked {
            None => self.clone(),
            Some(project_id) => {
                let seen = Some(project_id).filter(|it| self.contains(it));
                Self::Only(seen.into_iter().cloned().collect())
            }
        }
    }

    /// As JSON and SQL have them: in order, `None` for all.
    #[must_use]
    pub fn ids(&self) -> Option<Vec<&str>> {
        match self {
            Self::All => None,
            Self::Only(projects) => Some(projects.iter().map(ProjectId::as_str).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ProjectId {
        ProjectId::new(text).unwrap()
    }

    #[test]
    fn asking_for_a_project_never_shows_another_one() {
        let some = Projects::Only([id("b"), id("a")].into());
        assert_eq!(some.ids(), Some(vec!["a", "b"]));
        assert_eq!(some.among(None), some);
        assert_eq!(some.among(Some(&id("a"))).ids(), Some(vec!["a"]));
        assert_eq!(some.among(Some(&id("c"))).ids(), Some(vec![]));
        assert_eq!(Projects::All.among(None).ids(), None);
        assert_eq!(Projects::All.among(Some(&id("c"))).ids(), Some(vec!["c"]));
    }
}
