//! Asks a URL again and again, and brings in what it answers. README.md says how it is configured and what it promises.

mod page;
mod pointer;

use nodata_component::{Error, Next, Output, Result, Source, component, config, http};
use page::{Fields, Page, next_in_link, next_url};
use pointer::Pointer;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use url::Url;

/// Seconds from one round to the next.
const EVERY_DEFAULT: u64 = 60;
const EVERY_MAX: u64 = 7 * 86_400;
/// Bytes of one answer. All of it is one event, or several that are pushed in one call, so it is less than a call may push.
const BODY_DEFAULT: u64 = 8 << 20;
const BODY_MAX: u64 = 30 << 20;
/// Seconds until all of an answer is there. A call has 60.
const TIMEOUT_DEFAULT: u64 = 20;
const TIMEOUT_MAX: u64 = 50;
/// Longest rest that an answer may ask for. It may be wrong.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

struct HttpPoll {
    url: Url,
    every: Duration,
    headers: Vec<(String, Vec<u8>)>,
    timeout: Duration,
    body_max: usize,
    /// `None`: the whole answer is one event.
    items: Option<Pointer>,
    fields: Fields,
    paging: Paging,
    /// Where it is.
    place: Place,
    /// What is being brought in.
    page: Option<(Page, Place)>,
}

/// How one answer leads to the next.
struct Paging {
    /// Where an answer says which page is next; `link` is the header.
    next: Option<Pointer>,
    is_in_link: bool,
    /// What the next request should begin behind, and the name of the parameter that says so.
    cursor: Option<Pointer>,
    item_cursor: Option<Pointer>,
    cursor_param: String,
}

/// The checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Place {
    /// When the last round began, in milliseconds since the Unix epoch.
    begun_ms: u64,
    /// What the first answer of the last round said of itself, so that it is not sent again unless it has changed.
    etag: Option<String>,
    last_modified: Option<String>,
    cursor: Option<String>,
    /// The page that comes next in this round; `None`: a round begins.
    next: Option<String>,
    /// How many items of an answer that is not brought in wholly are, and which answer that is.
    done: usize,
    digest: Option<String>,
}

#[component]
impl Source for HttpPoll {
    fn open(position: Option<&[u8]>) -> Result<Self> {
        let seconds = |key, default, most| config::within(key, default, 1..=most).map(Duration::from_secs);
        let configured = config::all().into_iter();
        let mut headers: Vec<_> = configured
            .filter_map(|(key, value)| Some((key.strip_prefix("header.")?.to_owned(), value.into_bytes())))
            .collect();
        if let Some(token) = config::secret("token") {
            headers.push(("authorization".to_owned(), [b"Bearer ", token.trim_ascii()].concat()));
        }
        let items = config::parse("items")?;
        let is_in_link = config::get("next").as_deref() == Some("link");
        let paging = Paging {
            next: if is_in_link { None } else { config::parse("next")? },
            is_in_link,
            cursor: config::parse("cursor")?,
            item_cursor: config::parse("item-cursor")?,
            cursor_param: config::get_or("cursor-param", String::new())?,
        };
        let fields =
            Fields { key: config::parse("key")?, id: config::parse("id")?, timestamp: config::parse("timestamp")? };
        let of_items = [&fields.key, &fields.id, &fields.timestamp, &paging.item_cursor, &paging.next, &paging.cursor];
        if items.is_none() && of_items.into_iter().any(Option::is_some) {
            return Err(Error::permanent("config `items` is missing, and there is a pointer into what is there"));
        }
        match (&paging.cursor, &paging.item_cursor, paging.cursor_param.is_empty()) {
            (None, None, true) | (Some(_), None, false) | (None, Some(_), false) => {}
            _ => return Err(Error::permanent("config `cursor-param` goes with one of `cursor` and `item-cursor`")),
        }
        let place = match position {
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|error| Error::from(error).context("the checkpoint"))?
            }
            None => Place::default(),
        };
        Ok(Self {
            url: config::require("url")?,
            every: seconds("every", EVERY_DEFAULT, EVERY_MAX)?,
            headers,
            timeout: seconds("timeout", TIMEOUT_DEFAULT, TIMEOUT_MAX)?,
            body_max: config::within("body-bytes", BODY_DEFAULT, 1..=BODY_MAX)? as usize,
            items,
            fields,
            paging,
            place,
            page: None,
        })
    }

    fn poll(&mut self, events_max: u32, out: &mut Output<'_>) -> Result<Next> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::permanent)?;
        let now_ms = u64::try_from(now.as_millis()).map_err(Error::permanent)?;
        if self.page.is_none() {
            let wait = self.until_due(now_ms);
            if !wait.is_zero() {
                return Ok(Next::After(wait));
            }
            if let Some(next) = self.ask(now_ms, out)? {
                return Ok(next);
            }
        }
        self.bring_in(now_ms, events_max as usize, out)
    }
}

