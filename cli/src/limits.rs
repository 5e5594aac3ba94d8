//! What the operating system lets this process do, set once at start: as many descriptors as it may ever have, and no
//! core dumps, which would hold private keys.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one and turns core dumps off. What is refused stays as it was:
/// the proxy sizes itself by the limit that holds.
pub fn set() {
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }) {
        tracing::debug!(%error, "the limit of open files stays");
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core dumps stay on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_raised_and_core_dumps_are_off() {
        set();
        let files = getrlimit(Resource::Nofile);
        assert_eq!(files.current, files.maximum);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
