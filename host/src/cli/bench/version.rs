//! Other versions of a component: the same code, and another digest.

use bytes::Bytes;

/// The component with something in it that nobody reads.
pub(crate) fn another_version(of: &Bytes, number: usize) -> Bytes {
    // A section of no meaning: its number, its length, and the length of its name, which is all of it.
    let name = format!("measured as {number}");
    let mut file = of.to_vec();
    file.extend([0, name.len() as u8 + 1, name.len() as u8]);
    file.extend(name.as_bytes());
    file.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_whole_and_another() {
        let empty = Bytes::from_static(b"\0asm\x0d\0\x01\0");
        let (one, two) = (another_version(&empty, 1), another_version(&empty, 2));
        assert_ne!(one, two);
        assert_eq!(one[empty.len()..], *b"\0\x0e\x0dmeasured as 1");
    }
}
