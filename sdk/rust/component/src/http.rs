//! Requests to the outside, where the deployment may send some (`--allow-http`).
//!
//! ```
//! use nodata_component::{Result, http};
//!
//! #[derive(serde::Deserialize)]
//! struct Rate {
//!     usd: f64,
//! }
//!
//! fn rate() -> Result<Rate> {
//!     http::Request::get("https://rates.example.com/latest?base=eur").send()?.success()?.json()
//! }
//! ```
//!
//! The error of a request that may succeed later is a transient one, so `?` does what is right: nobody answers, the answer does not come
//! in time or breaks off. One that was denied, or is no request, is permanent. [`Response::success`] does the same with the
//! status.
//!
//! A call of a component has an end (60 s by the clock), so everything in it has to be done by then. Redirects are not followed.

use crate::error::{Error, Result};
use std::fmt;
use std::time::Duration;

/// Bytes of an answer, unless more are asked for.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Bytes of an answer, whatever is asked for. The host breaks off a little later.
const BODY_BYTES_MOST: usize = 60 << 20;
/// From a request to the end of its answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// What is repeated of an answer in an error.
const SHOWN_BYTES_MAX: usize = 500;

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Duration,
    body_max: usize,
}

impl Request {
    /// A request with any method.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self {
            method: method.to_ascii_uppercase(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: TIMEOUT,
            body_max: BODY_BYTES_MAX,
        }
    }

    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// Adds a header. `Host`, `Content-Length` and those about the connection are the host's.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Gives it a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Gives it a body of JSON, and says so in a header.
    #[cfg(feature = "json")]
    pub fn json(self, value: &(impl serde::Serialize + ?Sized)) -> Result<Self> {
        Ok(self.header("content-type", "application/json").body(serde_json::to_vec(value)?))
    }

    /// How long all of it may take, from the connection to the end of the answer. 20 seconds otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many bytes the body of the answer may have; a longer one is an error. 8 MiB otherwise, and never more than 60.
    #[must_use]
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.body_max = bytes.min(BODY_BYTES_MOST);
        self
    }

    /// Sends it, and waits for the whole answer. Any status is an answer; see [`Response::success`].
    pub fn send(self) -> Result<Response> {
        let sent = format!("{} {}", self.method, without_query(&self.url));
        let body_max = self.body_max;
        match crate::host::http::send(self) {
            Ok(response) if response.body.len() > body_max => Err(Failure::too_large(body_max)),
            other => other,
        }
        .map(|response| Response { sent: sent.clone(), ..response })
        .map_err(|failure| failure.into_error(&sent))
    }

    pub fn method(&self) -> &str {
        &self.method
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The first header of this name, if it is text.
    pub fn header_of(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn parts(&self) -> (&[(String, Vec<u8>)], Duration, usize) {
        (&self.headers, self.timeout, self.body_max)
    }
}

/// What a person may read: the values of headers, the query and the body may hold secrets.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method, without_query(&self.url), self.body.len())
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    /// To what it is the answer.
    sent: String,
}

impl Response {
    /// An answer, for tests: what a receiver says to [`testing`](crate::testing).
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The same answer with one header more.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// The same answer with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is one of the two hundreds.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// This answer if it [is one of success](Self::is_success), and an error otherwise: a transient one where the same request may have
    /// another answer later (408, 425, 429, 500 and above except 501 and 505), with the beginning of the body.
    pub fn success(self) -> Result<Self> {
        if self.is_success() {
            return Ok(self);
        }
        let status = self.status;
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN_BYTES_MAX)]);
        let text = match shown.trim() {
            "" => format!("{}: status {status}", self.sent),
            shown => format!("{}: status {status}: {shown}", self.sent),
        };
        let may_pass = matches!(status, 408 | 425 | 429) || (status >= 500 && !matches!(status, 501 | 505));
        Err(if may_pass { Error::transient(text) } else { Error::permanent(text) })
    }

    /// The first header of this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The body as text.
    pub fn text(&self) -> Result<&str> {
        let text = std::str::from_utf8(&self.body);
        text.map_err(|error| Error::permanent(format_args!("{}: the answer is no text: {error}", self.sent)))
    }

    /// The body as a value of JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        let value = serde_json::from_slice(&self.body);
        value.map_err(|error| {
            Error::permanent(format_args!("{}: the answer is not the JSON that was expected: {error}", self.sent))
        })
    }
}

