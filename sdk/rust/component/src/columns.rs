//! Events as columns: what crosses between a component and its host.

/// Byte strings, one for each row. Element `row` is `data[offsets[row] .. offsets[row + 1]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BytesColumn {
    /// One more than there are rows, from 0 to the length of `data`.
    pub offsets: Vec<u32>,
    /// The elements, one after the other.
    pub data: Vec<u8>,
    /// One bit for each row, the lowest first; 0 is a null. Empty: no nulls.
    pub validity: Vec<u8>,
}

impl BytesColumn {
    /// `None` is a null.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.as_ref().get(row)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    #[inline]
    pub(crate) fn as_ref(&self) -> BytesColumnRef<'_> {
        BytesColumnRef { offsets: &self.offsets, data: &self.data, validity: &self.validity }
    }
}

/// The headers of all rows. Those of one row are the elements `row_offsets[row] .. row_offsets[row + 1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadersColumn {
    /// One more than there are rows.
    pub row_offsets: Vec<u32>,
    /// UTF-8, without nulls.
    pub names: BytesColumn,
    /// Without nulls.
    pub values: BytesColumn,
}

impl HeadersColumn {
    /// The elements of a row.
    #[inline]
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.row_offsets[row] as usize..self.row_offsets[row + 1] as usize
    }
}

/// A [`BytesColumn`] that lies somewhere else.
#[derive(Clone, Copy, Debug)]
pub struct BytesColumnRef<'a> {
    pub offsets: &'a [u32],
    pub data: &'a [u8],
    pub validity: &'a [u8],
}

impl<'a> BytesColumnRef<'a> {
    /// `None` is a null.
    #[inline]
    pub fn get(self, row: usize) -> Option<&'a [u8]> {
        if !self.validity.is_empty() && self.validity[row / 8] & 1 << (row % 8) == 0 {
            return None;
        }
        Some(&self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize])
    }
}

/// A [`HeadersColumn`] that lies somewhere else.
#[derive(Clone, Copy, Debug)]
pub struct HeadersColumnRef<'a> {
    pub row_offsets: &'a [u32],
    pub names: BytesColumnRef<'a>,
    pub values: BytesColumnRef<'a>,
}

/// Many events that lie somewhere else.
#[derive(Clone, Copy, Debug)]
pub struct ColumnsRef<'a> {
    pub ids: Option<BytesColumnRef<'a>>,
    pub keys: BytesColumnRef<'a>,
    pub values: BytesColumnRef<'a>,
    pub timestamps: &'a [i64],
    pub headers: Option<HeadersColumnRef<'a>>,
}
