//! Parts of values, which are JSON, as columns beside the exact bytes.
//!
//! A value that is not as the topic declares is not refused and not lost: its row is marked, what does not fit is null, and
//! what fits is there.

use crate::schema;
use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field, TimeUnit};
use nodata_log::batch::Lens;
use nodata_log::{Column, ColumnType};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

/// The field id of the first declared column; they have ids in the order of their declaration.
const FIRST_ID: i32 = 100;

pub(crate) fn fields(columns: &[Column]) -> impl Iterator<Item = Field> + '_ {
    (FIRST_ID..).zip(columns).map(|(id, column)| schema::field(&column.name, data_type(column.column_type), true, id))
}

fn data_type(column_type: ColumnType) -> DataType {
    match column_type {
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Float64 => DataType::Float64,
        ColumnType::String => DataType::Utf8,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Date => DataType::Date32,
    }
}

/// Where in a value the columns are.
#[derive(Debug, Default)]
struct Node {
    column: Option<usize>,
    members: HashMap<String, Node>,
}

/// What a column was found to be in a value.
#[derive(Clone, Debug, Default)]
enum Scalar<'a> {
    /// It is not there, or it is `null`.
    #[default]
    Absent,
    Boolean(bool),
    Integer(i64),
    /// Any other number.
    Number(f64),
    Text(Cow<'a, str>),
    /// An object or an array, or something else where an object should be around it.
    Other,
}

impl Node {
    fn of(columns: &[Column]) -> Self {
        let mut root = Self::default();
        for (at, column) in columns.iter().enumerate() {
            let mut node = &mut root;
            for member in column.members() {
                node = node.members.entry(member).or_default();
            }
            node.column = Some(at);
        }
        root
    }

    /// Notes a value that is no object. The last one counts where a member is repeated.
    fn put<'a>(&self, scalar: Scalar<'a>, found: &mut [Scalar<'a>]) {
        let inside = if matches!(scalar, Scalar::Absent) { Scalar::Absent } else { Scalar::Other };
        for member in self.members.values() {
            member.put(inside.clone(), found);
        }
        if let Some(at) = self.column {
            found[at] = scalar;
        }
    }
}

/// Finds the columns in a value.
struct Finder<'n, 'f, 'de> {
    node: &'n Node,
    found: &'f mut [Scalar<'de>],
}

impl<'de> DeserializeSeed<'de> for Finder<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finder<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.node.put(Scalar::Absent, self.found);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.node.put(Scalar::Boolean(value), self.found);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.node.put(Scalar::Integer(value), self.found);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        let scalar = i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Integer);
        self.node.put(scalar, self.found);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.node.put(Scalar::Number(value), self.found);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        let scalar = if self.node.column.is_some() { Scalar::Text(value.to_owned().into()) } else { Scalar::Other };
        self.node.put(scalar, self.found);
        Ok(())
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        self.node.put(Scalar::Text(value.into()), self.found);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        self.node.put(Scalar::Other, self.found);
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Finder { node, found } = self;
        node.put(Scalar::Absent, found);
        if let Some(at) = node.column {
            found[at] = Scalar::Other;
        }
        while let Some(member) = members.next_key_seed(Member(node))? {
            match member {
                Some(node) => members.next_value_seed(Finder { node, found: &mut *found })?,
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Finds the place of a member by its name.
struct Member<'n>(&'n Node);

impl<'de, 'n> DeserializeSeed<'de> for Member<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Member<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.members.get(name))
    }
}

