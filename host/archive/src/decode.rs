//! A Parquet file as events.

use crate::limits::UNPACKED_BYTES_MAX;
use crate::pages;
use crate::schema::{self, FileOrigin, ROW_GROUP_ROWS_MAX, column};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::SchemaRef;
use bytes::{Buf, Bytes};
use nodata_log::fs::{FsFile, read_exact_at};
use nodata_log::{Batch, BatchBuilder, ColumnRef, Offset, Offsets, Ranges, RowsRef, StoredBatch, TimestampUs};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::arrow::{ArrowSchemaConverter, ProjectionMask};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are decoded at once, at most.
pub const SLICE_ROWS: usize = 8192;

/// Bytes of a file that are in memory, as the Parquet reader wants them.
#[derive(Clone)]
struct Window {
    at: u64,
    bytes: Bytes,
}

impl Window {
    fn read(file: &dyn FsFile, range: Range<u64>) -> Result<Self, ParquetError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        read_exact_at(file, &mut bytes, range.start).map_err(|error| ParquetError::External(error.into()))?;
        Ok(Self { at: range.start, bytes: bytes.into() })
    }

    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// The footer, of which the last four bytes before the magic say how long it is.
    fn footer(&self) -> Result<Bytes, ParquetError> {
        const TAIL_BYTES: u64 = 8;
        let tail = self.end().checked_sub(TAIL_BYTES).ok_or_else(|| wrong("it is too short for a footer"))?;
        let bytes = u64::from(self.get_bytes(tail, 4)?.get_u32_le());
        let start = tail.checked_sub(bytes).ok_or_else(|| wrong(format!("a footer of {bytes} bytes")))?;
        self.get_bytes(start, bytes as usize)
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.end()
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let length = self.end().saturating_sub(start);
        Ok(self.get_bytes(start, length as usize)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|end| *end <= self.end());
        match (start.checked_sub(self.at), end) {
            (Some(from), Some(_)) => Ok(self.bytes.slice(from as usize..from as usize + length)),
            _ => Err(wrong(format!("{length} bytes at {start} of {} to {}", self.at, self.end()))),
        }
    }
}

/// Bytes at the end of a file in which the footer most likely is.
const FOOTER_GUESS_BYTES: u64 = 64 << 10;

/// The library panics here and there on bytes that no writer wrote. A damaged file must not end the task that reads it.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(wrong("it is damaged in a way that the reader did not expect")))
}

/// CRC-32C of the page indexes and the footer of a file: of everything behind its rows.
pub(crate) fn footer_checksum(file: &dyn FsFile, footer_at: u64, bytes: u64) -> io::Result<u32> {
    let mut footer = vec![0; bytes.saturating_sub(footer_at) as usize];
    read_exact_at(file, &mut footer, footer_at)?;
    Ok(crc32c::crc32c(&footer))
}

/// A file that was opened, with its footer.
#[derive(Clone)]
pub struct OpenFile {
    file: Arc<dyn FsFile>,
    bytes: u64,
    metadata: ArrowReaderMetadata,
    origin: FileOrigin,
    groups: Arc<[Group]>,
}

#[derive(Clone, Debug)]
struct Group {
    offsets: Range<Offset>,
    timestamps: (TimestampUs, TimestampUs),
    place: Range<u64>,
    checksum: u32,
}

/// Why a file is not what it should be.
pub(crate) fn wrong(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}

impl OpenFile {
    /// Reads the footer of the first `bytes` of a file. One that grew since is read as it was.
    pub fn open(file: Arc<dyn FsFile>, bytes: u64) -> Result<Self, ParquetError> {
        guarded(|| Self::open_unguarded(file, bytes))
    }

    /// As [`open`](Self::open), for a footer whose checksum nobody knows: it must say what a footer of ours says, and every event
    /// must be where it says it is.
    pub fn open_strictly(file: Arc<dyn FsFile>, bytes: u64) -> Result<Self, ParquetError> {
        guarded(|| {
            let opened = Self::open_unguarded(file, bytes)?;
            opened.check_columns()?;
            Ok(opened)
        })
    }

    /// Checks what only other readers use.
    pub(crate) fn check_page_indexes(&self) -> Result<(), ParquetError> {
        let read = || Self::read_metadata(&*self.file, self.bytes, PageIndexPolicy::Required);
        guarded(read).map(drop)
    }

