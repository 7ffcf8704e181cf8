//! What an update adds, and what it takes away.

use crate::deployment::control::http_grants;
use crate::deployment::error::DeploymentError;
use crate::limits::REASON_BYTES_MAX;
use nodata_runtime::HttpGrant;
use std::collections::BTreeMap;

/// Entries that are set to something else, and those that go.
#[derive(Clone, Debug, Default)]
pub struct Altered {
    pub set: BTreeMap<String, String>,
    pub unset: Vec<String>,
}

impl Altered {
    /// Makes of these entries what they should be. Nothing goes that is not there: whoever takes something away believes to know what is.
    pub(crate) fn of(
        self,
        mut entries: BTreeMap<String, String>,
        name: &str,
        what: &'static str,
    ) -> Result<BTreeMap<String, String>, DeploymentError> {
        for key in &self.unset {
            if self.set.contains_key(key) {
                return Err(DeploymentError::Contradiction { name: name.to_owned(), what, given: short(key) });
            }
            if !entries.contains_key(key) {
                return Err(not_there(name, what, key, entries.keys()));
            }
        }
        entries.retain(|key, _| !self.unset.contains(key));
        entries.extend(self.set);
        Ok(entries)
    }
}

/// The grants without some of them and with others. A grant is the same in other words, such as without its scheme.
pub(crate) fn altered_grants(
    mut grants: Vec<String>,
    allow: &[String],
    deny: &[String],
    name: &str,
) -> Result<Vec<String>, DeploymentError> {
    const WHAT: &str = "HTTP grant";
    let allow = http_grants(allow)?;
    let denied = deny.iter().map(|text| text.parse()).collect::<Result<Vec<HttpGrant>, _>>()?;
    // What was written down was checked.
    let is = |grant: &String, denied: &HttpGrant| grant.parse().as_ref() == Ok(denied);
    for (text, denied) in deny.iter().zip(&denied) {
        if allow.iter().any(|grant| is(grant, denied)) {
            return Err(DeploymentError::Contradiction { name: name.to_owned(), what: WHAT, given: short(text) });
        }
        if !grants.iter().any(|grant| is(grant, denied)) {
            return Err(not_there(name, WHAT, text, &grants));
        }
    }
    grants.retain(|grant| !denied.iter().any(|denied| is(grant, denied)));
    for grant in allow {
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    Ok(grants)
}

fn not_there<'a>(
    name: &str,
    what: &'static str,
    given: &str,
    known: impl IntoIterator<Item = &'a String>,
) -> DeploymentError {
    let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
    let known = if known.is_empty() { "none".to_owned() } else { short(&known.join(", ")) };
    DeploymentError::NotThere { name: name.to_owned(), what, given: short(given), known }
}

/// As much of a text as an error may repeat.
fn short(text: &str) -> String {
    match text.floor_char_boundary(REASON_BYTES_MAX) {
        all if all == text.len() => text.to_owned(),
        some => format!("{}…", &text[..some]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_grant_goes_in_whichever_words_it_is_said() {
        let granted =
            http_grants(&texts(&["GET api.example.com", "https://[::1]:8443", "http://a in 10.1.2.3/8"])).unwrap();
        for (at, words) in [
            (0, vec!["GET https://api.example.com", "GET  HTTPS://API.example.com:443/", "GET api.example.com"]),
            (1, vec!["https://[::1]:8443", "[0:0::1]:8443"]),
            (2, vec!["http://a in 10.0.0.0/8", "http://A:80 in 10.9.9.9/8"]),
        ] {
            let mut left = granted.clone();
            left.remove(at);
            for words in words {
                assert_eq!(altered_grants(granted.clone(), &[], &texts(&[words]), "it").unwrap(), left, "{words}");
            }
        }
        let left = altered_grants(granted.clone(), &texts(&["b"]), &granted, "it").unwrap();
        assert_eq!(left, ["https://b"]);
    }

    #[test]
    fn only_what_is_there_goes() {
        let entries = |keys: &[&str]| texts(keys).into_iter().map(|key| (key, "x".to_owned())).collect();
        let altered = |there: &[&str], set: &[&str], unset: &[&str]| {
            let altered = Altered { set: entries(set), unset: texts(unset) };
            altered.of(entries(there), "it", "secret").map_err(|error| error.to_string())
        };
        assert_eq!(altered(&["a", "b"], &["b", "c"], &["a"]), Ok(entries(&["b", "c"])));
        let refused = |text: &str| Err(text.to_owned());
        assert_eq!(
            altered(&["a", "b"], &[], &["a", "c"]),
            refused("deployment `it` has no secret `c` that could be taken away; it has: a, b")
        );
        assert_eq!(
            altered(&[], &[], &["c"]),
            refused("deployment `it` has no secret `c` that could be taken away; it has: none")
        );
        assert_eq!(
            altered(&["a"], &["a"], &["a"]),
            refused("secret `a` is given to deployment `it` and taken away at once")
        );
        let long = altered(&[&"k".repeat(50_000)], &[], &[&"c".repeat(50_000)]).unwrap_err();
        assert!(long.len() < 3000, "{} bytes", long.len());
    }
}
