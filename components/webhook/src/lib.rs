//! Delivers events to a URL by POST. README.md says how it is configured and what it promises.

mod body;
mod envelope;
mod signature;

use body::{Body, Format, Part, Shape};
use nodata_component::{Error, Event, Events, Rejects, Result, Sink, component, config, http, metrics};
use signature::Signer;
use std::time::{Duration, Instant, SystemTime};

/// Events of one request: as many as a call is given.
const EVENTS_MAX: usize = 8192;
/// Bytes of one body.
const BYTES_DEFAULT: usize = 1 << 20;
const BYTES_MAX: usize = 32 << 20;
/// Seconds until the answer is there. What Standard Webhooks recommends lies between; the most leaves a call some time.
const TIMEOUT_DEFAULT: u64 = 20;
const TIMEOUT_MAX: u64 = 50;
/// A call that took so long leaves the rest to the next one: what is delivered becomes known, and a server that stops waits for no
/// more than one request.
const CALL: Duration = Duration::from_secs(5);
/// The statuses below 500 that speak of the endpoint, of who asks or of the time, and not of what is in the request.
const ABOUT_THE_ENDPOINT: [u16; 14] = [401, 402, 403, 404, 405, 407, 408, 410, 421, 423, 425, 426, 429, 451];

struct Webhook {
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    timeout: Duration,
    shape: Shape,
    /// Further statuses that put what was sent aside.
    aside: Vec<u16>,
    signer: Option<Signer>,
}

/// Why a request has not delivered what is in it.
enum Failed {
    /// It will later, or when somebody has put something right.
    Later(Error),
    /// It never will.
    Never(Error),
}

#[component]
impl Sink for Webhook {
    fn new() -> Result<Self> {
        let is_batched = config::get("batch").is_some();
        let shape = Shape {
            format: config::get_or("format", Format::Json)?,
            part: config::get_or("send", Part::Envelope)?,
            events_max: if is_batched { Some(config::within("batch", 1, 1..=EVENTS_MAX)?) } else { None },
            bytes_max: config::within("request-bytes", BYTES_DEFAULT, 1..=BYTES_MAX)?,
        };
        if shape.format == Format::Raw && is_batched {
            return Err(Error::permanent(
                "config `format` is `raw`, which is one event in a request, and there is a `batch`",
            ));
        }
        let configured = config::all().into_iter();
        let mut headers: Vec<_> = configured
            .filter_map(|(key, value)| Some((key.strip_prefix("header.")?.to_owned(), value.into_bytes())))
            .collect();
        if let Some(token) = config::secret("token") {
            headers.push(("authorization".to_owned(), [b"Bearer ", token.trim_ascii()].concat()));
        }
        let aside: String = config::get_or("aside", String::new())?;
        let status = |text: &str| match text.trim().parse() {
            Ok(status @ 300..=599) => Ok(status),
            _ => Err(Error::permanent(format_args!("config `aside`: `{text}` is no status between 300 and 599"))),
        };
        Ok(Self {
            url: config::require("url")?,
            headers,
            timeout: Duration::from_secs(
                config::within("timeout", TIMEOUT_DEFAULT as usize, 1..=TIMEOUT_MAX as usize)? as u64,
            ),
            shape,
            aside: aside.split(',').filter(|text| !text.is_empty()).map(status).collect::<Result<_>>()?,
            signer: config::secret("signing-key").map(|keys| Signer::new(&keys)).transpose()?,
        })
    }

    fn write(&mut self, events: Events<'_>, rejects: &mut Rejects<'_>) -> Result<()> {
        let begun = Instant::now();
        let mut row = 0;
        while let Some(first) = events.get(row) {
            if row > 0 && begun.elapsed() > CALL {
                return rejects.defer(&first);
            }
            let body = self.shape.body(events, row, rejects);
            row = body.rows.end;
            let Some((from, to)) = body.sent else { continue };
            if first.row() > 0 && row == events.len() && !body.is_full {
                // With what comes next it may be a whole request.
                return rejects.defer(&first);
            }
            let (Some(from), Some(to)) = (events.get(from), events.get(to)) else { continue };
            match self.deliver(events, (&from, &to), body) {
                Ok(()) => {}
                Err(Failed::Never(why)) if self.shape.events_max.is_none() => rejects.reject(&from, why),
                // What was delivered before stays delivered, and the next call says why this was not.
                Err(_) if first.row() > 0 => return rejects.defer(&first),
                Err(Failed::Later(why) | Failed::Never(why)) => return Err(why),
            }
        }
        Ok(())
    }
}