    fn read_metadata(
        file: &dyn FsFile,
        bytes: u64,
        indexes: PageIndexPolicy,
    ) -> Result<ArrowReaderMetadata, ParquetError> {
        let options = ArrowReaderOptions::new().with_column_index_policy(indexes).with_offset_index_policy(indexes);
        let tail = Window::read(file, bytes.saturating_sub(FOOTER_GUESS_BYTES)..bytes)?;
        let load = |window: &Window| {
            pages::check_footer(&window.footer()?)?;
            ArrowReaderMetadata::load(window, options.clone())
        };
        match load(&tail) {
            Err(_) if tail.at > 0 => load(&Window::read(file, 0..bytes)?),
            loaded => loaded,
        }
    }

    fn open_unguarded(file: Arc<dyn FsFile>, bytes: u64) -> Result<Self, ParquetError> {
        // Page indexes are for other readers. In a file that grew, those of its earlier rows are under no checksum, and one that
        // rotted would have rows of one column stand beside those of another.
        let metadata = Self::read_metadata(&*file, bytes, PageIndexPolicy::Skip)?;
        let about = metadata.metadata().file_metadata();
        let pairs = about.key_value_metadata().map_or([].as_slice(), Vec::as_slice);
        let origin = FileOrigin::from_key_values(pairs).ok_or_else(|| wrong("it was not written by this nodata"))?;
        let known = schema::schema(origin.values, &origin.columns);
        let names = |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        if names(metadata.schema()) != names(&known) {
            return Err(wrong("it has other columns than this nodata writes"));
        }
        let checksums = schema::checksums(about)?;
        if checksums.len() != metadata.metadata().num_row_groups() || checksums.is_empty() {
            let groups = metadata.metadata().num_row_groups();
            return Err(wrong(format!("{groups} row groups and {} checksums", checksums.len())));
        }
        let mut expected = origin.base_offset;
        let mut groups = Vec::new();
        for (group, checksum) in metadata.metadata().row_groups().iter().zip(checksums) {
            let (first, last) = int_statistics(group, column::OFFSET)?;
            let offsets = first as u64..(last as u64).saturating_add(1);
            let place = schema::byte_range(group);
            let place = place.start as u64..place.end as u64;
            let offsets_count = offsets.end.saturating_sub(offsets.start);
            let is_possible = (1..=ROW_GROUP_ROWS_MAX as i64).contains(&group.num_rows());
            if first < 0 || offsets.start < expected || !is_possible || group.num_rows() as u64 > offsets_count {
                return Err(wrong(format!("{} rows at offsets {first} to {last}", group.num_rows())));
            }
            if place.start > place.end || place.end > bytes {
                return Err(wrong(format!("a row group at bytes {} to {} of {bytes}", place.start, place.end)));
            }
            let sizes = group.columns().iter().map(|column| (column.compressed_size(), column.uncompressed_size()));
            let is_possible = sizes.clone().all(|(packed, unpacked)| packed >= 0 && unpacked >= 0);
            let unpacked: i128 = sizes.map(|(_, unpacked)| i128::from(unpacked)).sum();
            if !is_possible || unpacked > i128::from(UNPACKED_BYTES_MAX) {
                return Err(wrong(format!(
                    "a row group of {unpacked} bytes, at most {UNPACKED_BYTES_MAX} are possible"
                )));
            }
            expected = offsets.end;
            let timestamps = int_statistics(group, column::TIMESTAMP)?;
            groups.push(Group { offsets, timestamps, place, checksum });
        }
        let rows: i64 = metadata.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).sum();
        if about.num_rows() != rows {
            return Err(wrong(format!("{} rows, and {rows} in its row groups", about.num_rows())));
        }
        Ok(Self { file, bytes, metadata, origin, groups: groups.into() })
    }

    /// Where the file belongs.
    pub fn origin(&self) -> &FileOrigin {
        &self.origin
    }

    /// The offsets it holds; the end is after the last one.
    pub fn offsets(&self) -> Range<Offset> {
        let end = self.groups.last().map_or(self.origin.base_offset, |group| group.offsets.end);
        self.origin.base_offset..end
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes before the page indexes and the footer.
    pub fn data_bytes(&self) -> u64 {
        self.groups.last().map_or(0, |group| group.place.end)
    }

    pub(crate) fn footer_checksum(&self) -> io::Result<u32> {
        footer_checksum(&*self.file, self.data_bytes(), self.bytes)
    }

    pub fn rows(&self) -> u64 {
        self.metadata.metadata().file_metadata().num_rows() as u64
    }

    pub fn row_groups(&self) -> u32 {
        self.groups.len() as u32
    }

    /// The earliest and the latest timestamp of an event.
    pub fn timestamps(&self) -> (TimestampUs, TimestampUs) {
        let earliest = self.groups.iter().map(|group| group.timestamps.0).min();
        let latest = self.groups.iter().map(|group| group.timestamps.1).max();
        (earliest.unwrap_or_default(), latest.unwrap_or_default())
    }

    /// When the first and the last event were appended.
    pub fn append_timestamps(&self) -> Result<(TimestampUs, TimestampUs), ParquetError> {
        let groups = self.metadata.metadata().row_groups();
        let of = |group: Option<&RowGroupMetaData>| {
            int_statistics(group.ok_or_else(|| wrong("it holds nothing"))?, column::APPEND_TIMESTAMP)
        };
        Ok((of(groups.first())?.0, of(groups.last())?.1))
    }

    /// Bytes of the events as columns, before they were compressed.
    pub fn raw_bytes(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups();
        let columns = groups.iter().flat_map(|group| group.columns().iter().take(column::LEAVES));
        columns.map(|column| column.uncompressed_size().max(0) as u64).sum()
    }

    /// Reads a row group, and checks it.
    fn window(&self, at: usize) -> Result<Window, ParquetError> {
        let group = &self.groups[at];
        let window = Window::read(&*self.file, group.place.clone())?;
        let found = crc32c::crc32c(&window.bytes);
        if found != group.checksum {
            let Range { start, end } = group.place;
            let expected = group.checksum;
            return Err(wrong(format!("bytes {start} to {end}: checksum {found:08x}, the footer says {expected:08x}")));
        }
        Ok(window)
    }

    /// Reads these columns of a row group.
    fn reader(
        &self,
        at: usize,
        columns: impl IntoIterator<Item = usize>,
    ) -> Result<ParquetRecordBatchReaderBuilder<Window>, ParquetError> {
        let window = self.window(at)?;
        for column in self.metadata.metadata().row_group(at).columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let bytes = window.get_bytes(start as u64, column.compressed_size() as usize)?;
            pages::check(&bytes, column.uncompressed_size() as u64)?;
        }
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(window, self.metadata.clone());
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns);
        Ok(reader.with_row_groups(vec![at]).with_batch_size(SLICE_ROWS).with_projection(mask))
    }

    /// Checks every byte that holds an event.
    pub fn check(&self) -> Result<(), ParquetError> {
        (0..self.groups.len()).try_for_each(|at| self.window(at).map(drop))
    }

    /// Columns are of the types that this nodata writes, and lie side by side as it writes them: then what bytes with the right
    /// checksum mean does not depend on anything else that the footer says.
    fn check_columns(&self) -> Result<(), ParquetError> {
        let known = schema::schema(self.origin.values, &self.origin.columns);
        let known = ArrowSchemaConverter::new().convert(&known)?;
        if self.metadata.parquet_schema().root_schema().get_fields() != known.root_schema().get_fields() {
            return Err(wrong("it has columns of other types than this nodata writes"));
        }
        for (group, at) in self.metadata.metadata().row_groups().iter().zip(0..) {
            let mut next = self.groups[at].place.start;
            for column in group.columns() {
                let place = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
                let is_ours = matches!(column.compression(), Compression::ZSTD(_));
                if place < 0 || place as u64 != next || column.compressed_size() < 0 || !is_ours {
                    return Err(wrong(format!("a column at byte {place} where one at byte {next} was written")));
                }
                next += column.compressed_size() as u64;
            }
        }
        Ok(())
    }

    /// All events of a row group, after its bytes were checked.
    pub fn group_events(&self, at: usize) -> Result<Vec<StoredBatch>, ParquetError> {
        let offsets = self.groups[at].offsets.clone();
        let rows = self.rows_of(at);
        let slices = guarded(|| {
            Ok(Slices { reader: Some(self.reader(at, column::EVENT)?.build()?), left: offsets, rows_left: rows })
        })?;
        let mut events: Vec<StoredBatch> = Vec::new();
        for slice in slices {
            events.extend(slice?);
        }
        Ok(events)
    }

    fn rows_of(&self, at: usize) -> u64 {
        self.metadata.metadata().row_group(at).num_rows() as u64
    }

    /// The offsets of a row group, after its bytes were checked. `decodes`: what the footer says of it is not believed.
    pub fn group_offsets(&self, at: usize, decodes: bool) -> Result<Ranges, ParquetError> {
        let Range { start, end } = self.groups[at].offsets;
        if !decodes && end - start == self.rows_of(at) {
            self.window(at)?;
            return Ok((start..end).into());
        }
        let mut offsets = Ranges::default();
        for stored in self.group_events(at)? {
            for row in 0..stored.batch.len() {
                let offset = stored.offsets.at(row);
                offsets.insert(offset..offset + 1);
            }
        }
        Ok(offsets)
    }

    /// Reads on from an offset to the end of its row group, slice by slice. `None`: the file ends before it.
    pub fn events_from(&self, from: Offset) -> Result<Option<Slices>, ParquetError> {
        guarded(|| {
            let at = self.groups.partition_point(|group| group.offsets.end <= from);
            let Some(group) = self.groups.get(at) else { return Ok(None) };
            // Slices begin at multiples of their size, so that two readers are given the same ones. Where offsets have gaps,
            // rows cannot be counted from them, and the row group is read from its start.
            let rows = self.rows_of(at);
            let is_dense = group.offsets.end - group.offsets.start == rows;
            let before = from.saturating_sub(group.offsets.start) / SLICE_ROWS as u64 * SLICE_ROWS as u64;
            let before = if is_dense { before } else { 0 };
            let mut reader = self.reader(at, column::EVENT)?;
            if before > 0 {
                let selection = vec![RowSelector::skip(before as usize), RowSelector::select((rows - before) as usize)];
                reader = reader.with_row_selection(RowSelection::from(selection));
            }
            let left = group.offsets.start + before..group.offsets.end;
            Ok(Some(Slices { reader: Some(reader.build()?), left, rows_left: rows - before }))
        })
    }

    /// The first offset, from `from` on, of an event that is not older than `time`.
    pub fn offset_at(&self, from: Offset, time: TimestampUs) -> Result<Option<Offset>, ParquetError> {
        guarded(|| {
            for (at, group) in self.groups.iter().enumerate() {
                if group.timestamps.1 < time || group.offsets.end <= from {
                    continue;
                }
                // Values are not decoded for this.
                let columns = [column::OFFSET, column::TIMESTAMP];
                for rows in self.reader(at, columns)?.build()? {
                    let rows = rows?;
                    let offsets = rows.column(0).as_primitive::<Int64Type>().values();
                    let timestamps = rows.column(1).as_primitive::<TimestampMicrosecondType>().values();
                    let mut rows = offsets.iter().zip(timestamps);
                    if let Some((offset, _)) = rows.find(|(offset, at)| **offset as u64 >= from && **at >= time) {
                        return Ok(Some(*offset as u64));
                    }
                }
            }
            Ok(None)
        })
    }
}

