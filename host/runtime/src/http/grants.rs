//! Who may be asked: what an operator writes down for a deployment.

use crate::http::addresses::{is_public, meant};
use http::uri::{Authority, Scheme};
use http::{Method, Uri};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use thiserror::Error;

/// Requests that a deployment may send: `[METHODS] ORIGIN [in NETWORKS]`, with commas between several.
///
/// ```text
/// api.example.com                                    https on port 443, any method
/// GET,HEAD https://*.example.com:8443                every name below example.com
/// POST http://clickhouse.internal:8123 in 10.0.0.0/8 also where that name is an address of this network
/// http://127.0.0.1:9000                              this address
/// https://*                                          the whole internet
/// ```
///
/// Without networks, addresses that are not of the internet are refused, except one that is written down itself and those of
/// `localhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// Empty: any.
    methods: Vec<Method>,
    scheme: Scheme,
    host: Host,
    port: u16,
    networks: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// In lower case, without a dot at its end.
    Name(String),
    /// Every name that ends with this, which begins with a dot.
    Below(String),
    Address(IpAddr),
    Any,
}

/// Why a text is no grant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{text}` is no HTTP grant: {why}; write `[METHODS] ORIGIN [in NETWORKS]`, such as `POST https://api.example.com`"
)]
pub struct HttpGrantError {
    text: String,
    why: String,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// A name in lower case, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Target {
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme()?.clone();
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = host_of(authority);
        let port = authority.port_u16().or_else(|| default_port(&scheme))?;
        (!host.is_empty()).then_some(Self { scheme, host, port })
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_origin(f, &self.scheme, &self.host, self.port)
    }
}

fn write_origin(f: &mut fmt::Formatter<'_>, scheme: &Scheme, host: &str, port: u16) -> fmt::Result {
    match host.contains(':') {
        true => write!(f, "{scheme}://[{host}]")?,
        false => write!(f, "{scheme}://{host}")?,
    }
    if default_port(scheme) == Some(port) { Ok(()) } else { write!(f, ":{port}") }
}