impl Webhook {
    fn deliver(&self, events: Events<'_>, (from, to): (&Event<'_>, &Event<'_>), body: Body) -> Result<(), Failed> {
        let id = identity(events, from.offset(), to.offset());
        let timestamp_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let mut request = http::Request::post(&self.url)
            .timeout(self.timeout)
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp_s.to_string());
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", self.content_type(from));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(signer) = &self.signer {
            request = request.header("webhook-signature", signer.sign(&id, timestamp_s, &body.bytes));
        }
        let answer = request.body(body.bytes).send();
        let status = answer.as_ref().map_or_else(|_| "none".to_owned(), |answer| answer.status().to_string());
        metrics::add("requests", 1, &[("status", &status)]);
        // Whatever has become of a request without an answer, and of one that may not be sent, no event is at fault.
        let answer = answer.map_err(|why| Failed::Later(Error::transient(why)))?;
        let status = answer.status();
        let to = match answer.header("location") {
            Some(location) if (300..400).contains(&status) => format!(" to {location}; redirects are not followed"),
            _ => String::new(),
        };
        match answer.success() {
            Ok(_) => Ok(()),
            Err(why) if self.is_about_events(status) => Err(Failed::Never(Error::permanent(why))),
            Err(why) => Err(Failed::Later(Error::transient(format_args!("{why}{to}")))),
        }
    }

    fn is_about_events(&self, status: u16) -> bool {
        let is_theirs = (400..500).contains(&status) && !ABOUT_THE_ENDPOINT.contains(&status);
        is_theirs || self.aside.contains(&status)
    }

    fn content_type<'a>(&self, event: &Event<'a>) -> &'a [u8] {
        match self.shape.format {
            Format::Json => b"application/json",
            Format::Ndjson => b"application/x-ndjson",
            Format::Raw => event.header("content-type").unwrap_or(b"application/octet-stream"),
        }
    }
}

