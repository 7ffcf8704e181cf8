//! Rows as a guest gives them, and the checks that make them rows one can trust.

use crate::limits::PORT_BYTES_MAX;
use nodata_log::event::{EventError, Headers, check_header_names, check_id, put_header};
use nodata_log::{ColumnRef, RowsRef, TimestampUs, ValueType};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Why an emit was refused. Nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EmitError {
    UnknownPort(String),
    BudgetExceeded,
    /// In words that name the row, the value and the limit.
    Invalid(String),
}

impl EmitError {
    pub(crate) fn unknown_port(name: &str) -> Self {
        Self::UnknownPort(cut(name, PORT_BYTES_MAX).to_owned())
    }

    pub(crate) fn in_row(row: usize, error: &EventError) -> Self {
        Self::Invalid(format!("row {row}: {error}"))
    }

    /// For who made it, where no guest is asked.
    pub(crate) fn into_words(self) -> String {
        match self {
            Self::UnknownPort(port) => format!("there is no port \"{port}\""),
            Self::BudgetExceeded => "there is no room for it".to_owned(),
            Self::Invalid(what) => what,
        }
    }
}

fn invalid<T>(what: fmt::Arguments<'_>) -> Result<T, EmitError> {
    Err(EmitError::Invalid(what.to_string()))
}

/// A column as a guest gave it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GuestColumn<'a> {
    pub(crate) offsets: &'a [u32],
    pub(crate) data: &'a [u8],
    pub(crate) validity: &'a [u8],
}

/// All headers as a guest gave them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestHeaders<'a> {
    pub(crate) row_offsets: &'a [u32],
    pub(crate) names: GuestColumn<'a>,
    pub(crate) values: GuestColumn<'a>,
}

/// Rows as a guest gave them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestRows<'a> {
    pub(crate) ids: Option<GuestColumn<'a>>,
    pub(crate) keys: GuestColumn<'a>,
    pub(crate) values: GuestColumn<'a>,
    pub(crate) timestamps_us: &'a [TimestampUs],
    pub(crate) headers: Option<GuestHeaders<'a>>,
}

/// Offsets of a column of no rows.
const NO_ROWS: &[u32] = &[0];

/// Offsets of `rows` elements: they begin at 0 and do not descend. A list for no rows may have no entries.
fn check_offsets<'a>(name: &str, offsets: &'a [u32], rows: usize) -> Result<&'a [u32], EmitError> {
    if rows == 0 && offsets.is_empty() {
        return Ok(NO_ROWS);
    }
    if offsets.len() != rows + 1 {
        return invalid(format_args!("{name}: {} offsets, {rows} elements need {}", offsets.len(), rows + 1));
    }
    if offsets[0] != 0 {
        return invalid(format_args!("{name}: the first offset is {}, not 0", offsets[0]));
    }
    // Without a way out in the middle, this loop takes many rows at a time.
    if !offsets.windows(2).fold(true, |ascend, pair| ascend & (pair[0] <= pair[1])) {
        let row = offsets.windows(2).position(|pair| pair[0] > pair[1]).unwrap_or_default();
        let (start, end) = (offsets[row], offsets[row + 1]);
        return invalid(format_args!("{name}: element {row} begins at {start} and ends before, at {end}"));
    }
    Ok(offsets)
}

impl<'a> GuestColumn<'a> {
    pub(crate) fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Checks everything that does not depend on what the bytes mean.
    pub(crate) fn check(self, name: &str, rows: usize) -> Result<ColumnRef<'a>, EmitError> {
        let offsets = check_offsets(name, self.offsets, rows)?;
        let (end, bytes) = (offsets[rows], self.data.len());
        if end as usize != bytes {
            return invalid(format_args!("{name}: the last offset is {end}, the data has {bytes} bytes"));
        }
        let (validity, need) = (self.validity.len(), rows.div_ceil(8));
        if validity != 0 && validity != need {
            return invalid(format_args!(
                "{name}: a validity of {validity} bytes, {rows} elements need {need} or none"
            ));
        }
        Ok(ColumnRef { offsets, data: self.data, validity: self.validity })
    }

    /// The same for a column that must not have a null.
    fn check_without_nulls(self, name: &str, rows: usize) -> Result<ColumnRef<'a>, EmitError> {
        let column = self.check(name, rows)?;
        match (0..rows).find(|&row| column.get(row).is_none()) {
            Some(row) => invalid(format_args!("{name}: element {row} is null")),
            None => Ok(column),
        }
    }
}

