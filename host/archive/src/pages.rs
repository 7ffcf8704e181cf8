//! What pages and footers say about their sizes, before it is believed.
//!
//! The library makes room for as many bytes as the header of a page says it has when it is unpacked, and reads as many elements of a
//! list as the list says it has. What is damaged is found by its checksum, so this only matters for what was written wrong; then it
//! must be an error, and neither the end of the process nor an hour of its time.

use crate::decode::wrong;
use parquet::errors::ParquetError;

/// Fields of a page header, by the numbers that they have in `parquet.thrift`.
const UNCOMPRESSED_SIZE: i16 = 2;
const COMPRESSED_SIZE: i16 = 3;

/// Structs and lists in each other. A column in a row group has statistics in its metadata.
const DEPTH_MAX: u32 = 16;

/// In a footer, the columns; in one of those, how many of the next are within it.
const SCHEMA: i16 = 2;
const NUM_CHILDREN: i16 = 5;

/// Checks that a footer is as long as it says: each element of a list has at least one byte, and a column has no more columns in it
/// than there are.
pub fn check_footer(footer: &[u8]) -> Result<(), ParquetError> {
    Compact(footer).footer().ok_or_else(|| wrong("a footer that ends before it should"))
}

/// The type of a struct.
const STRUCT: u8 = 12;

/// Checks that the pages of a column, all of its bytes, fit into it and are no more than this when they are unpacked.
pub(crate) fn check(column: &[u8], uncompressed_max: u64) -> Result<(), ParquetError> {
    let mut rest = Compact(column);
    let mut unpacked = 0u64;
    while !rest.0.is_empty() {
        let (uncompressed, compressed) = rest.page_header().ok_or_else(|| wrong("a page without a header"))?;
        unpacked = unpacked.saturating_add(uncompressed);
        let Some(behind) = rest.0.get(compressed as usize..).filter(|_| unpacked <= uncompressed_max) else {
            let bytes = rest.0.len();
            return Err(wrong(format!(
                "a page of {compressed} bytes, {uncompressed} when unpacked, where there are {bytes} and {uncompressed_max}"
            )));
        };
        rest.0 = behind;
    }
    Ok(())
}