/// What a receiver tells a repeat by. The signature covers it with a full stop behind, so there is none in it.
fn identity(events: Events<'_>, first: u64, last: u64) -> String {
    let place = format!("{}/{}/{first}", events.topic().replace('.', "~"), events.partition());
    if first == last { place } else { format!("{place}-{last}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::http::{Request, Response};
    use nodata_component::testing::{Event, Harness};
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A webhook, and the requests that it sent. Each is answered with what a function makes of its number.
    fn webhook(
        configs: &[(&str, &str)],
        answer: impl Fn(usize) -> u16 + 'static,
    ) -> (Harness, Rc<RefCell<Vec<Request>>>) {
        let sent = Rc::new(RefCell::new(Vec::new()));
        let noted = sent.clone();
        let harness = Harness::of_sink::<Webhook>().topic("a.b").partition(3).next_offset(7).http(move |request| {
            noted.borrow_mut().push(request.clone());
            Ok(Response::new(answer(noted.borrow().len())))
        });
        let all = [("url", "https://hooks.example.com/x")].iter().chain(configs);
        (all.fold(harness, |harness, (key, value)| harness.config(key, value)), sent)
    }

    fn bodies(sent: &RefCell<Vec<Request>>) -> Vec<String> {
        let sent = sent.take();
        sent.iter().map(|request| String::from_utf8_lossy(request.body_bytes()).into_owned()).collect()
    }

    fn ids(sent: &RefCell<Vec<Request>>) -> Vec<String> {
        sent.take().iter().map(|request| request.header_of("webhook-id").unwrap().to_owned()).collect()
    }

    #[test]
    fn an_event_is_a_request_with_all_that_belongs_to_it() {
        let (mut harness, sent) = webhook(&[("header.X-One", "1")], |_| 204);
        let full =
            Event::new("{\"a\":\r\n [1.10]}").key("k").id("i").header("h", "v").header("b", [0xff]).timestamp_us(1);
        let _ = harness.call([full, Event::new("plain").key([0xff]), Event::new([0xff]), Event::tombstone()]).ok();
        let first = sent.borrow()[0].clone();
        assert_eq!((first.method(), first.url()), ("POST", "https://hooks.example.com/x"));
        let header = |name| first.header_of(name);
        assert_eq!((header("x-one"), header("webhook-id")), (Some("1"), Some("a~b/3/7")));
        assert_eq!((header("content-type"), header("webhook-signature")), (Some("application/json"), None));
        let bodies = bodies(&sent);
        assert_eq!(
            bodies[0],
            r#"{"topic":"a.b","partition":3,"offset":7,"timestamp":"1970-01-01T00:00:00.000001Z","id":"i","key":"k","headers":{"b":{"base64":"/w=="},"h":"v"},"value":{"a":   [1.10]}}"#
        );
        assert!(
            bodies[1].contains(r#""key":"/w==","key_encoding":"base64","headers":{},"value":"plain"}"#),
            "{}",
            bodies[1]
        );
        assert!(bodies[2].ends_with(r#""value":"/w==","encoding":"base64"}"#), "{}", bodies[2]);
        assert!(bodies[3].ends_with(r#""headers":{},"value":null}"#), "{}", bodies[3]);
    }

    #[test]
    fn a_request_is_signed_and_says_who_sends_it() {
        let key = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
        let (harness, sent) = webhook(&[], |_| 200);
        let mut harness = harness.secret("signing-key", key).secret("token", "t0k3n\n");
        let _ = harness.call(["{}"]).ok();
        let request = &sent.borrow()[0];
        assert_eq!(request.header_of("authorization"), Some("Bearer t0k3n"));
        let timestamp_s: u64 = request.header_of("webhook-timestamp").unwrap().parse().unwrap();
        let expected = Signer::new(key.as_bytes()).unwrap().sign("a~b/3/7", timestamp_s, request.body_bytes());
        assert_eq!(request.header_of("webhook-signature"), Some(expected.as_str()));
    }

    #[test]
    fn requests_are_as_large_as_configured_and_the_last_is_left_to_grow() {
        let (mut harness, sent) = webhook(&[("batch", "2"), ("send", "value")], |_| 200);
        let call = harness.call(["1", "2", "[\n3]", "no JSON", "4", "5"]).ok();
        assert_eq!((call.deferred(), call.rejected()[0].row), (Some(5), 3));
        assert_eq!(bodies(&sent), ["[1,2]", "[[ 3],4]"]);
        assert_eq!(harness.call_rest().ok().deferred(), None);
        assert_eq!(ids(&sent), ["a~b/3/12"]);

        let (harness, sent) = webhook(&[("batch", "9"), ("send", "value"), ("format", "ndjson")], |_| 200);
        let mut harness = harness.config("request-bytes", 8);
        let call = harness.call(["111", "222", "333", "12345678", "444"]).ok();
        assert_eq!((call.deferred(), call.rejected().len()), (Some(3), 0));
        let call = harness.call_rest().ok();
        assert_eq!(call.rejected()[0].reason, "it makes a body of 9 bytes; config `request-bytes` allows 8");
        assert_eq!(sent.borrow()[0].header_of("content-type"), Some("application/x-ndjson"));
        assert_eq!(bodies(&sent), ["111\n222\n", "333\n", "444\n"]);
        let _ = harness.call(["5", "6"]).ok();
        assert_eq!(ids(&sent), ["a~b/3/12-13"]);
    }

    #[test]
    fn a_raw_request_is_the_value() {
        let (mut harness, sent) = webhook(&[("format", "raw")], |_| 200);
        let call = harness.call([Event::new([0xff]).header("content-type", "image/x"), Event::tombstone()]).ok();
        assert_eq!(call.rejected()[0].reason, "the event at offset 8 has no value");
        let sent = sent.borrow();
        assert_eq!(
            (sent.len(), sent[0].body_bytes(), sent[0].header_of("content-type")),
            (1, &[0xff][..], Some("image/x"))
        );
    }

    #[test]
    fn what_is_refused_is_put_aside_and_what_may_pass_is_tried_again_where_it_failed() {
        let (mut harness, sent) = webhook(&[], |number| if number == 2 { 422 } else { 200 });
        let call = harness.call(["a", "b", "c"]).ok();
        assert_eq!((call.rejected().len(), call.rejected()[0].row), (1, 1));
        assert_eq!(call.rejected()[0].reason, "POST https://hooks.example.com/x: status 422");
        assert_eq!(sent.borrow().len(), 3);

        for status in [302, 401, 404, 410, 429, 500, 501, 503] {
            let (mut harness, sent) = webhook(&[], move |number| if number == 1 { 200 } else { status });
            assert_eq!(harness.call(["a", "b", "c"]).ok().deferred(), Some(1), "{status}");
            let error = harness.call_rest().error().unwrap().clone();
            assert!(error.is_transient() && error.message().contains(&format!("status {status}")), "{error:?}");
            assert_eq!(ids(&sent), ["a~b/3/7", "a~b/3/8", "a~b/3/8"]);
        }
        let (mut harness, _) = webhook(&[("aside", "404, 410")], |_| 410);
        assert_eq!(harness.call(["a"]).ok().rejected().len(), 1);
    }

    #[test]
    fn a_batch_that_is_refused_is_for_the_host_to_take_apart() {
        let (mut harness, _) = webhook(&[("batch", "2")], |number| if number == 1 { 200 } else { 400 });
        assert_eq!(harness.call(["a", "b", "c", "d", "e"]).ok().deferred(), Some(2));
        let error = harness.call_rest().error().unwrap().clone();
        assert_eq!(error, Error::permanent("POST https://hooks.example.com/x: status 400"));
    }

    #[test]
    fn what_is_not_configured_or_not_granted_costs_no_event() {
        let error = |mut harness: Harness| harness.call(["a"]).error().unwrap().clone();
        let wrong = |key: &str, value: &str| error(webhook(&[(key, value)], |_| 200).0);
        let refused = [
            ("batch", "0", "config `batch` is 0; it is 1 to 8192"),
            ("timeout", "90", "config `timeout` is 90; it is 1 to 50"),
            ("format", "xml", "config `format` is `xml`, which does not parse: give json, ndjson or raw"),
            ("aside", "200", "config `aside`: `200` is no status between 300 and 599"),
        ];
        for (key, value, expected) in refused {
            assert_eq!(wrong(key, value), Error::permanent(expected));
        }
        assert_eq!(error(Harness::of_sink::<Webhook>()), Error::permanent("config `url` is missing"));
        let denied = error(Harness::of_sink::<Webhook>().config("url", "https://hooks.example.com/"));
        assert!(denied.is_transient() && denied.message().contains("denied"), "{denied:?}");
    }
}
