//! One answer: what is in it, and where it says to go on.

use crate::pointer::Pointer;
use nodata_component::{Error, Output, Result, http, metrics};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use url::Url;

/// What is taken from each item.
pub(crate) struct Fields {
    pub(crate) key: Option<Pointer>,
    pub(crate) id: Option<Pointer>,
    pub(crate) timestamp: Option<Pointer>,
}

/// Items of an answer, of which the first so many are brought in.
pub(crate) struct Page {
    pub(crate) items: Vec<Box<RawValue>>,
    pub(crate) done: usize,
    /// Tells this answer from another one.
    pub(crate) digest: String,
}

impl Page {
    /// The items of an answer, which has them at a pointer.
    pub(crate) fn of(answer: &http::Response, items: &Pointer) -> Result<(Self, Box<RawValue>)> {
        let whole: Box<RawValue> = answer.json()?;
        let found = items.find(&whole).map(|items| serde_json::from_str(items.get()));
        let Some(Ok(items)) = found else {
            return Err(Error::permanent("config `items`: there is no array in the answer at this pointer"));
        };
        Ok((Self { items, done: 0, digest: digest(answer.body()) }, whole))
    }

    /// Pushes the next items, at most so many, and as many as a call may push.
    pub(crate) fn push(&mut self, events_max: usize, fields: &Fields, out: &mut Output<'_>) -> Result<()> {
        let begun = self.done;
        while let Some(item) = self.items.get(self.done) {
            let of = |pointer: &Option<Pointer>| pointer.as_ref().and_then(|pointer| pointer.text(item));
            let (key, id) = (of(&fields.key), of(&fields.id));
            let bytes = item.get().len() + key.as_ref().map_or(0, String::len) + id.as_ref().map_or(0, String::len);
            let pushed = self.done - begun;
            if pushed == events_max || (pushed > 0 && bytes as u64 > out.remaining_bytes()) {
                break;
            }
            let mut event = out.event();
            if let Some(key) = key {
                event = event.key(key);
            }
            if let Some(id) = id {
                event = event.id(id);
            }
            if let Some(text) = of(&fields.timestamp) {
                match time_us(&text) {
                    Some(timestamp_us) => event = event.timestamp_us(timestamp_us),
                    None => metrics::add("items_without_a_time", 1, &[]),
                }
            }
            event.value(item.get())?;
            self.done += 1;
        }
        Ok(())
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done == self.items.len()
    }
}

pub(crate) fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Microseconds since the Unix epoch: of seconds, or of a time as RFC 3339 writes it.
fn time_us(text: &str) -> Option<i64> {
    match text.parse::<f64>() {
        Ok(seconds) => Some((seconds * 1e6) as i64),
        Err(_) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond),
    }
}

/// The page that an answer says is next, in the header `link` (RFC 8288).
pub(crate) fn next_in_link(link: &str) -> Option<&str> {
    let mut rest = link;
    while let Some((_, behind)) = rest.split_once('<') {
        let (url, parameters) = behind.split_once('>')?;
        let end = parameters.find('<').unwrap_or(parameters.len());
        let is_next = parameters[..end].split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(url);
        }
        rest = &parameters[end..];
    }
    None
}

/// Where the next page is. It is where this one was: what is sent along is for nobody else.
pub(crate) fn next_url(from: &Url, next: &str) -> Result<Url> {
    let url = from.join(next).map_err(|error| Error::permanent(format_args!("the next page, `{next}`: {error}")))?;
    if url.origin() != from.origin() {
        return Err(Error::permanent(format_args!(
            "the next page is elsewhere: {}",
            url.origin().ascii_serialization()
        )));
    }
    if url == *from {
        return Err(Error::permanent("the next page is the same page"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_page_is_found_in_a_link() {
        assert_eq!(
            next_in_link(r#"<https://a/?b=1,2>; rel="prev", <https://a/?b=3>; title="x"; rel="last next""#),
            Some("https://a/?b=3")
        );
        assert_eq!(next_in_link("</x>;REL=next"), Some("/x"));
        assert_eq!(next_in_link(r#"<https://a/>; rel="nextish""#), None);
        assert_eq!(next_in_link("garbage"), None);
    }

    #[test]
    fn a_next_page_is_where_this_one_was() {
        let from = Url::parse("https://a.example:8443/x/y?page=1").unwrap();
        let next = |text: &str| next_url(&from, text).map(String::from).map_err(|error| error.message().to_owned());
        assert_eq!(next("?page=2").unwrap(), "https://a.example:8443/x/y?page=2");
        assert_eq!(next("/z").unwrap(), "https://a.example:8443/z");
        assert_eq!(next("https://a.example/").unwrap_err(), "the next page is elsewhere: https://a.example");
        assert_eq!(next("https://a.example:8443/x/y?page=1").unwrap_err(), "the next page is the same page");
    }

    #[test]
    fn a_time_is_seconds_or_rfc_3339() {
        assert_eq!(time_us("1.5"), Some(1_500_000));
        assert_eq!(time_us("2013-06-01T00:00:00.000001+02:00"), Some(1_370_037_600_000_001));
        assert_eq!(time_us("yesterday"), None);
    }
}
