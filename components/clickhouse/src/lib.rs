//! Inserts events into a table of ClickHouse, over HTTP. README.md says how it is configured and what it promises.

mod row;
mod server;

use nodata_component::{Error, Events, Rejects, Result, Sink, component, config};
use row::Column;
use server::Server;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Rows of one insert: as many as a call is given.
const ROWS_MAX: usize = 8192;
/// Bytes of one insert. A call is given one MiB, or one event that is larger.
const BYTES_MAX: usize = 32 << 20;
const BYTES_DEFAULT: usize = 4 << 20;
/// Seconds until the answer is there; the most leaves a call some time.
const TIMEOUT_DEFAULT: usize = 30;
const TIMEOUT_MAX: usize = 50;
/// A call that took so long leaves the rest to the next one: what is inserted becomes known, and a server that stops waits for no more
/// than one insert.
const CALL: Duration = Duration::from_secs(5);

struct ClickHouse {
    server: Server,
    /// Quoted, with its database.
    table: String,
    columns: Vec<Column>,
    rows_max: usize,
    bytes_max: usize,
    /// Whether the table is asked for what it has where that is not known.
    asks: bool,
    /// Whether everything before the next event, and nothing from it on, is in the table. Not known of a new instance, which may be
    /// there because another one did not live to say what it did, and after an insert without an answer.
    is_known: bool,
}

/// One insert.
struct Block {
    body: Vec<u8>,
    /// The rows of the call it is made of: what is not in it was put aside, or is in the table.
    rows: Range<usize>,
    /// The first and the last offset in it; `None`: nothing is.
    offsets: Option<(u64, u64)>,
    /// Whether no event that may come would have found room.
    is_full: bool,
}

#[component]
impl Sink for ClickHouse {
    fn new() -> Result<Self> {
        let columns: String = config::get_or("columns", String::new())?;
        let columns = match columns.as_str() {
            "all" => Column::ALL.to_vec(),
            some => some
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|what: String| Error::permanent(format_args!("config `columns`: {what}")))?,
        };
        let asks = config::get_or("exactly-once", false)?;
        if asks && ![Column::Topic, Column::Partition, Column::Offset].iter().all(|column| columns.contains(column)) {
            let needs = "config `exactly-once` needs _topic, _partition and _offset in `columns`";
            return Err(Error::permanent(needs));
        }
        let table = quoted(&config::require::<String>("table")?);
        let table =
            config::get("database").map_or_else(|| table.clone(), |database| format!("{}.{table}", quoted(&database)));
        let user: String = config::get_or("user", "default".to_owned())?;
        let mut headers = vec![("x-clickhouse-user", user.into_bytes())];
        if let Some(password) = config::secret("password") {
            headers.push(("x-clickhouse-key", password));
        }
        // Times of events, and of values, are written as RFC 3339 says.
        let mut settings = vec![("date_time_input_format".to_owned(), "best_effort".to_owned())];
        for (key, value) in config::all() {
            if let Some(name) = key.strip_prefix("setting.") {
                settings.retain(|(known, _)| known != name);
                settings.push((name.to_owned(), value));
            }
        }
        let url = config::require("url")?;
        let timeout = Duration::from_secs(config::within("timeout", TIMEOUT_DEFAULT, 1..=TIMEOUT_MAX)? as u64);
        Ok(Self {
            server: Server { url, headers, settings, timeout },
            table,
            columns,
            rows_max: config::within("rows", ROWS_MAX, 1..=ROWS_MAX)?,
            bytes_max: config::within("request-bytes", BYTES_DEFAULT, 1..=BYTES_MAX)?,
            asks,
            is_known: false,
        })
    }

    fn write(&mut self, events: Events<'_>, rejects: &mut Rejects<'_>) -> Result<()> {
        let begun = Instant::now();
        let known = if self.asks && !self.is_known { self.inserted(events)? } else { HashSet::new() };
        self.is_known = true;
        let mut row = 0;
        while let Some(first) = events.get(row) {
            if row > 0 && begun.elapsed() > CALL {
                return rejects.defer(&first);
            }
            let block = self.block(events, row, &known, rejects);
            row = block.rows.end;
            let Some(offsets) = block.offsets else { continue };
            if first.row() > 0 && row == events.len() && !block.is_full {
                // With what comes next it may be a whole block, and ClickHouse likes them large.
                return rejects.defer(&first);
            }
            if let Err(error) = self.insert(events, offsets, block.body) {
                if first.row() == 0 {
                    return Err(error);
                }
                // What was inserted before stays so, and the next call says why this was not.
                self.is_known = false;
                return rejects.defer(&first);
            }
        }
        Ok(())
    }
}

