//! Events as bytes of a Parquet file: a new file, or more of one that is there.

use crate::schema::{self, FileOrigin};
use crate::typed::TypedColumns;
use arrow_array::builder::{BooleanBufferBuilder, NullBufferBuilder};
use arrow_array::{
    ArrayRef, BinaryArray, Int64Array, MapArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use bytes::Bytes;
use nodata_log::batch::Lens;
use nodata_log::event::Headers;
use nodata_log::{Batch, StoredBatch, ValueType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    KeyValue, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader, ParquetMetaDataWriter,
};
use parquet::file::writer::TrackedWrite;
use std::sync::Arc;

/// Bytes of rows that become arrays at once: their offsets are 32 bits wide, and memory is bounded by it.
const ARRAYS_BYTES: usize = schema::ROW_GROUP_BYTES_MAX;

const MAGIC: &[u8; 4] = b"PAR1";
/// The length of the metadata, and the magic number.
const TRAILER_BYTES: usize = 8;

/// A file of these events, in order.
pub fn new_file(origin: &FileOrigin, events: &[StoredBatch]) -> Result<Vec<u8>, ParquetError> {
    let mut out = Vec::new();
    let mut writer = begin(origin, &mut out)?;
    write(&mut writer, origin, events)?;
    let checksums = checksums_of(&mut writer, &[])?;
    writer.append_key_value_metadata(checksums);
    writer.close()?;
    Ok(out)
}

/// The same file with more events behind those that it has. It begins with all bytes of `file`, its footer included: who
/// listed the file before finds, at the size that they know, the file that they expect.
pub fn grown_file(file: &Bytes, origin: &FileOrigin, events: &[StoredBatch]) -> Result<Vec<u8>, ParquetError> {
    let before = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).parse_and_finish(file)?;
    let checksums = schema::checksums(before.file_metadata())?;
    let mut out = Vec::with_capacity(file.len() * 2);
    let mut writer = begin(origin, &mut out)?;
    let body = file.strip_prefix(MAGIC).ok_or_else(|| ParquetError::General("no Parquet file".to_owned()))?;
    writer.write_all(body)?;
    write(&mut writer, origin, events)?;
    let checksums = checksums_of(&mut writer, &checksums)?;
    writer.append_key_value_metadata(checksums);
    let added = writer.close()?;

    // What the writer put at the end knows only the new rows. Their page indexes stay, the rest is written anew.
    let trailer_at = out.len() - TRAILER_BYTES;
    let metadata_bytes = out[trailer_at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    out.truncate(trailer_at - metadata_bytes as usize);
    let combined = combine(before, added)?;
    ParquetMetaDataWriter::new_with_tracked(TrackedWrite::new(&mut out), &combined)
        .with_preserve_page_index_locations(true)
        .finish()?;
    Ok(out)
}

/// The checksums of the row groups that were there, and of those that were written.
fn checksums_of(writer: &mut ArrowWriter<&mut Vec<u8>>, before: &[u32]) -> Result<KeyValue, ParquetError> {
    writer.flush()?;
    writer.sync()?;
    let bytes: &[u8] = writer.inner();
    let of = |group| bytes.get(schema::byte_range(group)).map(crc32c::crc32c);
    let added: Option<Vec<u32>> = writer.flushed_row_groups().iter().map(of).collect();
    let added = added.ok_or_else(|| ParquetError::General("a row group outside of its file".to_owned()))?;
    Ok(schema::checksums_entry(before.iter().chain(&added)))
}

fn begin<'a>(origin: &FileOrigin, out: &'a mut Vec<u8>) -> Result<ArrowWriter<&'a mut Vec<u8>>, ParquetError> {
    let properties = schema::writer_properties(origin)?;
    // The Arrow schema would repeat in 1 KB what the columns say already.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(out, schema::schema(origin.values, &origin.columns), options)
}

/// The metadata of both, without page indexes: where they lie is kept.
fn combine(before: ParquetMetaData, added: ParquetMetaData) -> Result<ParquetMetaData, ParquetError> {
    let mut groups = before.row_groups().to_vec();
    for group in added.row_groups() {
        let ordinal = groups.len() as i32;
        groups.push(group.clone().into_builder().set_ordinal(ordinal).build()?);
    }
    let file = added.file_metadata().clone();
    Ok(ParquetMetaDataBuilder::new(file).set_row_groups(groups).build())
}

fn write(
    writer: &mut ArrowWriter<&mut Vec<u8>>,
    origin: &FileOrigin,
    events: &[StoredBatch],
) -> Result<(), ParquetError> {
    let mut columns = Columns::new(origin);
    for stored in events {
        if columns.bytes() > 0 && columns.bytes() + columns.bytes_of(stored) > ARRAYS_BYTES {
            writer.write(&std::mem::replace(&mut columns, Columns::new(origin)).finish(origin)?)?;
        }
        columns.push(stored);
    }
    writer.write(&columns.finish(origin)?)
}

/// The rows of several batches, side by side.
#[derive(Default)]
struct Columns {
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    append_timestamps: Vec<i64>,
    ids: ByteColumn,
    keys: ByteColumn,
    headers: HeaderColumn,
    values: ByteColumn,
    /// What the topic declares.
    typed: Option<TypedColumns>,
}

impl Columns {
    fn new(origin: &FileOrigin) -> Self {
        let typed = (!origin.columns.is_empty()).then(|| TypedColumns::new(&origin.columns));
        Self { typed, ..Self::default() }
    }