/// Bytes in the compact protocol of Thrift, as its specification has it, as far as a page header needs it.
struct Compact<'a>(&'a [u8]);

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip(&mut self, count: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// The next field of a struct, and its type; a field of 0 is the end.
    fn field(&mut self, last: i16) -> Option<(i16, u8)> {
        let byte = self.byte()?;
        match (byte >> 4, byte & 0x0f) {
            (_, 0) => Some((0, 0)),
            (0, kind) => Some((i16::try_from(self.zigzag()?).ok()?, kind)),
            (delta, kind) => Some((last.checked_add(i16::from(delta))?, kind)),
        }
    }

    /// Unpacked and packed bytes of the page behind the header.
    fn page_header(&mut self) -> Option<(u64, u64)> {
        let (mut uncompressed, mut compressed, mut last) = (None, None, 0);
        loop {
            let (field, kind) = self.field(last)?;
            match (field, kind) {
                (0, _) => return Some((uncompressed?, compressed?)),
                (UNCOMPRESSED_SIZE, 5) => uncompressed = Some(u64::try_from(self.zigzag()?).ok()?),
                (COMPRESSED_SIZE, 5) => compressed = Some(u64::try_from(self.zigzag()?).ok()?),
                (_, kind) => self.value(kind, DEPTH_MAX)?,
            }
            last = field;
        }
    }

    fn footer(&mut self) -> Option<()> {
        let mut last = 0;
        loop {
            let (field, kind) = self.field(last)?;
            match (field, kind) {
                (0, _) => return Some(()),
                (SCHEMA, 9) => {
                    let (count, kind) = self.list()?;
                    for _ in 0..count {
                        (kind == STRUCT).then_some(())?;
                        self.schema_element(count)?;
                    }
                }
                (_, kind) => self.value(kind, DEPTH_MAX)?,
            }
            last = field;
        }
    }

    fn schema_element(&mut self, count: u64) -> Option<()> {
        let mut last = 0;
        loop {
            let (field, kind) = self.field(last)?;
            match (field, kind) {
                (0, _) => return Some(()),
                (NUM_CHILDREN, 5) => {
                    u64::try_from(self.zigzag()?).ok().filter(|children| *children <= count)?;
                }
                (_, kind) => self.value(kind, DEPTH_MAX)?,
            }
            last = field;
        }
    }

    /// How many elements a list has, and of what kind.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        Some((count, head & 0x0f))
    }

    /// Passes over a value of a field.
    fn value(&mut self, kind: u8, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // True and false are in the type.
            1 | 2 => Some(()),
            3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => {
                let bytes = self.varint()?;
                self.skip(bytes)
            }
            // An element is as long as what it is, and a truth value has a byte here.
            9 | 10 => {
                let (count, kind) = self.list()?;
                self.elements(count, &[kind], depth)
            }
            11 => match self.varint()? {
                0 => Some(()),
                count => {
                    let kinds = self.byte()?;
                    self.elements(count, &[kinds >> 4, kinds & 0x0f], depth)
                }
            },
            STRUCT => {
                let mut last = 0;
                loop {
                    let (field, kind) = self.field(last)?;
                    if field == 0 {
                        return Some(());
                    }
                    self.value(kind, depth)?;
                    last = field;
                }
            }
            _ => None,
        }
    }

    /// Passes over the elements of a list, or over the keys and values of a map.
    fn elements(&mut self, count: u64, kinds: &[u8], depth: u32) -> Option<()> {
        if count > self.0.len() as u64 {
            return None;
        }
        for _ in 0..count {
            for kind in kinds {
                match kind {
                    1 | 2 => self.skip(1)?,
                    kind => self.value(*kind, depth)?,
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of these sizes, with a data page header that has statistics, as a writer of the format writes it.
    fn header(uncompressed: u8, compressed: u8) -> Vec<u8> {
        let data_page = [0x15, 2, 0x15, 0, 0x15, 6, 0x15, 6, 0x1c, 0x36, 0, 0x28, 2, b'a', b'b', 0x11, 0, 0];
        [&[0x15, 0, 0x15, uncompressed * 2, 0x15, compressed * 2, 0x2c][..], &data_page, &[0]].concat()
    }

    #[test]
    fn pages_are_walked_and_their_sizes_added_up() {
        let column = [header(10, 3), vec![1, 2, 3], header(20, 1), vec![4]].concat();
        assert!(check(&column, 30).is_ok());
        assert!(check(&column, 29).is_err(), "more than there may be");
        assert!(check(&column[..column.len() - 1], 30).is_err(), "a page is cut");
        assert!(check(&column[..7], 30).is_err(), "a header is cut");
        assert!(check(&[], 0).is_ok());
    }

    #[test]
    fn lists_are_no_longer_than_their_bytes() {
        // A struct with a list of 32-bit numbers.
        assert!(check_footer(&[0x19, 0x25, 2, 4, 0]).is_ok());
        assert!(check_footer(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0x07, 2, 4, 0]).is_err());
        // One of truth values, and a map.
        assert!(check_footer(&[0x19, 0x21, 1, 2, 0]).is_ok());
        assert!(check_footer(&[0x1b, 1, 0x58, 2, 1, b'a', 0]).is_ok());
        assert!(check_footer(&[0x1b, 9, 0x58, 2, 1, b'a', 0]).is_err());
    }

    #[test]
    fn a_column_has_no_more_columns_than_there_are() {
        // A list of two columns, of which the first has the second in it, or more.
        let footer = |children: u8| [0x29, 0x2c, 0x55, children * 2, 0, 0x15, 2, 0, 0];
        assert!(check_footer(&footer(1)).is_ok());
        assert!(check_footer(&footer(3)).is_err());
    }

    #[test]
    fn nesting_has_an_end() {
        assert!(check(&[0x1c; 1000], 1).is_err());
    }
}