impl ClickHouse {
    /// The block that begins with this row. Where it ends depends on nothing but the events, so it is the same each time.
    fn block(&self, events: Events<'_>, from: usize, known: &HashSet<u64>, rejects: &mut Rejects<'_>) -> Block {
        let mut block = Block { body: Vec::new(), rows: from..from, offsets: None, is_full: false };
        let mut count = 0;
        while let Some(event) = events.get(block.rows.end) {
            let before = block.body.len();
            let written = match known.contains(&event.offset()) {
                true => Ok(false),
                false => row::write(events, &event, &self.columns, &mut block.body).map(|()| true),
            };
            let bytes = block.body.len();
            match written {
                Ok(true) if bytes <= self.bytes_max => {
                    count += 1;
                    block.offsets = Some((block.offsets.map_or(event.offset(), |(first, _)| first), event.offset()));
                }
                Ok(true) if count > 0 => {
                    block.body.truncate(before);
                    block.is_full = true;
                    break;
                }
                Ok(true) => {
                    block.body.truncate(before);
                    let most = self.bytes_max;
                    rejects.reject(
                        &event,
                        format_args!("its row has {bytes} bytes; config `request-bytes` allows {most}"),
                    );
                }
                Ok(false) => {}
                Err(why) => {
                    block.body.truncate(before);
                    rejects.reject(&event, why);
                }
            }
            block.rows.end += 1;
            if count == self.rows_max {
                block.is_full = true;
                break;
            }
        }
        block
    }

    fn insert(&self, events: Events<'_>, (first, last): (u64, u64), body: Vec<u8>) -> Result<()> {
        let place = format!("{}/{}/{first}-{last}", events.topic(), events.partition());
        // A topic that was made anew has other events at the same places.
        let content: String = Sha256::digest(&body).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let query = format!("INSERT INTO {} FORMAT JSONEachRow", self.table);
        self.server.ask(&query, &[("insert_deduplication_token", &format!("{place}/{content}"))], body).map(drop)
    }

    /// The offsets of these events that are in the table.
    fn inserted(&self, events: Events<'_>) -> Result<HashSet<u64>> {
        let (Some(first), Some(last)) = (events.get(0), events.get(events.len() - 1)) else {
            return Ok(HashSet::new());
        };
        let query = format!(
            "SELECT _offset FROM {} WHERE _topic = {{topic:String}} AND _partition = {{partition:UInt32}} AND _offset BETWEEN \
             {{first:UInt64}} AND {{last:UInt64}} FORMAT TabSeparated",
            self.table
        );
        let [partition, first, last] =
            [events.partition().to_string(), first.offset().to_string(), last.offset().to_string()];
        let parameters = [
            ("param_topic", events.topic()),
            ("param_partition", &partition),
            ("param_first", &first),
            ("param_last", &last),
        ];
        let answer = self.server.ask(&query, &parameters, Vec::new())?;
        let offset = |line: &str| {
            line.parse()
                .map_err(|_| Error::transient(format_args!("ClickHouse: `{line}` is no offset of {}", self.table)))
        };
        answer.lines().map(offset).collect()
    }
}