enum Builder {
    Boolean(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    String(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
}

impl Builder {
    fn new(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::Int64 => Self::Int64(Int64Builder::new()),
            ColumnType::Float64 => Self::Float64(Float64Builder::new()),
            ColumnType::String => Self::String(StringBuilder::new()),
            ColumnType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            ColumnType::Date => Self::Date(Date32Builder::new()),
        }
    }

    /// Appends what was found, or null; false if it is not what the column holds.
    fn push(&mut self, found: &Scalar<'_>) -> bool {
        match (&mut *self, found) {
            (Self::Boolean(rows), Scalar::Boolean(value)) => rows.append_value(*value),
            (Self::Int64(rows), Scalar::Integer(value)) => rows.append_value(*value),
            (Self::Float64(rows), Scalar::Integer(value)) => rows.append_value(*value as f64),
            (Self::Float64(rows), Scalar::Number(value)) => rows.append_value(*value),
            (Self::String(rows), Scalar::Text(value)) => rows.append_value(value),
            (Self::Timestamp(rows), Scalar::Text(value)) => {
                let time: Option<jiff::Timestamp> = value.parse().ok();
                rows.append_option(time.map(jiff::Timestamp::as_microsecond));
                return time.is_some();
            }
            (Self::Date(rows), Scalar::Text(value)) => {
                let days = days(value);
                rows.append_option(days);
                return days.is_some();
            }
            (_, found) => {
                self.push_null();
                return matches!(found, Scalar::Absent);
            }
        }
        true
    }

    fn push_null(&mut self) {
        match self {
            Self::Boolean(rows) => rows.append_null(),
            Self::Int64(rows) => rows.append_null(),
            Self::Float64(rows) => rows.append_null(),
            Self::String(rows) => rows.append_null(),
            Self::Timestamp(rows) => rows.append_null(),
            Self::Date(rows) => rows.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(rows) => ArrayBuilder::finish(rows),
            Self::Int64(rows) => ArrayBuilder::finish(rows),
            Self::Float64(rows) => ArrayBuilder::finish(rows),
            Self::String(rows) => ArrayBuilder::finish(rows),
            Self::Timestamp(rows) => ArrayBuilder::finish(rows),
            Self::Date(rows) => ArrayBuilder::finish(rows),
        }
    }
}

/// `2013-01-01`, as days since 1970-01-01.
fn days(text: &str) -> Option<i32> {
    // The library takes more than that: a time behind it, and years of six digits.
    let date: jiff::civil::Date = Some(text).filter(|text| text.len() == "2013-01-01".len())?.parse().ok()?;
    let since = date.since(jiff::civil::date(1970, 1, 1)).ok()?;
    Some(since.get_days())
}

/// The declared columns of some rows, in the making.
pub(crate) struct TypedColumns {
    root: Node,
    is_ok: BooleanBuilder,
    columns: Vec<Builder>,
}

impl TypedColumns {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            root: Node::of(columns),
            is_ok: BooleanBuilder::new(),
            columns: columns.iter().map(|column| Builder::new(column.column_type)).collect(),
        }
    }

    /// Bytes in memory of one row, without what strings have.
    pub(crate) fn row_bytes(&self) -> usize {
        self.columns.len() * size_of::<i64>() + 1
    }

    pub(crate) fn push(&mut self, lens: Lens<'_>, values: &[u8]) {
        let mut rest = values;
        for len in lens.iter() {
            let Some(len) = len else {
                // A tombstone says nothing that could be wrong.
                self.columns.iter_mut().for_each(Builder::push_null);
                self.is_ok.append_value(true);
                continue;
            };
            let (value, behind) = rest.split_at(len as usize);
            rest = behind;
            self.push_value(value);
        }
    }

    fn push_value(&mut self, value: &[u8]) {
        let mut found = vec![Scalar::Absent; self.columns.len()];
        let mut json = serde_json::Deserializer::from_slice(value);
        let finder = Finder { node: &self.root, found: &mut found };
        if finder.deserialize(&mut json).and_then(|()| json.end()).is_err() {
            self.columns.iter_mut().for_each(Builder::push_null);
            self.is_ok.append_value(false);
            return;
        }
        let pairs = self.columns.iter_mut().zip(&found);
        // Not `all`, which would stop at the first that does not fit.
        let is_ok = pairs.fold(true, |is_ok, (column, found)| column.push(found) && is_ok);
        self.is_ok.append_value(is_ok);
    }

    /// Whether each row is as declared, then the columns.
    pub(crate) fn finish(mut self) -> Vec<ArrayRef> {
        let is_ok = ArrayBuilder::finish(&mut self.is_ok);
        std::iter::once(is_ok).chain(self.columns.iter_mut().map(Builder::finish)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
    use arrow_array::{Array as _, RecordBatch};
    use nodata_log::{Batch, Event};

    /// The columns of rows with these values; `None` is a tombstone.
    fn typed(columns: &[&str], values: &[Option<&str>]) -> (Vec<bool>, RecordBatch) {
        let columns: Vec<Column> = columns.iter().map(|column| column.parse().unwrap()).collect();
        let events: Vec<Event> = values
            .iter()
            .map(|value| Event { value: value.map(|value| value.to_owned().into()), ..Event::default() })
            .collect();
        let batch = Batch::from_events(&events, 0).unwrap();
        let mut typed = TypedColumns::new(&columns);
        typed.push(batch.value_lens(), batch.values());
        let mut arrays = typed.finish();
        let is_ok = arrays.remove(0).as_boolean().iter().map(|is_ok| is_ok.unwrap()).collect();
        (
            is_ok,
            RecordBatch::try_from_iter_with_nullable(
                fields(&columns).zip(arrays).map(|(f, a)| (f.name().clone(), a, true)),
            )
            .unwrap(),
        )
    }

    #[test]
    fn each_type_takes_what_it_is_and_nothing_else() {
        let value = |value: &str| format!("{{\"x\":{value}}}");
        let values = [
            "true",
            "1",
            "-9223372036854775808",
            "9223372036854775808",
            "1.0",
            "1e3",
            "\"a\\u00e4\"",
            "\"2013-01-01T10:00:00.1234567+02:00\"",
            "\"2013-01-01\"",
            "null",
            "[1]",
            "{\"y\":1}",
        ];
        let rows: Vec<String> = values.iter().map(|v| value(v)).collect();
        let rows: Vec<Option<&str>> = rows.iter().map(|row| Some(row.as_str())).collect();
        let fits = |column_type: &str| {
            let (is_ok, batch) = typed(&[&format!("x:{column_type}")], &rows);
            let nulls: Vec<bool> = (0..rows.len()).map(|row| batch.column(0).is_null(row)).collect();
            let fitting: Vec<&str> = (0..rows.len()).filter(|row| !nulls[*row]).map(|row| values[row]).collect();
            // What is null was marked, except for `null` itself.
            let marked =
                nulls.iter().zip(&is_ok).enumerate().all(|(row, (null, ok))| *null != *ok || values[row] == "null");
            assert!(marked, "{column_type}: {is_ok:?}");
            fitting.join(" ")
        };
        assert_eq!(fits("boolean"), "true");
        assert_eq!(fits("int64"), "1 -9223372036854775808");
        assert_eq!(fits("float64"), "1 -9223372036854775808 9223372036854775808 1.0 1e3");
        assert_eq!(fits("string"), "\"a\\u00e4\" \"2013-01-01T10:00:00.1234567+02:00\" \"2013-01-01\"");
        assert_eq!(fits("timestamp"), "\"2013-01-01T10:00:00.1234567+02:00\"");
        assert_eq!(fits("date"), "\"2013-01-01\"");
    }

    #[test]
    fn values_are_exact() {
        let row =
            r#"{"s":"a\nä","i":-5,"f":0.25,"b":false,"t":"1969-12-31T23:59:59.5Z","d":"1969-12-31","n":{"m":{"x":7}}}"#;
        let columns = ["s:string", "i:int64", "f:float64", "b:boolean", "t:timestamp", "d:date", "x=/n/m/x:int64"];
        let (is_ok, batch) = typed(&columns, &[Some(row), None, Some("{}")]);
        assert_eq!(is_ok, [true, true, true]);
        assert_eq!(batch.column(0).as_string::<i32>().value(0), "a\nä");
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), -5);
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(0), 0.25);
        assert!(!batch.column(3).as_boolean().value(0) && batch.column(3).is_valid(0));
        assert_eq!(batch.column(4).as_primitive::<TimestampMicrosecondType>().value(0), -500_000);
        assert_eq!(batch.column(5).as_primitive::<Date32Type>().value(0), -1);
        assert_eq!(batch.column(6).as_primitive::<Int64Type>().value(0), 7);
        assert!(batch.columns().iter().all(|column| column.is_null(1) && column.is_null(2)));
    }

    #[test]
    fn a_row_that_is_not_as_declared_is_marked_and_keeps_what_fits() {
        let columns = ["a:int64", "deep=/o/b:int64"];
        let rows = [
            (r#"{"a":1,"o":{"b":2}}"#, true, Some(1), Some(2)),
            (r#"{"a":"1","o":{"b":2}}"#, false, None, Some(2)),
            (r#"{"a":1,"o":5}"#, false, Some(1), None),
            (r#"{"a":1,"o":null}"#, true, Some(1), None),
            (r#"{"a":1,"o":[{"b":2}]}"#, false, Some(1), None),
            // The last of repeated members counts, as it does for others who read JSON.
            (r#"{"o":{"b":2},"a":"x","a":3,"o":{}}"#, true, Some(3), None),
            (r#"[{"a":1}]"#, false, None, None),
            (r#"{"a":1"#, false, None, None),
            (r#"{"a":1} x"#, false, None, None),
            ("", false, None, None),
        ];
        let values: Vec<Option<&str>> = rows.iter().map(|row| Some(row.0)).collect();
        let (is_ok, batch) = typed(&columns, &values);
        for (at, (value, ok, a, deep)) in rows.into_iter().enumerate() {
            let cell = |column: usize| {
                let column = batch.column(column).as_primitive::<Int64Type>();
                column.is_valid(at).then(|| column.value(at))
            };
            assert_eq!((is_ok[at], cell(0), cell(1)), (ok, a, deep), "{value}");
        }
    }
}