/// Headers encoded as a batch holds them. The memory is used again and again.
#[derive(Debug, Default)]
pub(crate) struct EncodedHeaders {
    offsets: Vec<u32>,
    data: Vec<u8>,
}

impl EncodedHeaders {
    /// Checks and encodes the headers of this many rows.
    fn encode(&mut self, given: &GuestHeaders<'_>, rows: usize) -> Result<ColumnRef<'_>, EmitError> {
        let headers = given.names.len();
        let names = given.names.check_without_nulls("header names", headers)?;
        let values = given.values.check_without_nulls("header values", headers)?;
        let row_offsets = check_offsets("headers", given.row_offsets, rows)?;
        if row_offsets[rows] as usize != headers {
            let end = row_offsets[rows];
            return invalid(format_args!("headers: the last row offset is {end}, there are {headers} names"));
        }
        // Every header takes two varints more; what comes close to this limit is over every budget anyway.
        if names.data.len() + values.data.len() + headers * 10 > u32::MAX as usize {
            return Err(EmitError::BudgetExceeded);
        }
        self.data.clear();
        self.offsets.clear();
        self.offsets.push(0);
        for (row, pair) in row_offsets.windows(2).enumerate() {
            let of_row = pair[0] as usize..pair[1] as usize;
            let name = |at| names.get(at).unwrap_or_default();
            check_header_names(of_row.clone().map(name)).map_err(|error| EmitError::in_row(row, &error))?;
            for at in of_row {
                // The check above has found it to be UTF-8.
                let name = std::str::from_utf8(name(at)).unwrap_or_default();
                put_header(&mut self.data, name, values.get(at).unwrap_or_default());
            }
            self.offsets.push(self.data.len() as u32);
        }
        Ok(ColumnRef { offsets: &self.offsets, data: &self.data, validity: &[] })
    }
}

impl<'a> GuestRows<'a> {
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The rows, if everything about them is right.
    pub(crate) fn check(
        &self,
        event_bytes_max: u32,
        encoded: &'a mut EncodedHeaders,
    ) -> Result<RowsRef<'a>, EmitError> {
        let (rows, timestamps) = (self.len(), self.timestamps_us.len());
        if timestamps != 0 && timestamps != rows {
            return invalid(format_args!("timestamps: {timestamps} for {rows} rows"));
        }
        let rows = RowsRef {
            values: self.values.check("values", rows)?,
            keys: Some(self.keys.check("keys", rows)?),
            ids: self.ids.map(|ids| ids.check("ids", rows)).transpose()?,
            timestamps_us: (timestamps != 0).then_some(self.timestamps_us),
            headers: self.headers.map(|headers| encoded.encode(&headers, rows)).transpose()?,
        };
        if let Some(ids) = rows.ids {
            for row in 0..self.len() {
                ids.get(row).map_or(Ok(""), check_id).map_err(|error| EmitError::in_row(row, &error))?;
            }
        }
        // A row can only be too large when all of them together are.
        if rows_bytes(&rows, 0..self.len()) > u64::from(event_bytes_max) {
            check_sizes(&rows, 0..self.len(), event_bytes_max)?;
        }
        Ok(rows)
    }
}

/// Bytes of ids, keys, values and encoded headers.
pub(crate) fn rows_bytes(rows: &RowsRef<'_>, range: Range<usize>) -> u64 {
    let columns = [rows.ids, rows.keys, Some(rows.values), rows.headers];
    let bytes = |column: ColumnRef<'_>| {
        if column.validity.is_empty() {
            u64::from(column.offsets[range.end]) - u64::from(column.offsets[range.start])
        } else {
            // The bytes of a null do not count.
            range.clone().map(|row| column.get(row).map_or(0, <[u8]>::len) as u64).sum()
        }
    };
    columns.into_iter().flatten().map(bytes).sum()
}

