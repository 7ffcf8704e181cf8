//! What is asked of ClickHouse, and what its answers mean.

use form_urlencoded::Serializer;
use nodata_component::{Error, Result, http, metrics};
use std::time::Duration;

/// The codes of exceptions that speak of the rows: they do not parse, or do not fit the columns of the table. Whatever else goes wrong
/// is not about an event: there is no such table, the password is wrong, there are too many parts, there is no memory.
const ABOUT_ROWS: [u16; 27] = [
    6, 25, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 130, 131, 190, 248, 321, 349, 366, 376, 407, 441, 467, 469, 675,
    676, 691,
];

/// Where ClickHouse is, and who asks.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) timeout: Duration,
}

impl Server {
    /// Has a query executed, with these parameters beside the settings, and answers with what it answers. An error is permanent where
    /// it is about the rows.
    pub(crate) fn ask(&self, query: &str, parameters: &[(&str, &str)], body: Vec<u8>) -> Result<String> {
        let mut pairs = Serializer::new(String::new());
        pairs.extend_pairs(&self.settings).extend_pairs(parameters).append_pair("query", query);
        let begin = if self.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{begin}{}", self.url, pairs.finish());
        let mut request = http::Request::post(url).timeout(self.timeout);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = request.body(body).send();
        let code = answer.as_ref().ok().and_then(exception);
        let outcome = match (&answer, code) {
            (Ok(_), Some(code)) => code.to_string(),
            (Ok(answer), None) if answer.is_success() => "ok".to_owned(),
            _ => "none".to_owned(),
        };
        metrics::add("queries", 1, &[("exception", &outcome)]);
        // A query without an answer may have been executed, and one that may not be sent is nobody's fault.
        let answer = answer.map_err(Error::transient)?;
        match code {
            None if answer.is_success() => Ok(answer.text()?.to_owned()),
            Some(code) if ABOUT_ROWS.contains(&code) => Err(Error::permanent(said(&answer))),
            _ => Err(Error::transient(said(&answer))),
        }
    }
}

/// The code of an exception.
fn exception(answer: &http::Response) -> Option<u16> {
    let in_header = answer.header("x-clickhouse-exception-code").and_then(|code| code.parse().ok());
    in_header.or_else(|| {
        let text = answer.text().ok().filter(|_| !answer.is_success())?;
        text.strip_prefix("Code: ")?.split('.').next()?.parse().ok()
    })
}

/// What ClickHouse says, in one line of bounded length.
fn said(answer: &http::Response) -> String {
    let text = String::from_utf8_lossy(answer.body());
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    match line.as_str() {
        "" => format!("ClickHouse answers with status {}", answer.status()),
        line => format!("ClickHouse: {line}"),
    }
}