/// The name of a database or a table, as a query has it.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::http::{Request, Response};
    use nodata_component::testing::{Event, Harness};
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    /// A query: its parameters, and what is inserted.
    type Query = (BTreeMap<String, String>, String);

    fn query(request: &Request) -> Query {
        let (_, pairs) = request.url().split_once('?').unwrap();
        let body = String::from_utf8_lossy(request.body_bytes()).into_owned();
        (form_urlencoded::parse(pairs.as_bytes()).into_owned().collect(), body)
    }

    /// A sink, and the queries that it sent. Each is answered with what a function makes of it and its number.
    fn clickhouse(
        configs: &[(&str, &str)],
        answer: impl Fn(usize, &str) -> Response + 'static,
    ) -> (Harness, Rc<RefCell<Vec<Query>>>) {
        let sent = Rc::new(RefCell::new(Vec::new()));
        let noted = sent.clone();
        let harness = Harness::of_sink::<ClickHouse>().topic("t").partition(3).next_offset(7).http(move |request| {
            assert_eq!((request.method(), request.header_of("x-clickhouse-user")), ("POST", Some("default")));
            noted.borrow_mut().push(query(request));
            let number = noted.borrow().len();
            Ok(answer(number, &noted.borrow()[number - 1].0["query"]))
        });
        let all = [("url", "http://ch:8123"), ("table", "a`b")].iter().chain(configs);
        (all.fold(harness, |harness, (key, value)| harness.config(key, value)), sent)
    }

    fn ok(_: usize, _: &str) -> Response {
        Response::new(200)
    }

    fn exception(code: u16) -> Response {
        let text = format!("Code: {code}. DB::Exception: something\nis wrong");
        Response::new(500).with_header("X-ClickHouse-Exception-Code", code.to_string()).with_body(text)
    }

    #[test]
    fn events_are_rows_with_the_columns_that_are_asked_for() {
        let (mut harness, sent) =
            clickhouse(&[("columns", "all"), ("database", "d"), ("setting.async_insert", "1")], ok);
        let full = Event::new(r#"{"a":1.10}"#).key([b'"', 0xff, 7]).id("i").timestamp_us(1);
        let events =
            [full, Event::new(" { } ").timestamp_us(0), Event::new("[1]"), Event::tombstone(), Event::new("{}{}")];
        let call = harness.call(events).ok();
        assert_eq!(call.rejected().iter().map(|one| one.row).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(call.rejected()[0].reason, "the event at offset 9 is not a JSON object");
        let (parameters, body) = &sent.borrow()[0];
        let rows = "{\"_topic\":\"t\",\"_partition\":3,\"_offset\":7,\"_id\":\"i\",\"_key\":\"\\\"\u{fffd}\\u0007\",\
                    \"_timestamp\":\"1970-01-01T00:00:00.000001Z\",\"a\":1.10}\n\
                    {\"_topic\":\"t\",\"_partition\":3,\"_offset\":8,\"_id\":null,\"_key\":null,\
                    \"_timestamp\":\"1970-01-01T00:00:00.000000Z\" }\n";
        assert_eq!(body, rows);
        assert_eq!(parameters["query"], "INSERT INTO `d`.`a\\`b` FORMAT JSONEachRow");
        assert_eq!((&*parameters["async_insert"], &*parameters["date_time_input_format"]), ("1", "best_effort"));
        assert!(parameters["insert_deduplication_token"].starts_with("t/3/7-8/"), "{parameters:?}");

        let (mut harness, sent) = clickhouse(&[], ok);
        let _ = harness.call(["{\"a\":1}", "{}"]).ok();
        assert_eq!(sent.borrow()[0].1, "{\"a\":1}\n{}\n");
    }

    #[test]
    fn blocks_are_as_large_as_configured_and_the_same_again_when_they_are_repeated() {
        let (mut harness, sent) = clickhouse(&[("rows", "2")], |number, _| match number {
            2 => Response::new(503),
            _ => Response::new(200),
        });
        let call = harness.call(["{}"; 7]).ok();
        assert_eq!(call.deferred(), Some(2), "the second block failed");
        assert_eq!(harness.call_rest().ok().deferred(), Some(4), "the last is left to grow");
        let tokens: Vec<String> =
            sent.take().iter().map(|(query, _)| query["insert_deduplication_token"].clone()).collect();
        let places: Vec<&str> = tokens.iter().map(|token| token.rsplit_once('/').unwrap().0).collect();
        assert_eq!(places, ["t/3/7-8", "t/3/9-10", "t/3/9-10", "t/3/11-12"]);
        assert_eq!(tokens[1], tokens[2]);

        let (mut harness, sent) = clickhouse(&[("request-bytes", "20")], ok);
        let call = harness.call(["{\"a\":1}", "{\"a\":2}", "{\"a\":3333333333333333}"]).ok();
        assert_eq!(call.rejected()[0].reason, "its row has 23 bytes; config `request-bytes` allows 20");
        assert_eq!(sent.borrow().len(), 1);
    }

    #[test]
    fn what_is_about_rows_is_permanent_and_nothing_else_is() {
        let error = |answer: Response| {
            let (mut harness, _) = clickhouse(&[], move |_, _| answer.clone());
            harness.call(["{}"]).error().unwrap().clone()
        };
        let bad = error(exception(27));
        assert_eq!(bad, Error::permanent("ClickHouse: Code: 27. DB::Exception: something is wrong"));
        // Older ones say it in the text only.
        assert!(!error(Response::new(400).with_body("Code: 117. DB::Exception: x")).is_transient());
        for code in [60, 81, 241, 252, 497, 516] {
            assert!(error(exception(code)).is_transient(), "{code}");
        }
        assert_eq!(error(Response::new(502)), Error::transient("ClickHouse answers with status 502"));
        let (mut harness, _) =
            clickhouse(&[("rows", "1")], |number, _| if number == 1 { Response::new(200) } else { exception(6) });
        assert_eq!(harness.call(["{}", "{}"]).ok().deferred(), Some(1));
        assert!(!harness.call_rest().error().unwrap().is_transient());
    }

    #[test]
    fn the_table_is_asked_for_what_it_has_where_that_is_not_known() {
        let config = [("columns", "all"), ("exactly-once", "true"), ("rows", "2")];
        let (mut harness, sent) = clickhouse(&config, |number, query| match (query.starts_with("SELECT"), number) {
            (true, 1) => Response::new(200).with_body("7\n9\n"),
            (false, 3) => Response::new(500),
            _ => Response::new(200),
        });
        let queries = |sent: &RefCell<Vec<Query>>| -> Vec<String> {
            let told =
                |(query, _): &Query| query.get("insert_deduplication_token").unwrap_or(&query["query"])[..8].to_owned();
            sent.take().iter().map(told).collect()
        };
        assert_eq!(harness.call(["{}"; 6]).ok().deferred(), Some(4));
        let asked = sent.borrow()[0].0.clone();
        let range = ["param_topic", "param_partition", "param_first", "param_last"].map(|name| asked[name].as_str());
        assert_eq!(range, ["t", "3", "7", "12"]);
        assert_eq!(queries(&sent), ["SELECT _", "t/3/8-10", "t/3/11-1"]);
        // It failed, so whether it is there is not known.
        sent.borrow_mut().clear();
        let _ = harness.call_rest();
        assert_eq!(queries(&sent)[0], "SELECT _");
        let _ = harness.call(["{}"; 2]).ok();
        assert_eq!(queries(&sent).len(), 1, "it is known");

        let wrong = |key: &str, value: &str| clickhouse(&[(key, value)], ok).0.call(["{}"]).error().unwrap().clone();
        let needs = "config `exactly-once` needs _topic, _partition and _offset in `columns`";
        assert_eq!(wrong("exactly-once", "true"), Error::permanent(needs));
        assert!(wrong("columns", "_nope").message().starts_with("config `columns`: `_nope` is none of _topic, _part"));
        assert_eq!(wrong("rows", "9000"), Error::permanent("config `rows` is 9000; it is 1 to 8192"));
    }
}