impl HttpPoll {
    /// How long there is nothing to ask for. A clock that went back costs one round at most.
    fn until_due(&self, now_ms: u64) -> Duration {
        if self.place.next.is_some() || self.place.done > 0 {
            return Duration::ZERO;
        }
        let every_ms = self.every.as_millis() as u64;
        let due_ms = self.place.begun_ms.saturating_add(every_ms);
        Duration::from_millis(due_ms.saturating_sub(now_ms).min(every_ms))
    }

    /// Asks for a page. There is none if something else is to be done next.
    fn ask(&mut self, now_ms: u64, out: &mut Output<'_>) -> Result<Option<Next>> {
        let url = self.url_of_page()?;
        let mut request = http::Request::get(url.clone()).timeout(self.timeout).body_max(self.body_max);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let begins = self.place.next.is_none();
        if begins && self.place.done == 0 {
            let known = [("if-none-match", &self.place.etag), ("if-modified-since", &self.place.last_modified)];
            for (name, value) in known.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
                request = request.header(name, value);
            }
        }
        let answer = request.send()?;
        match answer.status() {
            304 => {
                let same = Place { begun_ms: now_ms, ..self.place.clone() };
                return self.go_to(same, now_ms, out).map(Some);
            }
            429 | 503 => {
                if let Some(wait) = answer.header("retry-after").and_then(|text| retry_after(text, now_ms)) {
                    println!("status {}: asked again after {} s", answer.status(), wait.as_secs());
                    return Ok(Some(Next::After(wait)));
                }
            }
            // What a page is called may be forgotten there, and a round that begins again finds all of it.
            status @ (400 | 404 | 410) if !begins => {
                println!("status {status} for the next page: the round begins again");
                let first = Place { cursor: self.place.cursor.take(), begun_ms: now_ms, ..Place::default() };
                return self.go_to(first, now_ms, out).map(Some);
            }
            300..400 => {
                let to = answer.header("location").unwrap_or("nowhere");
                let what = format!(
                    "status {} to {to}; redirects are not followed, so config `url` should say where",
                    answer.status()
                );
                return Err(Error::permanent(what));
            }
            _ => {}
        }
        let answer = answer.success()?;
        let (page, behind) = self.page_of(&url, &answer, begins, now_ms)?;
        match page {
            Some(page) => self.page = Some((page, behind)),
            None => {
                let mut event = out.event();
                if let Some(content_type) = answer.header("content-type") {
                    event = event.header("content-type", content_type);
                }
                event.value(answer.body())?;
                return self.go_to(behind, now_ms, out).map(Some);
            }
        }
        Ok(None)
    }

    /// Everything before this place is brought in.
    fn go_to(&mut self, place: Place, now_ms: u64, out: &mut Output<'_>) -> Result<Next> {
        self.place = place;
        self.checkpoint(out)?;
        let wait = self.until_due(now_ms);
        Ok(if wait.is_zero() { Next::More } else { Next::After(wait) })
    }

    fn url_of_page(&self) -> Result<Url> {
        if let Some(next) = &self.place.next {
            return next.parse().map_err(|error| Error::permanent(format_args!("the next page, `{next}`: {error}")));
        }
        let mut url = self.url.clone();
        if let Some(cursor) = &self.place.cursor {
            url.query_pairs_mut().append_pair(&self.paging.cursor_param, cursor);
        }
        Ok(url)
    }

    /// What is in an answer, and the place behind it.
    fn page_of(&self, url: &Url, answer: &http::Response, begins: bool, now_ms: u64) -> Result<(Option<Page>, Place)> {
        let mut behind = Place { next: None, done: 0, digest: None, ..self.place.clone() };
        if begins {
            behind.begun_ms = now_ms;
            behind.etag = answer.header("etag").map(str::to_owned);
            behind.last_modified = answer.header("last-modified").map(str::to_owned);
        }
        let next = if self.paging.is_in_link { answer.header("link").and_then(next_in_link) } else { None };
        let mut next = next.map(str::to_owned);
        let mut page = None;
        if let Some(items) = &self.items {
            let (mut found, whole) = Page::of(answer, items)?;
            if self.place.digest.as_ref() == Some(&found.digest) {
                found.done = self.place.done.min(found.items.len());
            }
            next = next.or_else(|| self.paging.next.as_ref()?.text(&whole));
            let last = found.items.last();
            let of_last = || self.paging.item_cursor.as_ref()?.text(last?);
            let cursor = self.paging.cursor.as_ref().and_then(|cursor| cursor.text(&whole)).or_else(of_last);
            if cursor.is_some() && cursor != behind.cursor {
                // Behind it there may be more, and what was said of this answer is not said of the next.
                let is_round = next.is_none() && !found.items.is_empty();
                behind = Place { cursor, etag: None, last_modified: None, ..behind };
                behind.begun_ms = if is_round { 0 } else { behind.begun_ms };
            }
            page = Some(found);
        }
        behind.next = next.map(|next| next_url(url, &next)).transpose()?.map(String::from);
        Ok((page, behind))
    }

    /// Pushes what a call may push of the page in hand.
    fn bring_in(&mut self, now_ms: u64, events_max: usize, out: &mut Output<'_>) -> Result<Next> {
        let Some((mut page, behind)) = self.page.take() else { return Ok(Next::More) };
        page.push(events_max, &self.fields, out)?;
        if page.is_done() {
            return self.go_to(behind, now_ms, out);
        }
        (self.place.done, self.place.digest) = (page.done, Some(page.digest.clone()));
        self.checkpoint(out)?;
        self.page = Some((page, behind));
        Ok(Next::More)
    }

    fn checkpoint(&self, out: &mut Output<'_>) -> Result<()> {
        out.checkpoint(serde_json::to_vec(&self.place)?)
    }
}