/// The least and the greatest value of a column of integers, which is never empty and has no nulls.
fn int_statistics(group: &RowGroupMetaData, column: usize) -> Result<(i64, i64), ParquetError> {
    match group.column(column).statistics() {
        Some(Statistics::Int64(values)) => match (values.min_opt(), values.max_opt()) {
            (Some(min), Some(max)) => Ok((*min, *max)),
            _ => Err(wrong("a row group without statistics")),
        },
        _ => Err(wrong("a row group without statistics")),
    }
}

/// Events of a row group, slice by slice. Their offsets increase, and are those that the footer says.
pub struct Slices {
    reader: Option<ParquetRecordBatchReader>,
    /// Where the offsets of the others are.
    left: Range<Offset>,
    rows_left: u64,
}

impl Slices {
    fn check(&mut self, slice: &[StoredBatch]) -> Result<(), ParquetError> {
        for stored in slice {
            let (first, last) = (stored.first(), stored.last());
            let Range { start, end } = self.left;
            if first < start || last >= end {
                return Err(wrong(format!(
                    "events at offsets {first} to {last} where those from {start} to {end} are"
                )));
            }
            self.left.start = last + 1;
            self.rows_left = self.rows_left.saturating_sub(stored.batch.len() as u64);
        }
        Ok(())
    }
}

