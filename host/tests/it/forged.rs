//! Components that no toolchain makes: what they say of their own memory is not so, or there is too much of something in them.

/// What every transform that is made here imports and exports, around a core module. Its function `process` is given two handles and
/// answers with an address, at which the answer lies: a byte that says that it failed, a byte that says how, and where its words are.
fn transformer(module: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(component
            (import "nodata:streaming/types@0.1.0" (instance $types
                (export "batch" (type (sub resource)))
                (export "collector" (type $collector (sub resource)))
                (type $error-is (variant (case "transient" string) (case "permanent" string)))
                (export "error" (type (eq $error-is)))
                (type $emit-error-is (variant (case "unknown-port" string) (case "budget-exceeded") (case "invalid" string)))
                (export "emit-error" (type $emit-error (eq $emit-error-is)))
                (export "[method]collector.forward" (func (param "self" (borrow $collector)) (param "port" string)
                    (param "rows" (list u32)) (result (result (error $emit-error)))))))
            (alias export $types "batch" (type $batch))
            (alias export $types "collector" (type $collector))
            (alias export $types "error" (type $error))
            (alias export $types "[method]collector.forward" (func $forward))
            (core module $memory
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
            (core instance $memory (instantiate $memory))
            (core func $forward (canon lower (func $forward)
                (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
            (core func $drop-batch (canon resource.drop $batch))
            (core func $drop-collector (canon resource.drop $collector))
            (core module $evil
                (import "host" "memory" (memory 1))
                (import "host" "forward" (func $forward (param i32 i32 i32 i32 i32 i32)))
                (import "host" "drop-batch" (func $drop-batch (param i32)))
                (import "host" "drop-collector" (func $drop-collector (param i32)))
                (func $drop (param i32 i32)
                    (call $drop-batch (local.get 0))
                    (call $drop-collector (local.get 1)))
                {module})
            (core instance $evil (instantiate $evil (with "host" (instance
                (export "memory" (memory $memory "memory"))
                (export "forward" (func $forward))
                (export "drop-batch" (func $drop-batch))
                (export "drop-collector" (func $drop-collector))))))
            (func $process (param "input" (borrow $batch)) (param "out" (borrow $collector))
                (result (result (error $error)))
                (canon lift (core func $evil "process") (memory (core memory $memory "memory"))))
            (instance $transformer (export "process" (func $process)))
            (export "nodata:streaming/transformer@0.1.0" (instance $transformer)))"#
    ))
    .unwrap()
}

/// A transform that does this in its call, and answers at an address. Its handles are `$input` and `$out`; at 16 lie these bytes.
fn answers(does: &str, address: u32, bytes: &[u8]) -> Vec<u8> {
    let bytes: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let address = address.cast_signed();
    transformer(&format!(
        r#"(data (i32.const 16) "{bytes}")
           (func (export "process") (param $input i32) (param $out i32) (result i32) {does} (i32.const {address}))"#
    ))
}

/// Gives back what a call was lent.
const DROP: &str = "(call $drop (local.get $input) (local.get $out))";

/// Where an answer lies that says that all is well.
const WELL: u32 = 512;

/// A transform that answers at an address; at 16 lie these bytes.
pub(crate) fn answers_at(address: u32, bytes: &[u8]) -> Vec<u8> {
    answers(DROP, address, bytes)
}

/// A transform that fails, with words that are so many bytes at an address. At 32 are some that are no text.
pub(crate) fn fails_with_words_at(address: u32, bytes: u32) -> Vec<u8> {
    let answer = [&[1, 0, 0, 0, 1, 0, 0, 0][..], &address.to_le_bytes(), &bytes.to_le_bytes(), &[0xff, 0xfe, 0xc0]];
    answers_at(16, &answer.concat())
}

/// A transform that does this with its handles, and does not give them back.
pub(crate) fn does(what: &str) -> Vec<u8> {
    answers(what, WELL, &[])
}

/// A transform that forwards: with this handle, to a port whose name is so many bytes at an address, so many rows at an address. The
/// answer is to be written at the last.
pub(crate) fn forwards(handle: &str, port: (u32, u32), rows: (u32, u32), to: u32) -> Vec<u8> {
    let numbers: String =
        [port.0, port.1, rows.0, rows.1, to].iter().map(|n| format!("(i32.const {})", n.cast_signed())).collect();
    does(&format!("(i32.store (i32.const 0) (i32.const 0xc0ff)) (call $forward {handle} {numbers}) {DROP}"))
}

/// A transform that has this in its module too, and does nothing.
pub(crate) fn has(what: &str) -> Vec<u8> {
    let process = format!("(param $input i32) (param $out i32) (result i32) {DROP} (i32.const {WELL})");
    transformer(&format!(r#"{what} (func (export "process") {process})"#))
}

/// A transform that does this when it is started.
pub(crate) fn starts_with(what: &str) -> Vec<u8> {
    has(&format!("(func $start {what}) (start $start)"))
}

/// A component in the text format.
pub(crate) fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}
