//! The contract between host and component, by name. The text is in `wit/streaming`.

/// The package of all interfaces.
pub(crate) const PACKAGE: &str = "nodata:streaming";

/// The version that this host offers. Within `0.1` nothing is taken away and nothing changes its meaning.
pub(crate) const VERSION: (u64, u64, u64) = (0, 1, 0);

/// What a component is, by the interface it exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Batch in, events out.
    Transform,
    /// Batch in, and out of here.
    Sink,
    /// Events out, from elsewhere.
    Source,
    /// Batch in, folded into groups.
    Aggregate,
}

/// Every role that this host runs.
pub(crate) const ROLES: &[Role] = &[Role::Transform, Role::Sink, Role::Source, Role::Aggregate];

/// What a component may export beside its role: found by name, and used if it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Extra {
    /// It is told of the beginning and the end of an instance.
    Lifecycle,
    /// It is called at intervals.
    Ticker,
    /// What it keeps in memory is saved and restored.
    Snapshot,
    /// It says what it needs around it.
    Ports,
    /// An aggregate that says which group an event belongs to.
    Grouper,
}

/// Every extra that this host uses.
pub(crate) const EXTRAS: &[Extra] = &[Extra::Lifecycle, Extra::Ticker, Extra::Snapshot, Extra::Ports, Extra::Grouper];

impl Extra {
    /// The name of its interface.
    pub fn interface(self) -> &'static str {
        match self {
            Extra::Lifecycle => "lifecycle",
            Extra::Ticker => "ticker",
            Extra::Snapshot => "snapshot",
            Extra::Ports => "ports",
            Extra::Grouper => "grouper",
        }
    }

    /// The same extra by the name of its interface.
    pub fn by_interface(name: &str) -> Option<Self> {
        EXTRAS.iter().copied().find(|extra| extra.interface() == name)
    }

    /// The functions of that interface.
    pub(crate) fn functions(self) -> &'static [&'static str] {
        match self {
            Extra::Lifecycle => &["open", "close"],
            Extra::Ticker => &["on-tick"],
            Extra::Snapshot => &["save", "restore"],
            Extra::Ports => &["describe"],
            Extra::Grouper => &["keys"],
        }
    }

    /// What a component does that exports it.
    pub fn says(self) -> &'static str {
        match self {
            Extra::Lifecycle => "opens and closes",
            Extra::Ticker => "ticks",
            Extra::Snapshot => "keeps memory",
            Extra::Ports => "describes its ports",
            Extra::Grouper => "groups by itself",
        }
    }

    /// Whether a component of this role can have it.
    pub(crate) fn is_for(self, role: Role) -> bool {
        match self {
            Extra::Lifecycle | Extra::Ports => true,
            Extra::Ticker | Extra::Snapshot => role != Role::Source,
            Extra::Grouper => role == Role::Aggregate,
        }
    }
}

impl Role {
    /// The world that makes a component one.
    pub fn world(self) -> &'static str {
        match self {
            Role::Transform => "transform",
            Role::Sink => "sink",
            Role::Source => "source",
            Role::Aggregate => "aggregate",
        }
    }

    /// The interface that a component of this role exports.
    pub(crate) fn interface(self) -> &'static str {
        match self {
            Role::Transform => "transformer",
            Role::Sink => "sink-writer",
            Role::Source => "source-reader",
            Role::Aggregate => "aggregator",
        }
    }

    /// The functions of that interface.
    pub(crate) fn functions(self) -> &'static [&'static str] {
        match self {
            Role::Transform => &["process"],
            Role::Sink => &["write", "flush"],
            Role::Source => &["open", "poll", "committed"],
            Role::Aggregate => &["accumulate", "merge", "finish", "render"],
        }
    }
}

/// The version as text.
pub(crate) fn version() -> String {
    let (major, minor, patch) = VERSION;
    format!("{major}.{minor}.{patch}")
}

/// The full name of an interface.
pub(crate) fn interface(name: &str) -> String {
    format!("{PACKAGE}/{name}@{}", version())
}

/// A name such as `nodata:streaming/types@0.1.0`, in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface<'a> {
    pub(crate) package: &'a str,
    pub(crate) name: &'a str,
    pub(crate) version: Option<&'a str>,
}

impl<'a> Interface<'a> {
    /// `None` if it is a plain name and not that of an interface.
    pub(crate) fn parse(full: &'a str) -> Option<Self> {
        let (path, version) = full.split_once('@').map_or((full, None), |(path, version)| (path, Some(version)));
        let (package, name) = path.split_once('/')?;
        Some(Self { package, name, version })
    }

    /// The version as three numbers; `None` for anything else, also for a prerelease.
    pub(crate) fn numbers(&self) -> Option<(u64, u64, u64)> {
        let mut numbers = self.version?.split('.').map(|number| number.parse().ok());
        let version = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    /// Whether a component built against this version of our package runs on this host.
    pub(crate) fn is_offered(&self) -> bool {
        self.numbers()
            .is_some_and(|(major, minor, patch)| (major, minor) == (VERSION.0, VERSION.1) && patch <= VERSION.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let parsed = Interface::parse("nodata:streaming/types@0.1.3").unwrap();
        assert_eq!(parsed, Interface { package: PACKAGE, name: "types", version: Some("0.1.3") });
        assert_eq!(parsed.numbers(), Some((0, 1, 3)));
        assert!(!parsed.is_offered());
        assert!(Interface::parse(&interface("types")).unwrap().is_offered());
        for other in ["0.2.0", "1.1.0", "0.1.0-rc.1", "0.1", "0.1.0.0", ""] {
            assert!(!Interface::parse(&format!("a:b/c@{other}")).unwrap().is_offered(), "{other}");
        }
        assert_eq!(Interface::parse("run"), None);
        assert_eq!(Interface::parse("a:b/c").unwrap().version, None);
    }
}
