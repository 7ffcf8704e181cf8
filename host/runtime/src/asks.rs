//! What a component asks for, by what it imports.

use crate::contract::PACKAGE;

/// Something of the host, or of the world, that a component wants to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Ask {
    Http,
    Config,
    State,
    Metrics,
    Printing,
    Clock,
    Chance,
    Input,
    Environment,
    Files,
    Sockets,
}

/// Who decides whether a component gets what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Every component has it.
    Always,
    /// A deployment has what it was given, and without that nothing.
    Deployment,
    /// Nobody has it. Toolchains import it whether a component uses it or not, and it finds an empty world.
    Never,
}

impl Ask {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Ask::Http => "http",
            Ask::Config => "config",
            Ask::State => "state",
            Ask::Metrics => "metrics",
            Ask::Printing => "printing",
            Ask::Clock => "clock",
            Ask::Chance => "random",
            Ask::Input => "stdin",
            Ask::Environment => "environment",
            Ask::Files => "files",
            Ask::Sockets => "sockets",
        }
    }

    /// What it is, for somebody who decides about it.
    pub fn says(self) -> &'static str {
        match self {
            Ask::Http => "send HTTP requests",
            Ask::Config => "read its configuration and its secrets",
            Ask::State => "keep state in tables",
            Ask::Metrics => "count and measure",
            Ask::Printing => "print to its log",
            Ask::Clock => "know the time, and sleep",
            Ask::Chance => "draw random numbers",
            Ask::Input => "read standard input",
            Ask::Environment => "read environment variables",
            Ask::Files => "read and write files",
            Ask::Sockets => "open sockets, and look up names",
        }
    }

    /// Who decides about it.
    pub fn grant(self) -> Grant {
        match self {
            Ask::Http | Ask::Config => Grant::Deployment,
            Ask::State | Ask::Metrics | Ask::Printing | Ask::Clock | Ask::Chance => Grant::Always,
            Ask::Input | Ask::Environment | Ask::Files | Ask::Sockets => Grant::Never,
        }
    }

    /// What the import of an interface asks for; `None` if that gives nothing to anybody: a batch, an exit, a stream of something
    /// else that is asked for.
    fn of(import: &str) -> Option<Self> {
        let name = import.split_once('@').map_or(import, |(name, _)| name);
        let (package, interface) = name.split_once('/')?;
        match (package, interface) {
            (PACKAGE, "config") => Some(Ask::Config),
            (PACKAGE, "state") => Some(Ask::State),
            (PACKAGE, "metrics") => Some(Ask::Metrics),
            ("wasi:http", "outgoing-handler") => Some(Ask::Http),
            ("wasi:cli", "environment") => Some(Ask::Environment),
            ("wasi:cli", "stdin") => Some(Ask::Input),
            ("wasi:cli", "stdout" | "stderr") => Some(Ask::Printing),
            ("wasi:clocks", _) => Some(Ask::Clock),
            ("wasi:random", _) => Some(Ask::Chance),
            ("wasi:filesystem", _) => Some(Ask::Files),
            ("wasi:sockets", _) => Some(Ask::Sockets),
            _ => None,
        }
    }
}

/// What a component with these imports asks for, each once: first what a deployment decides about, last what nobody has.
pub fn asks(imports: &[String]) -> Vec<Ask> {
    let mut asks: Vec<Ask> = imports.iter().filter_map(|import| Ask::of(import)).collect();
    asks.sort_unstable();
    asks.dedup();
    asks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_told_in_words() {
        let imports = [
            "wasi:filesystem/types@0.2.6",
            "wasi:filesystem/preopens@0.2.6",
            "wasi:cli/exit@0.2.6",
            "wasi:cli/stdout@0.2.6",
            "wasi:cli/stderr@0.2.6",
            "wasi:cli/environment@0.2.6",
            "wasi:io/streams@0.2.6",
            "wasi:http/types@0.2.4",
            "nodata:streaming/types@0.1.0",
            "nodata:streaming/config@0.1.0",
            "wasi:clocks/monotonic-clock@0.2.0",
            "wasi:http/outgoing-handler@0.2.4",
            "somebody:else/state@1.0.0",
        ];
        let asked = asks(&imports.map(str::to_owned));
        assert_eq!(asked, [Ask::Http, Ask::Config, Ask::Printing, Ask::Clock, Ask::Environment, Ask::Files]);
        assert_eq!(asks(&[]), []);
    }

    #[test]
    fn what_a_deployment_decides_comes_first_and_what_nobody_has_last() {
        let all = [
            Ask::Http,
            Ask::Config,
            Ask::State,
            Ask::Metrics,
            Ask::Printing,
            Ask::Clock,
            Ask::Chance,
            Ask::Input,
            Ask::Environment,
            Ask::Files,
            Ask::Sockets,
        ];
        let rank = |ask: &Ask| match ask.grant() {
            Grant::Deployment => 0,
            Grant::Always => 1,
            Grant::Never => 2,
        };
        assert!(all.is_sorted() && all.is_sorted_by_key(rank));
    }
}