fn default_port(scheme: &Scheme) -> Option<u16> {
    match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn host_of(authority: &Authority) -> String {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

impl HttpGrant {
    /// The part of it that is about requests that change nothing, if there is one.
    pub fn reading(&self) -> Option<Self> {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
        let methods: Vec<Method> = match self.methods.is_empty() {
            true => reads.to_vec(),
            false => self.methods.iter().filter(|method| reads.contains(method)).cloned().collect(),
        };
        (!methods.is_empty()).then(|| Self { methods, ..self.clone() })
    }

    /// Whether it allows this request; whether its address may be asked is said by [`Self::admits`].
    pub(crate) fn covers(&self, method: &Method, target: &Target) -> bool {
        (self.methods.is_empty() || self.methods.contains(method)) && self.is_of(target)
    }

    /// Whether it is about this origin.
    pub(crate) fn is_of(&self, target: &Target) -> bool {
        self.scheme == target.scheme
            && self.port == target.port
            && match &self.host {
                Host::Any => true,
                Host::Name(name) => *name == target.host,
                Host::Below(end) => target.host.ends_with(end.as_str()),
                Host::Address(address) => target.address() == Some(*address),
            }
    }

    /// Whether a request to an origin that it is about may go to this address.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        is_public(address)
            || self.networks.iter().any(|network| network.contains(&meant))
            || match &self.host {
                Host::Address(granted) => self::meant(*granted) == meant,
                // RFC 6761: these names are this machine and nothing else.
                Host::Name(name) => name == "localhost" && meant.is_loopback(),
                Host::Below(_) | Host::Any => false,
            }
    }
}

impl FromStr for HttpGrant {
    type Err = HttpGrantError;

    fn from_str(text: &str) -> Result<Self, HttpGrantError> {
        parse(text).map_err(|why| HttpGrantError { text: text.chars().take(200).collect(), why })
    }
}

fn parse(text: &str) -> Result<HttpGrant, String> {
    let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
    let networks = match words.iter().position(|word| *word == "in") {
        Some(at) => {
            let networks: String = words.drain(at..).skip(1).collect::<Vec<_>>().concat();
            networks.split(',').map(network).collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    let (methods, origin) = match words.as_slice() {
        [origin] => (Vec::new(), *origin),
        [methods, origin] => (methods.split(',').map(method).collect::<Result<_, _>>()?, *origin),
        [] => return Err("it names nobody".to_owned()),
        _ => return Err("it has too many words".to_owned()),
    };
    let (scheme, authority) = match origin.split_once("://") {
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("http") => (Scheme::HTTP, authority),
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("https") => (Scheme::HTTPS, authority),
        Some((other, _)) => return Err(format!("`{other}` is neither http nor https")),
        None => (Scheme::HTTPS, origin),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("an origin has a host and perhaps a port, and nothing else".to_owned());
    }
    let below = authority.strip_prefix("*.");
    let (host, port) = match authority.strip_prefix('*').filter(|_| below.is_none()) {
        Some("") => (Host::Any, None),
        Some(port) => {
            let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
            (Host::Any, Some(port.ok_or_else(|| format!("`{authority}` is no host"))?))
        }
        None => {
            let named: Authority =
                below.unwrap_or(authority).parse().map_err(|_| format!("`{authority}` is no host"))?;
            let has_port = named.as_str().len() > named.host().len();
            if named.host().is_empty() || named.host().contains('*') || (has_port && named.port_u16().is_none()) {
                return Err(format!("`{authority}` is no host"));
            }
            let host = host_of(&named);
            let host = match (host.parse(), below) {
                (Ok(address), None) => Host::Address(address),
                (Ok(_), Some(_)) => return Err("nothing is below an address".to_owned()),
                (Err(_), Some(_)) => Host::Below(format!(".{host}")),
                (Err(_), None) => Host::Name(host),
            };
            (host, named.port_u16())
        }
    };
    let port = port.or_else(|| default_port(&scheme)).unwrap_or(443);
    Ok(HttpGrant { methods, scheme, host, port, networks })
}

fn method(text: &str) -> Result<Method, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_uppercase()) || text == "CONNECT" {
        return Err(format!("`{text}` is no method"));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is no method"))
}

fn network(text: &str) -> Result<IpNet, String> {
    match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(network), _) => Ok(network.trunc()),
        (_, Ok(address)) => Ok(address.into()),
        _ => Err(format!("`{text}` is no network such as 10.0.0.0/8")),
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            write!(f, "{} ", self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","))?;
        }
        match &self.host {
            Host::Name(name) => write_origin(f, &self.scheme, name, self.port)?,
            Host::Below(end) => write_origin(f, &self.scheme, &format!("*{end}"), self.port)?,
            Host::Address(address) => write_origin(f, &self.scheme, &address.to_string(), self.port)?,
            Host::Any => write_origin(f, &self.scheme, "*", self.port)?,
        }
        if !self.networks.is_empty() {
            write!(f, " in {}", self.networks.iter().map(IpNet::to_string).collect::<Vec<_>>().join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> HttpGrant {
        text.parse().unwrap()
    }

    fn covers(text: &str, method: &str, uri: &str) -> bool {
        let target = Target::of(&uri.parse().unwrap());
        target.is_some_and(|target| grant(text).covers(&method.parse().unwrap(), &target))
    }

    #[test]
    fn a_grant_is_written_in_one_way() {
        for (text, written) in [
            ("api.example.com", "https://api.example.com"),
            ("  API.Example.com. ", "https://api.example.com"),
            ("https://api.example.com:443/", "https://api.example.com"),
            ("http://api.example.com:80", "http://api.example.com"),
            ("GET,POST http://a:8123", "GET,POST http://a:8123"),
            ("http://a:8123 in 10.1.2.3/8, fd00::/8", "http://a:8123 in 10.0.0.0/8,fd00::/8"),
            ("https://*.example.com", "https://*.example.com"),
            ("*", "https://*"),
            ("http://*:8080", "http://*:8080"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("http://a in 10.0.0.7", "http://a in 10.0.0.7/32"),
        ] {
            assert_eq!(grant(text).to_string(), written, "{text}");
            assert_eq!(grant(written), grant(text));
        }
    }

    #[test]
    fn what_is_no_grant_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "it names nobody"),
            ("in 10.0.0.0/8", "it names nobody"),
            ("ftp://a", "`ftp` is neither http nor https"),
            ("https://a/path", "an origin has a host and perhaps a port, and nothing else"),
            ("https://me:secret@a", "an origin has a host and perhaps a port, and nothing else"),
            ("get https://a", "`get` is no method"),
            ("CONNECT https://a", "`CONNECT` is no method"),
            ("GET POST https://a", "it has too many words"),
            ("https://a*b", "`a*b` is no host"),
            ("https://a.*", "`a.*` is no host"),
            ("https://a:port", "`a:port` is no host"),
            ("https://*:99999", "`*:99999` is no host"),
            ("https://*.10.0.0.1", "nothing is below an address"),
            ("https://a in ten", "`ten` is no network such as 10.0.0.0/8"),
            ("https://a in", "`` is no network such as 10.0.0.0/8"),
        ] {
            assert_eq!(text.parse::<HttpGrant>().unwrap_err().why, why, "{text}");
        }
    }

    #[test]
    fn a_grant_covers_what_it_names_and_nothing_else() {
        assert!(covers("a.example.com", "GET", "https://a.example.com/x?y"));
        assert!(covers("a.example.com", "DELETE", "https://A.EXAMPLE.com.:443/"));
        assert!(!covers("a.example.com", "GET", "http://a.example.com/"), "another scheme");
        assert!(!covers("a.example.com", "GET", "https://a.example.com:8443/"), "another port");
        assert!(!covers("a.example.com", "GET", "https://b.a.example.com/"), "another name");
        assert!(!covers("a.example.com", "GET", "https://a.example.com@evil.example/"), "it only looks like it");
        assert!(!covers("a.example.com", "GET", "https://a.example.com.evil.example/"));
        assert!(covers("*.example.com", "GET", "https://a.b.example.com/"));
        assert!(!covers("*.example.com", "GET", "https://example.com/"), "it is not below itself");
        assert!(!covers("*.example.com", "GET", "https://evilexample.com/"));
        assert!(covers("POST,PUT http://a", "PUT", "http://a/"));
        assert!(!covers("POST,PUT http://a", "GET", "http://a/"));
        assert!(covers("*", "GET", "https://anything.example/"));
        assert!(!covers("*", "GET", "http://anything.example/"));
        assert!(covers("http://[::1]:80", "GET", "http://[0:0:0:0:0:0:0:1]/"));
        assert!(!covers("http://127.0.0.1", "GET", "http://localhost/"));
    }

    #[test]
    fn an_address_that_is_not_of_the_internet_has_to_be_listed() {
        let admits = |text: &str, address: &str| grant(text).admits(address.parse().unwrap());
        assert!(admits("a", "1.1.1.1") && !admits("a", "10.0.0.1") && !admits("*", "169.254.169.254"));
        assert!(admits("a in 10.0.0.0/8", "10.0.0.1") && admits("a in 10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(!admits("a in 10.0.0.0/8", "192.168.0.1") && admits("a in 10.0.0.0/8", "1.1.1.1"));
        assert!(admits("http://10.0.0.1", "10.0.0.1") && !admits("http://10.0.0.1", "10.0.0.2"));
        assert!(admits("localhost", "127.0.0.1") && admits("localhost", "::1") && !admits("localhost", "10.0.0.1"));
        assert!(!admits("*.localhost", "127.0.0.1"));
    }
}
