//! Emits one wrong thing after the other and says how each was answered.
#![cfg(target_family = "wasm")]

use guests::{
    Batch, BytesColumnParam, Collector, Columns, EmitError, Error, EventParam, Guest, HeadersColumnParam, say,
};

struct EmitsNonsense;

const EVENT: EventParam<'static> = EventParam { id: None, key: None, value: Some(b"v"), headers: &[], timestamp: None };
const ONE: BytesColumnParam<'static> = BytesColumnParam { offsets: &[0, 1], data: b"x", validity: &[] };
const NONE: BytesColumnParam<'static> = BytesColumnParam { offsets: &[], data: b"", validity: &[] };
const ROW: Columns<'static> = Columns { ids: None, keys: ONE, values: ONE, timestamps: &[], headers: None };

impl Guest for EmitsNonsense {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        let mut answers = Vec::new();
        let mut answered = |what: &str, answer: Result<(), EmitError>| {
            let answer = match answer {
                Ok(()) => "ok".to_owned(),
                Err(EmitError::UnknownPort(port)) => format!("unknown port {port:?}"),
                Err(EmitError::BudgetExceeded) => "budget exceeded".to_owned(),
                Err(EmitError::Invalid(why)) => why,
            };
            answers.push(format!("{what}: {answer}"));
        };

        let columns = |rows: Columns<'_>| out.emit_columns("", rows);
        let header = |row_offsets, names| Some(HeadersColumnParam { row_offsets, names, values: ONE });
        answered("no rows", columns(Columns { keys: NONE, values: NONE, ..ROW }));
        answered("lost", out.emit_columns("lost", ROW));
        answered("short keys", columns(Columns { keys: NONE, ..ROW }));
        answered("late start", columns(Columns { values: BytesColumnParam { offsets: &[1, 1], ..ONE }, ..ROW }));
        answered("descending", columns(Columns { values: BytesColumnParam { offsets: &[0, 2, 1], ..ONE }, ..ROW }));
        answered("long data", columns(Columns { values: BytesColumnParam { data: b"xy", ..ONE }, ..ROW }));
        answered("validity", columns(Columns { keys: BytesColumnParam { validity: &[1, 1], ..ONE }, ..ROW }));
        answered("timestamps", columns(Columns { timestamps: &[1, 2], ..ROW }));
        answered("id", columns(Columns { ids: Some(BytesColumnParam { data: b"\xff", ..ONE }), ..ROW }));
        answered("row offsets", columns(Columns { headers: header(&[0, 2], ONE), ..ROW }));
        answered(
            "null name",
            columns(Columns { headers: header(&[0, 1], BytesColumnParam { validity: &[0], ..ONE }), ..ROW }),
        );
        answered(
            "large row",
            columns(Columns { values: BytesColumnParam { offsets: &[0, 100], data: &[0; 100], validity: &[] }, ..ROW }),
        );

        let event = |event: EventParam<'_>| out.emit("", &[EVENT, event]);
        answered("lost event", out.emit("lost", &[EVENT]));
        answered("empty id", event(EventParam { id: Some(""), ..EVENT }));
        answered("long id", event(EventParam { id: Some(&"i".repeat(257)), ..EVENT }));
        answered("same header", event(EventParam { headers: &[("h", b"1"), ("h", b"2")], ..EVENT }));
        answered("no header name", event(EventParam { headers: &[("", b"1")], ..EVENT }));
        answered("large event", event(EventParam { value: Some(&[0; 101]), ..EVENT }));
        answered("no such row", out.forward("", &[0, 7]));

        for answer in answers {
            say(out, &answer);
        }
        Ok(())
    }
}

guests::export!(EmitsNonsense);
