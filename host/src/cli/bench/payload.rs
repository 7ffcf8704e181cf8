//! Events to measure with, each different, of exactly one size.

use bytes::Bytes;

/// Different events; then they come again.
const DIFFERENT: usize = 4096;

/// Events of this many bytes.
pub(crate) fn events(bytes: usize) -> Vec<Bytes> {
    (0..DIFFERENT).map(|number| event(number, bytes)).collect()
}

/// Lines of a log, as the component that is measured reads them, of this many bytes.
pub(crate) fn lines(bytes: usize) -> Vec<Bytes> {
    let line = |number: usize| {
        let mixed = mix(number);
        let begin = format!("info host=web-{} user=u{} path=/item/{:x} agent=", mixed >> 58, mixed >> 40, mixed >> 20);
        filled(begin, "", bytes, mixed)
    };
    (0..DIFFERENT).map(line).collect()
}

fn mix(number: usize) -> u64 {
    (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn event(number: usize, bytes: usize) -> Bytes {
    let mixed = mix(number);
    let begin = format!(
        r#"{{"n":{number},"ip":"10.{}.{}.{}","path":"/item/{:x}","status":200,"agent":""#,
        mixed >> 56,
        mixed >> 48 & 0xff,
        mixed >> 40 & 0xff,
        mixed >> 20 & 0xfffff,
    );
    filled(begin, r#""}"#, bytes, mixed)
}

/// This text with letters behind it, up to its size.
fn filled(mut text: String, end: &str, bytes: usize, mut letter: u64) -> Bytes {
    while text.len() + end.len() < bytes {
        letter = letter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push(char::from(b'a' + (letter >> 59) as u8 % 26));
    }
    text.push_str(end);
    text.truncate(bytes);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_of_one_size_and_different() {
        for bytes in [100, 1024] {
            let events = events(bytes);
            assert!(events.iter().all(|event| event.len() == bytes));
            assert!(events.iter().all(|event| serde_json::from_slice::<serde_json::Value>(event).is_ok()));
            let different: std::collections::BTreeSet<&Bytes> = events.iter().collect();
            assert_eq!(different.len(), events.len());
        }
    }
}
