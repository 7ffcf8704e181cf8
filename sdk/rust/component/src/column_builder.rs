//! A column that is being written.

use crate::columns::BytesColumnRef;

/// A [`BytesColumn`](crate::columns::BytesColumn) that grows at its end.
///
/// It is in one of two states. As long as every row was a null it holds nothing at all, so that a column nobody uses
/// costs nothing; from the first element on it has offsets, and from the first null on a bit for each row.
///
/// The element that is being written lies in `data` behind the last offset, until its row is finished.
#[derive(Debug, Default)]
pub(crate) struct BytesColumnBuilder {
    pub(crate) offsets: Vec<u32>,
    pub(crate) data: Vec<u8>,
    pub(crate) validity: Vec<u8>,
}

impl BytesColumnBuilder {
    /// Whether any row holds an element.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        !self.offsets.is_empty()
    }

    /// Where the element that is being written starts.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.offsets.last().map_or(0, |&end| end as usize)
    }

    /// The element that is being written.
    #[inline]
    pub(crate) fn pending(&self) -> &[u8] {
        &self.data[self.end()..]
    }

    /// Forgets the element that is being written.
    #[inline]
    pub(crate) fn discard_pending(&mut self) {
        let end = self.end();
        self.data.truncate(end);
    }

    /// Ends row number `row` with the element that was written.
    #[inline]
    pub(crate) fn finish_element(&mut self, row: usize) {
        if self.offsets.is_empty() {
            self.begin_use(row);
        }
        // Rows are handed to the host long before four gigabytes, see `outbox::FLUSH_BYTES`.
        self.offsets.push(self.data.len() as u32);
        if !self.validity.is_empty() {
            self.push_bit(row, true);
        }
    }

    /// Ends row number `row` with a null.
    #[inline]
    pub(crate) fn finish_null(&mut self, row: usize) {
        if self.offsets.is_empty() {
            return;
        }
        self.offsets.push(self.data.len() as u32);
        if self.validity.is_empty() {
            fill_bits(&mut self.validity, row, true);
        }
        self.push_bit(row, false);
    }

    /// The first element: the rows before it are nulls.
    #[cold]
    fn begin_use(&mut self, row: usize) {
        self.offsets.resize(row + 1, 0);
        if row > 0 {
            fill_bits(&mut self.validity, row, false);
        }
    }

    #[inline]
    fn push_bit(&mut self, row: usize, bit: bool) {
        if row.is_multiple_of(8) {
            self.validity.push(0);
        }
        if bit && let Some(last) = self.validity.last_mut() {
            *last |= 1 << (row % 8);
        }
    }

    /// Makes a column of nulls of one that nobody used, for where the contract asks for a column.
    pub(crate) fn fill_with_nulls(&mut self, rows: usize) {
        self.offsets.resize(rows + 1, 0);
        fill_bits(&mut self.validity, rows, false);
    }

    /// Forgets everything and keeps its memory, but not more than `bytes_max` of it.
    pub(crate) fn clear(&mut self, bytes_max: usize) {
        self.offsets.clear();
        self.validity.clear();
        self.data.clear();
        if self.data.capacity() > bytes_max {
            self.data = Vec::new();
        }
    }

    pub(crate) fn as_column(&self) -> BytesColumnRef<'_> {
        BytesColumnRef { offsets: &self.offsets, data: &self.data[..self.end()], validity: &self.validity }
    }
}

/// Makes `bits` a bitmap of this many equal bits. Those behind the last one are 0.
fn fill_bits(bits: &mut Vec<u8>, count: usize, bit: bool) {
    bits.clear();
    bits.resize(count.div_ceil(8), if bit { u8::MAX } else { 0 });
    if bit
        && !count.is_multiple_of(8)
        && let Some(last) = bits.last_mut()
    {
        *last = (1 << (count % 8)) - 1;
    }
}
