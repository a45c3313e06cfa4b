//! Which names a client may read and write.

/// A list of folders and names, as `Client.readAccess` and `Client.writeAccess` have it:
/// `rooms/1` is that object and all that is in the folder of that name, `/` is everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes(Vec<String>);

impl Prefixes {
    pub(crate) fn everything() -> Self {
        Self(vec![String::new()])
    }

    /// Slashes at the ends mean nothing, but for `/` itself. An empty prefix allows
    /// nothing.
    pub(crate) fn new(prefixes: Vec<String>) -> Self {
        let given = prefixes.into_iter().filter(|prefix| !prefix.is_empty());
        Self(given.map(|p| p.trim_matches('/').to_owned()).collect())
    }

    pub(crate) fn allow(&self, name: &str) -> bool {
        self.0.iter().any(|prefix| {
            prefix.is_empty()
                || name
                    .strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_allows_a_folder_and_not_its_neighbours() {
        let of = |list: &[&str]| Prefixes::new(list.iter().map(|p| (*p).to_owned()).collect());
        assert!(Prefixes::everything().allow("chat"));
        assert!(of(&["/"]).allow("rooms/1"));
        assert!(!of(&[]).allow("chat") && !of(&[""]).allow("chat"));
        for rooms in ["rooms", "/rooms", "rooms/", "/rooms/"] {
            assert!(of(&["x", rooms]).allow("rooms/1/users"), "{rooms}");
            assert!(of(&[rooms]).allow("rooms"), "{rooms}");
            assert!(!of(&[rooms]).allow("roomservice"), "{rooms}");
        }
    }
}
