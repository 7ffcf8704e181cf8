//! Events to columns, and back.

use super::Event;
use crate::column_builder::BytesColumnBuilder;
use crate::columns::{BytesColumn, BytesColumnRef, ColumnsRef, HeadersColumn, HeadersColumnRef};

/// Many events, as they cross between a component and its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// UTF-8; `None` when no event has an id.
    pub ids: Option<BytesColumn>,
    /// All null when no event has a key.
    pub keys: BytesColumn,
    /// A null is a tombstone.
    pub values: BytesColumn,
    /// One for each row, or none at all: assigned on append.
    pub timestamps: Vec<i64>,
    /// `None` when no event has headers.
    pub headers: Option<HeadersColumn>,
}

impl Columns {
    /// As the host gives events to a component. Those without a timestamp get 0.
    pub fn from_events(events: &[Event]) -> Self {
        let rows = events.len();
        let ids = column(events.iter().map(|event| event.id.as_ref().map(String::as_bytes)));
        let keys = column(events.iter().map(|event| event.key.as_deref()));
        let values = column(events.iter().map(|event| event.value.as_deref()));
        let headers = events.iter().flat_map(|event| &event.headers);
        let mut row_offsets = vec![0];
        for event in events {
            row_offsets.push(row_offsets.last().map_or(0, |&end| end) + event.headers.len() as u32);
        }
        Self {
            ids: ids.is_used().then(|| ids.as_column().to_column()),
            keys: filled(keys, rows),
            values: filled(values, rows),
            timestamps: events.iter().map(|event| event.timestamp_us.unwrap_or(0)).collect(),
            headers: events.iter().any(|event| !event.headers.is_empty()).then(|| HeadersColumn {
                names: column(headers.clone().map(|(name, _)| Some(name.as_bytes()))).as_column().to_column(),
                values: column(headers.map(|(_, value)| Some(value.as_slice()))).as_column().to_column(),
                row_offsets,
            }),
        }
    }

    /// The events, each with its own bytes.
    pub fn to_events(&self) -> Vec<Event> {
        let owned = |column: &BytesColumn, row| column.get(row).map(<[u8]>::to_vec);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let event = |row| Event {
            id: self.ids.as_ref().and_then(|ids| owned(ids, row)).map(text),
            key: owned(&self.keys, row),
            value: owned(&self.values, row),
            headers: self.headers.as_ref().map_or(Vec::new(), |headers| {
                let element = |at| {
                    let name = owned(&headers.names, at).unwrap_or_default();
                    (text(name), owned(&headers.values, at).unwrap_or_default())
                };
                headers.range(row).map(element).collect()
            }),
            timestamp_us: self.timestamps.get(row).copied(),
        };
        (0..self.rows()).map(event).collect()
    }

    /// How many events there are.
    pub fn rows(&self) -> usize {
        self.values.rows()
    }

    /// Bytes of ids, keys, values and headers.
    pub fn byte_size(&self) -> u64 {
        let headers = self.headers.as_ref().map_or(0, |headers| headers.names.data.len() + headers.values.data.len());
        let ids = self.ids.as_ref().map_or(0, |ids| ids.data.len());
        (ids + self.keys.data.len() + self.values.data.len() + headers) as u64
    }
}

fn column<'a>(elements: impl Iterator<Item = Option<&'a [u8]>>) -> BytesColumnBuilder {
    let mut column = BytesColumnBuilder::default();
    for (row, element) in elements.enumerate() {
        match element {
            Some(element) => {
                column.data.extend_from_slice(element);
                column.finish_element(row);
            }
            None => column.finish_null(row),
        }
    }
    column
}

fn filled(mut column: BytesColumnBuilder, rows: usize) -> BytesColumn {
    if !column.is_used() {
        column.fill_with_nulls(rows);
    }
    column.as_column().to_column()
}

impl Columns {
    pub(crate) fn as_ref(&self) -> ColumnsRef<'_> {
        ColumnsRef {
            ids: self.ids.as_ref().map(BytesColumn::as_ref),
            keys: self.keys.as_ref(),
            values: self.values.as_ref(),
            timestamps: &self.timestamps,
            headers: self.headers.as_ref().map(|headers| HeadersColumnRef {
                row_offsets: &headers.row_offsets,
                names: headers.names.as_ref(),
                values: headers.values.as_ref(),
            }),
        }
    }
}

impl BytesColumnRef<'_> {
    pub(crate) fn to_column(self) -> BytesColumn {
        BytesColumn { offsets: self.offsets.to_vec(), data: self.data.to_vec(), validity: self.validity.to_vec() }
    }
}

impl HeadersColumnRef<'_> {
    fn to_column(self) -> HeadersColumn {
        HeadersColumn {
            row_offsets: self.row_offsets.to_vec(),
            names: self.names.to_column(),
            values: self.values.to_column(),
        }
    }
}

impl ColumnsRef<'_> {
    pub(crate) fn to_columns(self) -> Columns {
        Columns {
            ids: self.ids.map(BytesColumnRef::to_column),
            keys: self.keys.to_column(),
            values: self.values.to_column(),
            timestamps: self.timestamps.to_vec(),
            headers: self.headers.map(HeadersColumnRef::to_column),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back() {
        for events in [
            vec![Event::new("a").timestamp_us(1)],
            vec![Event::tombstone().timestamp_us(1), Event::tombstone().timestamp_us(2)],
            (0..20)
                .map(|n: i64| {
                    let event = if n % 3 == 0 { Event::tombstone() } else { Event::new(n.to_string()) };
                    let event = if n % 4 == 1 { event.key("k") } else { event };
                    let event =
                        if n % 5 == 2 { event.id(n.to_string()).header("a", "1").header("b", "2") } else { event };
                    event.timestamp_us(n)
                })
                .collect(),
        ] {
            let columns = Columns::from_events(&events);
            assert_eq!(columns.to_events(), events);
            assert_eq!(columns.rows(), events.len());
            assert_eq!(columns.byte_size(), events.iter().map(|event| event.byte_size() as u64).sum::<u64>());
        }
    }

    #[test]
    fn columns_that_nobody_uses_are_not_there() {
        let columns = Columns::from_events(&[Event::new("a"), Event::new("b")]);
        assert_eq!((columns.ids, columns.headers), (None, None));
        assert_eq!(columns.keys, BytesColumn { offsets: vec![0, 0, 0], data: Vec::new(), validity: vec![0] });
        assert_eq!(columns.values, BytesColumn { offsets: vec![0, 1, 2], data: b"ab".to_vec(), validity: Vec::new() });
    }
}
