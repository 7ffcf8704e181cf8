//! The work that the benchmark measures: drops debug lines, writes the level in capitals and hides the user.
//!
//! The benchmark compiles this file for its own machine too, so that both sides do the same.

/// Writes what becomes of a line behind `out`; answers with `false`, and writes nothing, when the line is dropped.
#[inline]
pub fn rewrite(line: &[u8], out: &mut Vec<u8>) -> bool {
    if line.starts_with(b"debug ") {
        return false;
    }
    let level_end = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    let start = out.len();
    out.extend_from_slice(&line[..level_end]);
    out[start..].make_ascii_uppercase();
    let mut rest = &line[level_end..];
    if let Some(at) = find(rest, b" user=") {
        let start = at + b" user=".len();
        out.extend_from_slice(&rest[..start]);
        out.extend_from_slice(b"***");
        let len = rest[start..].iter().position(|&byte| byte == b' ').unwrap_or(rest.len() - start);
        rest = &rest[start + len..];
    }
    out.extend_from_slice(rest);
    true
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    haystack.iter().enumerate().position(|(at, &byte)| byte == first && haystack[at..].starts_with(needle))
}

/// Rewrites a column of lines; answers with the rows that were kept.
pub fn rewrite_column(offsets: &[u32], data: &[u8], out_offsets: &mut Vec<u32>, out: &mut Vec<u8>) -> Vec<u32> {
    let mut kept = Vec::with_capacity(offsets.len());
    out_offsets.reserve(offsets.len());
    out.reserve(data.len());
    out_offsets.push(0);
    for (row, pair) in offsets.windows(2).enumerate() {
        if rewrite(&data[pair[0] as usize..pair[1] as usize], out) {
            out_offsets.push(out.len() as u32);
            kept.push(row as u32);
        }
    }
    kept
}