/// How long to wait, from the header of that name: seconds, or a date.
fn retry_after(text: &str, now_ms: u64) -> Option<Duration> {
    let wait = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = httpdate::parse_http_date(text.trim()).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            until.saturating_sub(Duration::from_millis(now_ms))
        }
    };
    Some(wait.clamp(Duration::from_secs(1), RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::http::{Request, Response};
    use nodata_component::testing::{Call, Event, SourceHarness};
    use std::cell::RefCell;
    use std::rc::Rc;

    type Harness = SourceHarness<HttpPoll>;
    type Sent = Rc<RefCell<Vec<Request>>>;

    /// A source, and the requests that it sent. Each is answered with what a function makes of what follows the host in its URL.
    fn source(configs: &[(&str, &str)], answer: impl Fn(&str) -> Response + 'static) -> (Harness, Sent) {
        let sent = Sent::default();
        let noted = sent.clone();
        let harness = Harness::new().http(move |request| {
            noted.borrow_mut().push(request.clone());
            Ok(answer(request.url().strip_prefix("https://a.example").unwrap()))
        });
        let all = [("url", "https://a.example/x")].iter().chain(configs);
        (all.fold(harness, |harness, (key, value)| harness.config(key, value)), sent)
    }

    fn json(body: &str) -> Response {
        Response::new(200).with_body(body)
    }

    /// The same source, opened again when its next round is due.
    fn later(harness: Harness) -> Harness {
        let mut place: Place = serde_json::from_slice(harness.position().unwrap()).unwrap();
        place.begun_ms = 0;
        harness.at(serde_json::to_vec(&place).unwrap())
    }

    fn paths(sent: &Sent) -> Vec<String> {
        sent.take().iter().map(|request| request.url().strip_prefix("https://a.example").unwrap().to_owned()).collect()
    }

    fn texts(call: &Call) -> Vec<String> {
        call.events().iter().map(Event::text).collect()
    }

    fn waits(call: &Call, seconds: u64) -> bool {
        matches!(call.next(), Some(Next::After(wait)) if wait.as_secs() <= seconds && wait.as_secs() + 2 > seconds)
    }

    #[test]
    fn a_whole_answer_is_an_event_and_not_sent_again_unless_it_has_changed() {
        let answer =
            |_: &str| json("[1]").with_header("etag", "\"v1\"").with_header("content-type", "application/json");
        let (harness, sent) = source(&[("every", "30"), ("header.X-One", "1")], answer);
        let mut harness = harness.secret("token", "t0k3n\n");
        let call = harness.poll(10).ok();
        assert_eq!(call.events(), [Event::new("[1]").header("content-type", "application/json")]);
        assert!(waits(&call, 30), "{:?}", call.next());
        let first = sent.take().remove(0);
        let of = |name| first.header_of(name);
        assert_eq!((of("authorization"), of("x-one"), of("if-none-match")), (Some("Bearer t0k3n"), Some("1"), None));

        // It is opened again before the next round is due, and when it is.
        let position = harness.position().unwrap().to_vec();
        let mut harness = harness.at(position);
        assert!(harness.poll(10).ok().events().is_empty() && sent.borrow().is_empty());
        let _ = later(harness).poll(10).ok();
        assert_eq!(sent.borrow()[0].header_of("if-none-match"), Some("\"v1\""));

        let modified = "Sat, 01 Jun 2013 00:00:00 GMT";
        let (harness, sent) = source(&[], move |_| Response::new(304).with_header("etag", "no matter"));
        let place = Place { last_modified: Some(modified.to_owned()), ..Place::default() };
        let mut harness = harness.at(serde_json::to_vec(&place).unwrap());
        let call = harness.poll(10).ok();
        assert!(call.events().is_empty() && waits(&call, 60));
        assert_eq!(sent.borrow()[0].header_of("if-modified-since"), Some(modified));
        assert!(String::from_utf8_lossy(harness.position().unwrap()).contains(modified));
    }

    #[test]
    fn items_are_events_as_they_were_written() {
        let config = [("items", "/data"), ("key", "/user/name"), ("id", "/id"), ("timestamp", "/at")];
        let body = r#"{"data":[{"id":1.0,"user":{"name":"a"},"at":"1970-01-01T00:00:01Z"},{"id":"x","at":"never"}]}"#;
        let (mut harness, _) = source(&config, move |_| json(body));
        let call = harness.poll(10).ok();
        let first = Event::new(r#"{"id":1.0,"user":{"name":"a"},"at":"1970-01-01T00:00:01Z"}"#);
        assert_eq!(call.events()[0], first.key("a").id("1.0").timestamp_us(1_000_000));
        assert_eq!(call.events()[1], Event::new(r#"{"id":"x","at":"never"}"#).id("x"));
        let (mut harness, _) = source(&config, |_| json("{}"));
        let error = harness.poll(10).error().unwrap().clone();
        assert_eq!(error.message(), "config `items`: there is no array in the answer at this pointer");
    }

    #[test]
    fn a_page_that_is_more_than_a_call_brings_in_goes_on_where_it_was_unless_it_has_changed() {
        let body = Rc::new(RefCell::new("[1,2,3,4,5]"));
        let now = body.clone();
        let (mut harness, sent) = source(&[("items", "")], move |_| json(&now.borrow()));
        let call = harness.poll(2).ok();
        assert_eq!((texts(&call), call.next()), (vec!["1".to_owned(), "2".to_owned()], Some(Next::More)));
        assert_eq!(texts(&harness.poll(2).ok()), ["3", "4"]);
        assert_eq!(sent.borrow().len(), 1, "the answer is still there");
        let position = harness.position().unwrap().to_vec();
        let mut harness = harness.at(&position);
        let call = harness.poll(2).ok();
        assert_eq!((texts(&call), waits(&call, 60)), (vec!["5".to_owned()], true));
        body.replace("[0,1,2]");
        assert_eq!(texts(&harness.at(position).poll(9).ok()), ["0", "1", "2"]);
    }

    #[test]
    fn pages_follow_each_other_and_a_round_that_lost_its_page_begins_again() {
        let answer = |path: &str| match path {
            "/x" => json(r#"{"d":[1],"next":"?page=2"}"#).with_header("etag", "v1"),
            "/x?page=2" => json(r#"{"d":[2],"next":"/x?page=3"}"#).with_header("etag", "another"),
            "/x?page=3" => json(r#"{"d":[3],"next":null}"#),
            _ => Response::new(404),
        };
        let (mut harness, sent) = source(&[("items", "/d"), ("next", "/next")], answer);
        assert_eq!(harness.poll(9).ok().next(), Some(Next::More));
        assert_eq!(texts(&harness.poll(9).ok()), ["2"]);
        let call = harness.poll(9).ok();
        assert!(texts(&call) == ["3"] && waits(&call, 60));
        let mut harness = later(harness);
        sent.take();
        let _ = harness.poll(9).ok();
        assert_eq!(sent.borrow()[0].header_of("if-none-match"), Some("v1"));

        let place = Place { next: Some("https://a.example/x?page=gone".to_owned()), ..Place::default() };
        let mut harness = harness.at(serde_json::to_vec(&place).unwrap());
        let call = harness.poll(9).ok();
        assert!(call.events().is_empty() && waits(&call, 60));
        assert_eq!(texts(&later(harness).poll(9).ok()), ["1"]);

        let link = |path: &str| match path {
            "/x" => json("[1]").with_header("link", "</x?page=2>; rel=next"),
            _ => json("[2]"),
        };
        let (mut harness, sent) = source(&[("items", ""), ("next", "link")], link);
        assert_eq!(
            (harness.poll(9).ok().next(), texts(&harness.poll(9).ok())),
            (Some(Next::More), vec!["2".to_owned()])
        );
        assert_eq!(paths(&sent), ["/x", "/x?page=2"]);
    }

    #[test]
    fn a_cursor_is_sent_until_it_does_not_move() {
        let answer = |path: &str| match path {
            "/x" => json(r#"[{"n":1},{"n":2}]"#).with_header("etag", "v1"),
            "/x?since=2" => json(r#"[{"n":"3 &"}]"#),
            "/x?since=3+%26" => json("[]").with_header("etag", "v2"),
            other => panic!("{other}"),
        };
        let (mut harness, sent) = source(&[("items", ""), ("item-cursor", "/n"), ("cursor-param", "since")], answer);
        assert_eq!([harness.poll(9).ok().next(), harness.poll(9).ok().next()], [Some(Next::More); 2]);
        let call = harness.poll(9).ok();
        assert!(call.events().is_empty() && waits(&call, 60));
        let mut harness = later(harness);
        let _ = harness.poll(9).ok();
        assert_eq!(sent.borrow()[1].header_of("if-none-match"), None);
        assert_eq!(sent.borrow()[3].header_of("if-none-match"), Some("v2"));
        assert_eq!(paths(&sent), ["/x", "/x?since=2", "/x?since=3+%26", "/x?since=3+%26"]);

        // One in the answer itself.
        let (mut harness, sent) =
            source(&[("items", "/d"), ("cursor", "/at"), ("cursor-param", "from")], |path| match path {
                "/x" => json(r#"{"d":[1],"at":7}"#),
                _ => json(r#"{"d":[],"at":7}"#),
            });
        assert_eq!(harness.poll(9).ok().next(), Some(Next::More));
        assert!(waits(&harness.poll(9).ok(), 60));
        assert_eq!(paths(&sent), ["/x", "/x?from=7"]);
    }

    #[test]
    fn a_server_that_asks_for_time_is_given_it_and_other_refusals_are_errors() {
        let with = |status: u16, header: Option<&'static str>| {
            let (mut harness, _) = source(&[], move |_| match header {
                Some(value) => Response::new(status).with_header("retry-after", value),
                None => Response::new(status),
            });
            let call = harness.poll(9);
            assert!(harness.position().is_none());
            call
        };
        assert!(waits(&with(429, Some("120")).ok(), 120));
        assert!(waits(&with(503, Some("999999")).ok(), 3600));
        assert!(waits(&with(503, Some("Sat, 01 Jun 2013 00:00:00 GMT")).ok(), 1));
        for (status, header) in [(429, None), (503, Some("soon")), (500, None)] {
            assert!(with(status, header).error().unwrap().is_transient(), "{status}");
        }
        let moved = with(301, None).error().unwrap().clone();
        assert_eq!(
            moved.message(),
            "status 301 to nowhere; redirects are not followed, so config `url` should say where"
        );
        assert_eq!(with(404, None).error().unwrap(), &Error::permanent("GET https://a.example/x: status 404"));
    }

    #[test]
    fn what_is_not_configured_is_said() {
        let wrong =
            |configs: &[(&str, &str)]| source(configs, |_| json("[]")).0.poll(9).error().unwrap().message().to_owned();
        assert_eq!(wrong(&[("every", "0")]), "config `every` is 0; it is 1 to 604800");
        assert_eq!(wrong(&[("key", "/a")]), "config `items` is missing, and there is a pointer into what is there");
        assert!(wrong(&[("items", "a")]).contains("a JSON pointer is empty or begins with `/`"));
        for half in [&[("items", ""), ("cursor", "/a")][..], &[("cursor-param", "a")]] {
            assert_eq!(wrong(half), "config `cursor-param` goes with one of `cursor` and `item-cursor`");
        }
        assert!(wrong(&[("url", "x")]).starts_with("config `url` is `x`, which does not parse: "));
    }
}