/// Checks each row against the largest event that a topic takes.
pub(crate) fn check_sizes(rows: &RowsRef<'_>, range: Range<usize>, bytes_max: u32) -> Result<(), EmitError> {
    for row in range {
        let plain = [rows.ids, rows.keys, Some(rows.values)].into_iter().flatten();
        let plain: usize = plain.map(|column| column.get(row).map_or(0, <[u8]>::len)).sum();
        let headers = Headers::new(rows.headers.and_then(|headers| headers.get(row)).unwrap_or_default());
        let bytes = plain + headers.map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if bytes > bytes_max as usize {
            return Err(EmitError::in_row(row, &EventError::TooLarge { bytes, bytes_max }));
        }
    }
    Ok(())
}

/// Checks each value against what the values of a topic are.
pub(crate) fn check_values(rows: &RowsRef<'_>, range: Range<usize>, values: ValueType) -> Result<(), EmitError> {
    if values == ValueType::Bytes {
        return Ok(());
    }
    for row in range {
        values.check(rows.values.get(row)).map_err(|error| EmitError::in_row(row, &error))?;
    }
    Ok(())
}

/// An event as a guest gave it.
#[derive(Clone, Debug)]
pub(crate) struct GuestEvent<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<(Cow<'a, str>, &'a [u8])>,
    pub(crate) timestamp_us: Option<TimestampUs>,
}

impl GuestEvent<'_> {
    /// Checks everything; answers with its bytes as they lie in a batch.
    pub(crate) fn check(&self, bytes_max: u32) -> Result<u64, EventError> {
        if let Some(id) = &self.id {
            check_id(id.as_bytes())?;
        }
        check_header_names(self.headers.iter().map(|(name, _)| name.as_bytes()))?;
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = self.id.as_ref().map_or(0, |id| id.len())
            + self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
            + headers;
        if bytes > bytes_max as usize {
            return Err(EventError::TooLarge { bytes, bytes_max });
        }
        let lengths = self.headers.iter().map(|(name, value)| varint_bytes(name.len()) + varint_bytes(value.len()));
        Ok((bytes + lengths.sum::<usize>()) as u64)
    }
}

/// Bytes of the length that stands in front of an encoded name or value.
fn varint_bytes(len: usize) -> usize {
    len.max(1).ilog2() as usize / 7 + 1
}

