//! Which fields of a request policies look at or change: where ours are among them, they have to be there.

use super::Ours;
use http::header::HeaderName;

/// Fields that somebody looks at or changes. Cookies aren't counted among them: that field is never ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Any, as far as can be told beforehand; or ours.
    Any,
    /// These. A port may have chosen one of them for ids of requests.
    Named(Vec<HeaderName>),
}

impl Touched {
    /// Whether ours are among them.
    pub(crate) fn includes(&self, ours: &Ours) -> bool {
        match self {
            Self::Any => true,
            Self::Named(names) => names.contains(&ours.id_name),
        }
    }
}

impl Default for Touched {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl From<HeaderName> for Touched {
    fn from(name: HeaderName) -> Self {
        if Ours::always_says(&name) { Self::Any } else { Self::Named(vec![name]) }
    }
}

/// What all of them touch.
impl FromIterator<Self> for Touched {
    fn from_iter<T: IntoIterator<Item = Self>>(all: T) -> Self {
        all.into_iter().fold(Self::default(), |all, one| match (all, one) {
            (Self::Named(mut names), Self::Named(more)) => {
                for name in more {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                Self::Named(names)
            }
            (Self::Any, _) | (_, Self::Any) => Self::Any,
        })
    }
}
