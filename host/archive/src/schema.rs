//! The columns of a file. Their names, types and field ids are a promise to everyone who reads the files: they are only added.

use crate::typed;
use arrow_schema::extension::Json;
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use nodata_log::segment::StoreId;
use nodata_log::{Column, ValueType};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, FileMetaData, KeyValue, RowGroupMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

pub const OFFSET: &str = "_offset";
pub const TIMESTAMP: &str = "_timestamp";
pub const APPEND_TIMESTAMP: &str = "_append_timestamp";
pub const ID: &str = "_id";
pub const KEY: &str = "_key";
pub const HEADERS: &str = "_headers";
pub const VALUE: &str = "value";
/// Whether a value is as the topic declares; only where it declares columns.
pub const SCHEMA_OK: &str = "_schema_ok";

/// The order of the columns in a file. Declared ones come behind.
pub(crate) mod column {
    pub(crate) const OFFSET: usize = 0;
    pub(crate) const TIMESTAMP: usize = 1;
    pub(crate) const APPEND_TIMESTAMP: usize = 2;
    pub(crate) const ID: usize = 3;
    pub(crate) const KEY: usize = 4;
    pub(crate) const HEADERS: usize = 5;
    pub(crate) const VALUE: usize = 6;
    /// All that an event is. Declared ones repeat what is in the values.
    pub(crate) const EVENT: std::ops::Range<usize> = OFFSET..VALUE + 1;
    /// Of these. A header has two.
    pub(crate) const LEAVES: usize = 8;
}

/// Rows of one row group: what a reader of one event must decode at most, and what is decoded at once by one that scans.
pub const ROW_GROUP_ROWS_MAX: usize = 131_072;
/// Bytes of one row group, before it is compressed.
pub const ROW_GROUP_BYTES_MAX: usize = 64 << 20;
/// Bytes of one page, before it is compressed.
const PAGE_BYTES: usize = 256 << 10;

pub(crate) fn field(name: &str, data_type: DataType, nullable: bool, id: i32) -> Field {
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
    Field::new(name, data_type, nullable).with_metadata(metadata)
}

pub(crate) fn header_fields() -> Fields {
    Fields::from(vec![field("key", DataType::Utf8, false, 6), field("value", DataType::Binary, true, 7)])
}

pub(crate) fn entries_field() -> Field {
    Field::new("key_value", DataType::Struct(header_fields()), false)
}

/// The schema of a file. Ids 8 and 9 are kept for producers, 100 and above are those of declared columns.
pub fn schema(values: ValueType, columns: &[Column]) -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let headers = DataType::Map(Arc::new(entries_field()), false);
    let mut fields = vec![
        field(OFFSET, DataType::Int64, false, 1),
        field(TIMESTAMP, time(), false, 2),
        field(APPEND_TIMESTAMP, time(), false, 3),
        field(ID, DataType::Utf8, true, 11),
        field(KEY, DataType::Binary, true, 4),
        field(HEADERS, headers, true, 5),
        match values {
            ValueType::Bytes => field(VALUE, DataType::Binary, true, 10),
            ValueType::Text => field(VALUE, DataType::Utf8, true, 10),
            ValueType::Json => field(VALUE, DataType::Utf8, true, 10).with_extension_type(Json::default()),
        },
    ];
    if !columns.is_empty() {
        fields.push(field(SCHEMA_OK, DataType::Boolean, false, 12));
        fields.extend(typed::fields(columns));
    }
    Arc::new(Schema::new(fields))
}

/// What the footer of a file says about where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOrigin {
    /// Of the store, 32 hexadecimal digits.
    pub store: String,
    pub topic: String,
    pub topic_id: u32,
    pub partition: u32,
    pub base_offset: u64,
    /// What the values are.
    pub values: ValueType,
    /// What the topic declares.
    pub columns: Arc<[Column]>,
}