    /// Bytes in memory of a row that has nothing.
    fn row_bytes(&self) -> usize {
        3 * size_of::<i64>() + 4 * size_of::<i32>() + self.typed.as_ref().map_or(0, TypedColumns::row_bytes)
    }

    fn bytes(&self) -> usize {
        let payload =
            self.ids.data.len() + self.keys.data.len() + self.values.data.len() + self.headers.values.data.len();
        payload + self.offsets.len() * self.row_bytes()
    }

    fn bytes_of(&self, stored: &StoredBatch) -> usize {
        stored.batch.payload_bytes() + stored.batch.len() * self.row_bytes()
    }

    fn push(&mut self, stored: &StoredBatch) {
        let StoredBatch { offsets, append_us, batch } = stored;
        let rows = batch.len();
        self.offsets.extend((0..rows).map(|row| offsets.at(row) as i64));
        self.timestamps.extend(batch.timestamps());
        self.append_timestamps.resize(self.append_timestamps.len() + rows, *append_us);
        self.ids.push(batch.id_lens(), batch.ids(), rows);
        self.keys.push(batch.key_lens(), batch.keys(), rows);
        self.values.push(Some(batch.value_lens()), batch.values(), rows);
        self.headers.push(batch);
        if let Some(typed) = &mut self.typed {
            typed.push(batch.value_lens(), batch.values());
        }
    }

    fn finish(self, origin: &FileOrigin) -> Result<RecordBatch, ArrowError> {
        let time =
            |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(self.offsets)),
            time(self.timestamps),
            time(self.append_timestamps),
            Arc::new(self.ids.finish_text()?),
            Arc::new(self.keys.finish_binary()?),
            Arc::new(self.headers.finish()?),
            match origin.values {
                ValueType::Bytes => Arc::new(self.values.finish_binary()?),
                ValueType::Text | ValueType::Json => Arc::new(self.values.finish_text()?),
            },
        ];
        columns.extend(self.typed.into_iter().flat_map(TypedColumns::finish));
        RecordBatch::try_new(schema::schema(origin.values, &origin.columns), columns)
    }
}

/// A column of byte strings in the making.
struct ByteColumn {
    ends: Vec<i32>,
    data: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Default for ByteColumn {
    fn default() -> Self {
        Self { ends: vec![0], data: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }
}

impl ByteColumn {
    /// `None`: every row is null.
    fn push(&mut self, lens: Option<Lens<'_>>, data: &[u8], rows: usize) {
        let mut end = self.data.len() as i32;
        let Some(lens) = lens else {
            self.ends.resize(self.ends.len() + rows, end);
            self.nulls.append_n_nulls(rows);
            return;
        };
        self.data.extend_from_slice(data);
        for len in lens.iter() {
            end += len.unwrap_or(0) as i32;
            self.ends.push(end);
            self.nulls.append(len.is_some());
        }
    }

    fn push_value(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.ends.push(self.data.len() as i32);
        self.nulls.append_non_null();
    }

    fn finish(mut self) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        (OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.data), self.nulls.finish())
    }

    /// What is text was checked to be UTF-8 at the door; it is checked again, so that no reader finds what is not.
    fn finish_text(self) -> Result<StringArray, ArrowError> {
        let (offsets, data, nulls) = self.finish();
        StringArray::try_new(offsets, data, nulls)
    }

    fn finish_binary(self) -> Result<BinaryArray, ArrowError> {
        let (offsets, data, nulls) = self.finish();
        BinaryArray::try_new(offsets, data, nulls)
    }
}

/// Headers in the making: a map for each row, null where there are none.
struct HeaderColumn {
    ends: Vec<i32>,
    names: ByteColumn,
    values: ByteColumn,
    present: BooleanBufferBuilder,
}

impl Default for HeaderColumn {
    fn default() -> Self {
        let present = BooleanBufferBuilder::new(0);
        Self { ends: vec![0], names: ByteColumn::default(), values: ByteColumn::default(), present }
    }
}

impl HeaderColumn {
    fn push(&mut self, batch: &Batch) {
        let end = self.names.ends.len() as i32 - 1;
        let Some(lens) = batch.header_lens() else {
            self.ends.resize(self.ends.len() + batch.len(), end);
            self.present.append_n(batch.len(), false);
            return;
        };
        let mut rest: &[u8] = batch.headers();
        for len in lens.iter() {
            let (encoded, behind) = rest.split_at(len.unwrap_or(0) as usize);
            rest = behind;
            for (name, value) in Headers::new(encoded) {
                self.names.push_value(name.as_bytes());
                self.values.push_value(value);
            }
            self.ends.push(self.names.ends.len() as i32 - 1);
            self.present.append(!encoded.is_empty());
        }
    }

    fn finish(mut self) -> Result<MapArray, ArrowError> {
        let (name_offsets, names, _) = self.names.finish();
        let names: ArrayRef = Arc::new(StringArray::try_new(name_offsets, names, None)?);
        let values: ArrayRef = Arc::new(self.values.finish_binary()?);
        let entries = StructArray::try_new(schema::header_fields(), vec![names, values], None)?;
        let nulls = NullBuffer::new(self.present.finish());
        let ends = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        MapArray::try_new(Arc::new(schema::entries_field()), ends, entries, Some(nulls), false)
    }
}
