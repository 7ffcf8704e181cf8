//! What a registry asks for before it answers.

use crate::images::credentials::Login;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::fmt;
use zeroize::Zeroizing;

/// How a registry wants to be told who we are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// With a token that is given somewhere.
    Bearer {
        realm: String,
        service: String,
    },
}

impl Challenge {
    /// Of a `www-authenticate` field.
    pub(super) fn read(field: &str) -> Option<Self> {
        let (scheme, rest) = field.trim().split_once(' ').unwrap_or((field.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, String::new());
        let mut rest = rest;
        while let Some((name, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match name.trim().trim_start_matches(',').trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = value.to_owned(),
                _ => {}
            }
            rest = next;
        }
        Some(Challenge::Bearer { realm: realm?, service })
    }
}

/// Where a token is given to read what is at this path.
pub(super) fn token_uri(realm: &str, service: &str, path: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let sign = if realm.contains('?') { '&' } else { '?' };
    let scope = encoded(&format!("repository:{path}:pull"));
    format!("{realm}{sign}service={}&scope={scope}", encoded(service))
}

/// Who we are, as a header field says it.
pub(super) struct Authorization(Zeroizing<String>);

impl Authorization {
    pub(super) fn basic(login: &Login) -> Self {
        let both = Zeroizing::new(format!("{}:{}", login.user, login.password.as_str()));
        Self(Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(both.as_bytes()))))
    }

    /// Of the answer of who gives tokens.
    pub(super) fn bearer(answer: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<Zeroizing<String>>,
            access_token: Option<Zeroizing<String>>,
        }
        let Answer { token, access_token } = serde_json::from_slice(answer).ok()?;
        let token = token.or(access_token).filter(|token| !token.is_empty())?;
        Some(Self(Zeroizing::new(format!("Bearer {}", token.as_str()))))
    }

    pub(super) fn field(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_says_how_it_wants_to_be_told() {
        let bearer = |realm: &str, service: &str| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.to_owned() })
        };
        assert_eq!(Challenge::read("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::read("basic"), Some(Challenge::Basic));
        assert_eq!(
            Challenge::read("Bearer realm=\"https://a/token\",service=\"a b\",scope=\"repository:x:pull,push\""),
            bearer("https://a/token", "a b")
        );
        assert_eq!(Challenge::read("bearer service=a, realm=\"https://a\""), bearer("https://a", "a"));
        assert_eq!(Challenge::read("Bearer service=\"a\""), None);
        assert_eq!(Challenge::read("Bearer realm=\"a"), None);
        assert_eq!(Challenge::read("Negotiate x"), None);
        assert_eq!(
            token_uri("https://a/token", "a b", "x/y"),
            "https://a/token?service=a%20b&scope=repository%3Ax%2Fy%3Apull"
        );
        assert_eq!(Authorization::bearer(b"{\"access_token\":\"t\"}").unwrap().field(), "Bearer t");
        assert!(Authorization::bearer(b"{\"token\":\"\"}").is_none());
        assert_eq!(format!("{:?}", Authorization::bearer(b"{\"token\":\"secret\"}").unwrap()), "Authorization");
    }
}