/// The id of a store, as files say it.
pub(crate) fn store_text(id: &StoreId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

const FORMAT_KEY: &str = "nodata.format";
const FORMAT: &str = "1";
const STORE_KEY: &str = "nodata.store_id";
const TOPIC_KEY: &str = "nodata.topic";
const TOPIC_ID_KEY: &str = "nodata.topic_id";
const PARTITION_KEY: &str = "nodata.partition";
const VALUES_KEY: &str = "nodata.values";
const COLUMNS_KEY: &str = "nodata.columns";
const BASE_OFFSET_KEY: &str = "nodata.base_offset";

impl FileOrigin {
    fn to_key_values(&self) -> Vec<KeyValue> {
        let mut pairs = vec![
            (FORMAT_KEY, FORMAT.to_owned()),
            (STORE_KEY, self.store.clone()),
            (TOPIC_KEY, self.topic.clone()),
            (TOPIC_ID_KEY, self.topic_id.to_string()),
            (PARTITION_KEY, self.partition.to_string()),
            (BASE_OFFSET_KEY, self.base_offset.to_string()),
            (VALUES_KEY, self.values.to_string().to_lowercase()),
        ];
        if !self.columns.is_empty() {
            let lines: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
            pairs.push((COLUMNS_KEY, lines.join("\n")));
        }
        pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect()
    }

    /// `None`: nodata did not write this file, or a newer one did.
    pub(crate) fn from_key_values(pairs: &[KeyValue]) -> Option<Self> {
        let value = |key: &str| pairs.iter().find(|pair| pair.key == key)?.value.as_deref();
        if value(FORMAT_KEY)? != FORMAT {
            return None;
        }
        Some(Self {
            store: value(STORE_KEY)?.to_owned(),
            topic: value(TOPIC_KEY)?.to_owned(),
            topic_id: value(TOPIC_ID_KEY)?.parse().ok()?,
            partition: value(PARTITION_KEY)?.parse().ok()?,
            base_offset: value(BASE_OFFSET_KEY)?.parse().ok()?,
            values: match value(VALUES_KEY)? {
                "bytes" => ValueType::Bytes,
                "text" => ValueType::Text,
                "json" => ValueType::Json,
                _ => return None,
            },
            columns: value(COLUMNS_KEY)
                .unwrap_or_default()
                .lines()
                .map(|line| line.parse().ok())
                .collect::<Option<_>>()?,
        })
    }
}

const CHECKSUMS_KEY: &str = "nodata.checksums";

/// CRC-32C of the bytes of each row group, in order, as hexadecimal words. The format itself has checksums for pages, which
/// this build of its library does not write; and a flipped bit in a compressed page need not be an error.
pub(crate) fn checksums_entry<'a>(checksums: impl Iterator<Item = &'a u32>) -> KeyValue {
    let words: Vec<String> = checksums.map(|checksum| format!("{checksum:08x}")).collect();
    KeyValue::new(CHECKSUMS_KEY.to_owned(), words.join(" "))
}

pub(crate) fn checksums(file: &FileMetaData) -> Result<Vec<u32>, ParquetError> {
    let pairs = file.key_value_metadata().map_or([].as_slice(), Vec::as_slice);
    let entry = pairs.iter().find(|pair| pair.key == CHECKSUMS_KEY).and_then(|pair| pair.value.as_deref());
    let words = entry.into_iter().flat_map(str::split_ascii_whitespace).map(|word| u32::from_str_radix(word, 16));
    words.collect::<Result<_, _>>().map_err(|_| ParquetError::General(format!("malformed {CHECKSUMS_KEY}")))
}

/// Where the columns of a row group lie in the file.
pub(crate) fn byte_range(group: &RowGroupMetaData) -> Range<usize> {
    // Not `byte_range`, which panics where a damaged footer has negative numbers.
    let start = |column: &ColumnChunkMetaData| column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let ends = group.columns().iter().map(|column| start(column).saturating_add(column.compressed_size()));
    let from = group.columns().iter().map(start).min().unwrap_or(0);
    from.max(0) as usize..ends.max().unwrap_or(0).max(0) as usize
}

/// How files are written. The reason for each choice is in this crate's `README.md`.
pub(crate) fn writer_properties(origin: &FileOrigin) -> Result<WriterProperties, ParquetError> {
    let path = |name: &str| ColumnPath::from(name);
    let entry = |name: &str| ColumnPath::from(vec![HEADERS.to_owned(), "key_value".to_owned(), name.to_owned()]);
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("nodata version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(origin.to_key_values()))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: column::OFFSET as i32,
            descending: false,
            nulls_first: false,
        }]));
    for name in [OFFSET, TIMESTAMP, APPEND_TIMESTAMP] {
        properties = properties.set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for column in [path(VALUE), path(ID), entry("key"), entry("value")] {
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    // Readers leave out row groups by them. Those of pages would make footers several times as long.
    for name in origin.columns.iter().map(|column| column.name.as_str()).chain([SCHEMA_OK]) {
        let column = path(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), true)
            .set_column_statistics_enabled(column, EnabledStatistics::Chunk);
    }
    Ok(properties.build())
}
