//! What a component could ask for, in words for people: from the names of what it imports.

use crate::contract::{Interface, PACKAGE};

/// What an import means, by its package and the beginning of its name. The weightiest first.
///
/// What is not here says nothing by itself: `wasi:io` and the types of the contract are what the others are made of.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("wasi:http", "", "sends HTTP requests, where its deployment may"),
    ("wasi:sockets", "", "looks for the network, and is refused"),
    ("wasi:filesystem", "", "looks for files, and finds none"),
    ("wasi:cli", "environment", "looks for its environment, which is empty"),
    (PACKAGE, "config", "reads its configuration, and the secrets of its deployment"),
    (PACKAGE, "state", "keeps state"),
    (PACKAGE, "metrics", "counts and measures"),
    ("wasi:clocks", "", "reads the clock"),
    ("wasi:random", "", "asks for random numbers"),
    ("wasi:cli", "std", "prints lines"),
];

/// The packages whose other interfaces are without a meaning of their own.
const QUIET: &[&str] = &[PACKAGE, "wasi:io", "wasi:cli"];

/// What a component with these imports could do beside reading and emitting events. Many languages import everything that a program
/// of theirs could need, so this is what it could ask for, and not what it does.
pub fn could_ask_for(imports: &[String]) -> Vec<&'static str> {
    let imports: Vec<Option<Interface<'_>>> = imports.iter().map(|import| Interface::parse(import)).collect();
    let has = |package: &str, begins: &str| {
        let is_it = |found: &Interface<'_>| found.package == package && found.name.starts_with(begins);
        imports.iter().flatten().any(is_it)
    };
    let known = |package: &str| QUIET.contains(&package) || MEANINGS.iter().any(|(known, ..)| *known == package);
    let mut words: Vec<&str> =
        MEANINGS.iter().filter(|(package, begins, _)| has(package, begins)).map(|(.., says)| *says).collect();
    if imports.iter().any(|import| import.as_ref().is_none_or(|import| !known(import.package))) {
        words.push("asks for what is not known here");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_mean_something() {
        let check = |imports: &[&str], expected: &[&str]| {
            let imports: Vec<String> = imports.iter().map(|import| (*import).to_owned()).collect();
            assert_eq!(could_ask_for(&imports), expected);
        };
        check(&["nodata:streaming/types@0.1.0", "wasi:io/poll@0.2.9", "wasi:cli/exit@0.2.6"], &[]);
        check(
            &[
                "nodata:streaming/state@0.1.0",
                "wasi:http/types@0.2.12",
                "wasi:cli/stderr@0.2.6",
                "wasi:clocks/wall-clock@0.2.0",
            ],
            &["sends HTTP requests, where its deployment may", "keeps state", "reads the clock", "prints lines"],
        );
        check(&["acme:weather/forecast"], &["asks for what is not known here"]);
    }
}