fn find<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value).ok()
}

/// A query may hold a secret, and errors are shown to many.
fn without_query(url: &str) -> &str {
    url.split_once(['?', '#']).map_or(url, |(url, _)| url)
}

/// Where a request goes, in the parts that the host wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub(crate) is_tls: bool,
    pub(crate) authority: &'a str,
    pub(crate) path: String,
}

impl<'a> Url<'a> {
    pub(crate) fn of(url: &'a str) -> Result<Self, Failure> {
        let (is_tls, rest) = match url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(Failure::permanent("it is no URL that begins with http:// or https://")),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = path.split_once('#').map_or(path, |(path, _)| path);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if authority.is_empty() {
            Err(Failure::permanent("the URL has no host"))
        } else {
            Ok(Self { is_tls, authority, path })
        }
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    may_pass: bool,
    text: String,
}

impl Failure {
    pub(crate) fn transient(text: impl Into<String>) -> Self {
        Self { may_pass: true, text: text.into() }
    }

    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self { may_pass: false, text: text.into() }
    }

    pub(crate) fn too_large(body_max: usize) -> Self {
        Self::permanent(format!("the answer is larger than {body_max} bytes"))
    }

    fn into_error(self, sent: &str) -> Error {
        let text = format!("{sent}: {}", self.text);
        if self.may_pass { Error::transient(text) } else { Error::permanent(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    #[test]
    fn a_url_is_taken_apart() {
        let url = |is_tls, authority, path: &str| Ok(Url { is_tls, authority, path: path.to_owned() });
        assert_eq!(Url::of("https://a.b"), url(true, "a.b", "/"));
        assert_eq!(Url::of("http://a:80/x/y?z=1#frag"), url(false, "a:80", "/x/y?z=1"));
        assert_eq!(Url::of("http://[::1]:80?z"), url(false, "[::1]:80", "/?z"));
        assert_eq!(Url::of("https://"), Err(Failure::permanent("the URL has no host")));
        assert!(Url::of("ftp://a").is_err() && Url::of("a.b/c").is_err());
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        let of = |status| Response::new(status).with_body("why").success();
        assert!(of(200).is_ok() && of(204).is_ok());
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(of(status).unwrap_err().is_transient(), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 409, 413, 422, 501] {
            assert!(!of(status).unwrap_err().is_transient(), "{status}");
        }
    }

    #[test]
    fn a_test_answers_requests_and_sees_them() {
        let send = |_: crate::Events<'_>, out: &mut crate::Output<'_>| {
            let request = Request::post("https://a/b?token=secret").header("X-One", "1").body("hello");
            assert_eq!(format!("{request:?}"), "POST https://a/b (5 bytes)");
            out.push(request.send()?.success()?.text()?)
        };
        let mut harness = Harness::new(send).http(|request| {
            assert_eq!((request.method(), request.url()), ("POST", "https://a/b?token=secret"));
            assert_eq!((request.header_of("x-one"), request.body_bytes()), (Some("1"), &b"hello"[..]));
            Ok(Response::new(200).with_body("answer"))
        });
        assert_eq!(harness.call(["x"]).ok().events()[0].text(), "answer");

        let mut harness = Harness::new(send).http(|_| Ok(Response::new(503)));
        assert_eq!(harness.call(["x"]).error(), Some(&Error::transient("POST https://a/b: status 503")));
        let mut harness = Harness::new(send).http(|_| Err(Error::transient("connection refused")));
        assert_eq!(harness.call(["x"]).error(), Some(&Error::transient("POST https://a/b: connection refused")));
        let denied =
            Error::permanent("POST https://a/b: denied: this test allows no requests; see `http` of its harness");
        assert_eq!(Harness::new(send).call(["x"]).error(), Some(&denied));
        let mut harness = Harness::new(|_, _| Request::get("https://a").body_max(3).send().map(drop))
            .http(|_| Ok(Response::new(200).with_body("four")));
        let large = Error::permanent("GET https://a: the answer is larger than 3 bytes");
        assert_eq!(harness.call(["x"]).error(), Some(&large));
    }
}