impl Iterator for Slices {
    type Item = Result<Vec<StoredBatch>, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Taken out, because after an error it would give the same error again, for ever.
        let mut reader = self.reader.take()?;
        let Some(slice) = guarded(|| reader.next().map(|rows| to_batches(&rows?)).transpose()).transpose() else {
            let is_whole = self.left.is_empty() && self.rows_left == 0;
            return (!is_whole).then(|| Err(wrong(format!("it ends before offset {}", self.left.start))));
        };
        let slice = slice.and_then(|slice| self.check(&slice).map(|()| slice));
        self.reader = slice.is_ok().then_some(reader);
        Some(slice)
    }
}

/// One batch for all rows that were appended at the same moment.
fn to_batches(rows: &RecordBatch) -> Result<Vec<StoredBatch>, ParquetError> {
    let offsets = rows.column(column::OFFSET).as_primitive::<Int64Type>().values();
    let timestamps = rows.column(column::TIMESTAMP).as_primitive::<TimestampMicrosecondType>().values();
    let appended = rows.column(column::APPEND_TIMESTAMP).as_primitive::<TimestampMicrosecondType>().values();
    let ids = Bytes32::of(rows.column(column::ID))?;
    let keys = Bytes32::of(rows.column(column::KEY))?;
    let values = Bytes32::of(rows.column(column::VALUE))?;
    let headers = rows.column(column::HEADERS);
    let has_headers = headers.null_count() < headers.len();
    let headers = if has_headers { Some(encode_headers(headers)?) } else { None };
    let view = RowsRef {
        ids: ids.column(),
        keys: keys.column(),
        values: values.always(),
        timestamps_us: Some(timestamps),
        headers: headers.as_ref().map(|(offsets, data)| ColumnRef { offsets, data, validity: &[] }),
    };
    if offsets.iter().any(|offset| *offset < 0) || !offsets.is_sorted_by(|one, next| one < next) {
        return Err(wrong("offsets do not increase"));
    }
    let mut batches = Vec::new();
    let mut start = 0;
    while start < rows.num_rows() {
        let same = appended[start..].iter().take_while(|at| **at == appended[start]).count();
        let range = start..start + same;
        let first = offsets[start] as u64;
        let is_dense = offsets[range.end - 1] as u64 - first == (same - 1) as u64;
        let offsets = if is_dense {
            Offsets::From(first)
        } else {
            Offsets::Each(offsets[range.clone()].iter().map(|offset| *offset as u64).collect())
        };
        let batch = to_batch(&view, range)?;
        batches.push(StoredBatch { offsets, append_us: appended[start], batch });
        start += same;
    }
    Ok(batches)
}