/// The longest beginning of a text that has at most this many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nodata_log::Event;
    use proptest::prelude::*;

    /// A column that owns its bytes.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct OwnedColumn {
        pub(crate) offsets: Vec<u32>,
        pub(crate) data: Vec<u8>,
        pub(crate) validity: Vec<u8>,
    }

    impl OwnedColumn {
        fn of<'a>(elements: impl Iterator<Item = Option<&'a [u8]>>) -> Self {
            let mut column = Self { offsets: vec![0], ..Self::default() };
            let mut nulls = Vec::new();
            for element in elements {
                // The bytes of a null do not count, whatever they are.
                column.data.extend_from_slice(element.unwrap_or(b"stray"));
                column.offsets.push(column.data.len() as u32);
                nulls.push(element.is_none());
            }
            if nulls.contains(&true) {
                column.validity = vec![0; nulls.len().div_ceil(8)];
                for (row, null) in nulls.iter().enumerate() {
                    column.validity[row / 8] |= u8::from(!null) << (row % 8);
                }
            }
            column
        }

        fn guest(&self) -> GuestColumn<'_> {
            GuestColumn { offsets: &self.offsets, data: &self.data, validity: &self.validity }
        }
    }

    /// Columns that own their bytes, right or wrong.
    #[derive(Clone, Debug)]
    pub(crate) struct Columns {
        pub(crate) ids: Option<OwnedColumn>,
        pub(crate) keys: OwnedColumn,
        pub(crate) values: OwnedColumn,
        pub(crate) timestamps: Vec<TimestampUs>,
        pub(crate) headers: Option<(Vec<u32>, OwnedColumn, OwnedColumn)>,
    }

    impl Columns {
        /// The right columns of these events.
        pub(crate) fn of(events: &[Event]) -> Self {
            let mut row_offsets = vec![0];
            for event in events {
                row_offsets.push(row_offsets[row_offsets.len() - 1] + event.headers.len() as u32);
            }
            let headers = || events.iter().flat_map(|event| &event.headers);
            let names = OwnedColumn::of(headers().map(|(name, _)| Some(name.as_bytes())));
            let values = OwnedColumn::of(headers().map(|(_, value)| Some(value.as_ref())));
            let ids = || events.iter().map(|event| event.id.as_deref().map(str::as_bytes));
            Self {
                ids: ids().any(|id| id.is_some()).then(|| OwnedColumn::of(ids())),
                keys: OwnedColumn::of(events.iter().map(|event| event.key.as_deref())),
                values: OwnedColumn::of(events.iter().map(|event| event.value.as_deref())),
                timestamps: events.iter().filter_map(|event| event.timestamp_us).collect(),
                headers: headers().next().is_some().then_some((row_offsets, names, values)),
            }
        }

        pub(crate) fn rows(&self) -> GuestRows<'_> {
            GuestRows {
                ids: self.ids.as_ref().map(OwnedColumn::guest),
                keys: self.keys.guest(),
                values: self.values.guest(),
                timestamps_us: &self.timestamps,
                headers: self.headers.as_ref().map(|(row_offsets, names, values)| GuestHeaders {
                    row_offsets,
                    names: names.guest(),
                    values: values.guest(),
                }),
            }
        }
    }

    fn any_column() -> impl Strategy<Value = OwnedColumn> {
        let offsets = prop_oneof![
            3 => prop::collection::vec(0u32..4, 0..6).prop_map(|steps| {
                let mut end = 0;
                std::iter::once(0).chain(steps.into_iter().map(|step| { end += step; end })).collect()
            }),
            1 => prop::collection::vec(any::<u32>(), 0..6),
        ];
        let bytes = || prop::collection::vec(any::<u8>(), 0..3);
        (offsets, any::<bool>(), prop_oneof![3 => Just(Vec::new()), 1 => bytes()], bytes()).prop_map(
            |(offsets, fits, validity, other)| {
                let end = offsets.last().copied().unwrap_or(0) as usize;
                let data = if fits && end < 100 { vec![b'x'; end] } else { other };
                OwnedColumn { offsets, data, validity }
            },
        )
    }

    prop_compose! {
        /// Columns that are right now and then.
        pub(crate) fn any_columns()(
            ids in prop::option::of(any_column()),
            keys in any_column(),
            values in any_column(),
            timestamps in prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any::<i64>(), 0..6)],
            headers in prop::option::of((prop::collection::vec(0u32..4, 0..6), any_column(), any_column())),
            alike in any::<bool>(),
        ) -> Columns {
            let keys = if alike { values.clone() } else { keys };
            Columns { ids, keys, values, timestamps, headers }
        }
    }

    /// Says what is wrong with the columns of two events after a change.
    fn check(change: impl FnOnce(&mut Columns)) -> String {
        let mut one = Event::new("v1").with_key("k1").with_id("i1");
        one.headers = vec![("h".to_owned(), "1".into())];
        let two = Event { id: None, value: None, headers: one.headers.clone(), ..one.clone() };
        let mut columns = Columns::of(&[one, two]);
        change(&mut columns);
        match columns.rows().check(1000, &mut EncodedHeaders::default()) {
            Ok(_) => "fine".to_owned(),
            Err(EmitError::Invalid(what)) => what,
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn every_defect_is_named() {
        assert_eq!(check(|_| {}), "fine");
        assert_eq!(
            check(|c| {
                c.keys.offsets.pop();
            }),
            "keys: 2 offsets, 2 elements need 3"
        );
        assert_eq!(check(|c| c.keys = OwnedColumn::default()), "keys: 0 offsets, 2 elements need 3");
        assert_eq!(check(|c| c.values.offsets[0] = 1), "values: the first offset is 1, not 0");
        assert_eq!(check(|c| c.keys.offsets[1] = 9), "keys: element 1 begins at 9 and ends before, at 4");
        assert_eq!(check(|c| c.keys.data.push(0)), "keys: the last offset is 4, the data has 5 bytes");
        assert_eq!(check(|c| c.keys.validity = vec![3, 0]), "keys: a validity of 2 bytes, 2 elements need 1 or none");
        assert_eq!(check(|c| c.timestamps = vec![1]), "timestamps: 1 for 2 rows");
        assert_eq!(check(|c| c.timestamps = vec![1, -1]), "fine");
    }

    #[test]
    fn every_defect_of_an_id_is_named() {
        let with_id = |id: &[u8]| {
            let id = id.to_vec();
            check(|c| c.ids = Some(OwnedColumn::of([None, Some(id.as_slice())].into_iter())))
        };
        assert_eq!(with_id(b"fine"), "fine");
        assert_eq!(with_id(b""), "row 1: the id is empty; leave it out instead");
        assert_eq!(with_id(b"\xff"), "row 1: the id is not UTF-8");
        assert_eq!(with_id(&[b'x'; 257]), "row 1: the id has 257 bytes, at most 256 are allowed");
    }

    #[test]
    fn every_defect_of_headers_is_named() {
        fn headers(change: impl FnOnce(&mut Vec<u32>, &mut OwnedColumn, &mut OwnedColumn)) -> String {
            check(|c| {
                if let Some((row_offsets, names, values)) = &mut c.headers {
                    change(row_offsets, names, values);
                }
            })
        }
        let name = |name: &[u8]| {
            let names = OwnedColumn::of([Some(b"a".as_slice()), Some(name)].into_iter());
            headers(|_, given, _| *given = names)
        };
        assert_eq!(name(b"fine"), "fine");
        assert_eq!(name(b""), "row 1: a header has an empty name");
        assert_eq!(name(b"\xff"), "row 1: a header name is not UTF-8");
        assert_eq!(headers(|_, names, _| names.validity = vec![1]), "header names: element 1 is null");
        assert_eq!(headers(|_, _, values| values.validity = vec![2]), "header values: element 0 is null");
        assert_eq!(
            headers(|rows, _, _| {
                rows.pop();
            }),
            "headers: 2 offsets, 2 elements need 3"
        );
        assert_eq!(headers(|rows, _, _| rows[2] = 1), "headers: the last row offset is 1, there are 2 names");
        assert_eq!(headers(|rows, _, _| rows[1] = 3), "headers: element 1 begins at 3 and ends before, at 2");
        assert_eq!(
            headers(|_, _, values| {
                values.offsets.pop();
            }),
            "header values: 2 offsets, 2 elements need 3"
        );
        assert_eq!(
            headers(|rows, _, _| *rows = vec![0, 2, 2]),
            "row 0: header `h` is given twice; header names are unique in an event"
        );
    }

    #[test]
    fn no_rows_may_have_no_offsets() {
        let mut encoded = EncodedHeaders::default();
        let none = OwnedColumn::default();
        let headers = Some((Vec::new(), none.clone(), none.clone()));
        let mut columns =
            Columns { ids: Some(none.clone()), keys: none.clone(), values: none, timestamps: Vec::new(), headers };
        assert!(columns.rows().check(10, &mut encoded).is_ok());
        columns.keys.data = vec![0];
        assert_eq!(
            columns.rows().check(10, &mut encoded).err(),
            Some(EmitError::Invalid("keys: the last offset is 0, the data has 1 bytes".to_owned()))
        );
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aé", 1), "a");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 9), "aé");
    }
}