fn to_batch(view: &RowsRef<'_>, range: Range<usize>) -> Result<Batch, ParquetError> {
    let mut builder = BatchBuilder::new(view.timestamps_us.map_or(0, |timestamps| timestamps[range.start]));
    builder.push_rows(view, range);
    builder.finish().map_err(|error| wrong(error.to_string()))
}

/// A column of bytes or text with offsets of 32 bits.
struct Bytes32<'a> {
    offsets: Vec<u32>,
    data: &'a [u8],
    validity: Vec<u8>,
    is_all_null: bool,
}

impl<'a> Bytes32<'a> {
    fn of(array: &'a ArrayRef) -> Result<Self, ParquetError> {
        let (offsets, data, nulls): (&[i32], &[u8], Option<&NullBuffer>) =
            if let Some(bytes) = array.as_binary_opt::<i32>() {
                (bytes.value_offsets(), bytes.value_data(), bytes.nulls())
            } else if let Some(text) = array.as_string_opt::<i32>() {
                (text.value_offsets(), text.value_data(), text.nulls())
            } else {
                return Err(wrong(format!("a column of {}", array.data_type())));
            };
        let validity = match nulls {
            Some(nulls) if nulls.null_count() > 0 => nulls.inner().sliced().as_slice().to_vec(),
            _ => Vec::new(),
        };
        let is_all_null = array.null_count() == array.len();
        let offsets = offsets.iter().map(|offset| *offset as u32).collect();
        Ok(Self { offsets, data, validity, is_all_null })
    }

    fn always(&self) -> ColumnRef<'_> {
        ColumnRef { offsets: &self.offsets, data: self.data, validity: &self.validity }
    }

    fn column(&self) -> Option<ColumnRef<'_>> {
        (!self.is_all_null).then(|| self.always())
    }
}

/// Headers as a batch holds them: offsets of rows, and bytes.
fn encode_headers(array: &ArrayRef) -> Result<(Vec<u32>, Vec<u8>), ParquetError> {
    let map = array.as_map_opt().ok_or_else(|| wrong(format!("headers of {}", array.data_type())))?;
    let names = map.keys().as_string_opt::<i32>().ok_or_else(|| wrong("header names are not text"))?;
    let values = map.values().as_binary_opt::<i32>().ok_or_else(|| wrong("header values are not bytes"))?;
    let mut offsets = Vec::with_capacity(map.len() + 1);
    let mut data = Vec::new();
    offsets.push(0);
    for row in 0..map.len() {
        if map.is_valid(row) {
            let ends = map.value_offsets();
            for entry in ends[row] as usize..ends[row + 1] as usize {
                nodata_log::event::put_header(&mut data, names.value(entry), values.value(entry));
            }
        }
        offsets.push(data.len() as u32);
    }
    Ok((offsets, data))
}
