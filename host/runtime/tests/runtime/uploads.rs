//! What is accepted as a component, and what the others are told.

use crate::harness::{guest, runtime};
use bytes::Bytes;
use nodata_log::ErrorKind;
use nodata_runtime::{AcceptError, Digest, Role};

async fn refused(bytes: impl Into<Bytes>) -> AcceptError {
    match runtime().accept(bytes.into()).await {
        Ok((info, _)) => panic!("accepted: {info:?}"),
        Err(error) => error,
    }
}

/// The file is refused with this text, and the hint holds this.
async fn check(bytes: impl Into<Bytes>, expected: &str, hint: &str) {
    let error = refused(bytes).await;
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// A component in the text format is refused with this text.
async fn check_text(text: &str, expected: &str) {
    check(wat::parse_str(text).unwrap(), expected, "").await;
}

#[tokio::test]
async fn a_component_is_accepted_and_described() {
    let file = guest("tells-facts");
    let (info, program) = runtime().accept(file.clone()).await.unwrap();
    assert_eq!(info.digest, Digest::of(&file));
    assert_eq!(program.digest(), info.digest);
    assert_eq!(info.bytes, file.len() as u64);
    assert_eq!(info.roles, [Role::Transform]);
    assert_eq!(info.contract, "0.1.0");
    assert_eq!(info.exports, ["nodata:streaming/transformer@0.1.0"]);
    assert!(info.imports.contains(&"nodata:streaming/types@0.1.0".to_owned()), "{:?}", info.imports);
    assert!(info.imports.iter().any(|import| import.starts_with("wasi:clocks/wall-clock@0.2.")), "{:?}", info.imports);
    assert!(info.wit.contains("export nodata:streaming/transformer@0.1.0;"), "{}", info.wit);
    assert!(info.wit.contains("process: func(input: borrow<batch>, out: borrow<collector>)"), "{}", info.wit);
}

#[tokio::test]
async fn what_is_not_wasm_is_told_what_it_looks_like() {
    let not = |what: &str| format!("this is not a WebAssembly component; it looks like {what}");
    check("", "the file is empty", "upload the .wasm file").await;
    check("hello\n", &not("text"), "upload the .wasm file").await;
    check("{\"a\": 1}", &not("JSON"), "").await;
    check("<!doctype html>", &not("HTML or XML"), "").await;
    check("#!/bin/sh\n", &not("a script"), "").await;
    check(vec![0x1f, 0x8b, 8, 0], &not("a file compressed with gzip"), "").await;
    check(vec![7; 100], &not("some other binary file"), "").await;
    check(std::fs::read("/proc/self/exe").unwrap()[..1000].to_vec(), &not("a program for Linux (ELF)"), "").await;
    let mut tar = vec![b'a'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    check(tar, &not("a tar archive"), "").await;
    check(b"\0asm\x02\0\0\0".to_vec(), "this is WebAssembly of a version that is neither a module nor a component", "")
        .await;
}

#[tokio::test]
async fn other_kinds_of_wasm_are_told_how_to_become_one() {
    check(" ;; a comment\n(component)", "this is WebAssembly in its text format", "wasm-tools parse").await;
    let module = wat::parse_str("(module)").unwrap();
    check(module, "this is a core WebAssembly module, not a component", "wasm-tools component new").await;
    let compiled = wasmtime::Engine::default().precompile_component(b"\0asm\x0d\0\x01\0").unwrap();
    check(compiled, "this is machine code that wasmtime made of a component (.cwasm)", "upload the .wasm file").await;
}

#[tokio::test]
async fn a_file_has_a_largest_size() {
    let expected = "the file has 67108865 bytes; a component may have 67108864 (64 MiB)";
    check(vec![0; (64 << 20) + 1], expected, "wasm-tools strip").await;
}

#[tokio::test]
async fn what_is_not_valid_is_told_where() {
    let mut cut = guest("tells-facts").to_vec();
    cut.truncate(5000);
    let error = refused(cut).await.to_string();
    assert!(error.starts_with("the component is not valid: ") && error.contains("(at byte "), "{error}");

    // Proposals that are left out.
    let memory64 = "(component (core module (memory i64 1)))";
    let threads = "(component (core module (memory 1 1 shared)))";
    let gc = "(component (core module (type (struct))))";
    let exceptions = "(component (core module (tag)))";
    let externref = "(component (core module (func (param externref))))";
    for text in [memory64, threads, gc, exceptions, externref] {
        let error = refused(wat::parse_str(text).unwrap()).await.to_string();
        assert!(error.starts_with("the component is not valid: "), "{text}: {error}");
    }
}

#[tokio::test]
async fn structure_is_bounded() {
    let nested = |depth| format!("{}{}", "(component ".repeat(depth), ")".repeat(depth));
    let expected = "the component has 17 levels of components in components, at most 16 are allowed";
    check_text(&nested(17), expected).await;
    let text = format!("(component {})", "(core module)".repeat(256));
    check_text(&text, "the component has 257 modules and components, at most 256 are allowed").await;
    let text = format!("(component (core module {}))", "(func)".repeat(200_001));
    check_text(&text, "the component has 200001 functions, at most 200000 are allowed").await;
    let text = format!("(component (core module (func {})))", "nop ".repeat(2 << 20));
    check_text(&text, "the component has 2097154 bytes in one function, at most 2097152 are allowed").await;
    let text = format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(201));
    check_text(&text, "the component has 201 instances, at most 200 are allowed").await;
    let imports: String = (0..10_001).map(|n| format!("(import \"f{n}\" (func))")).collect();
    check_text(&format!("(component {imports})"), "the component has 10001 imports, at most 10000 are allowed").await;
    let data = "(data (i32.const 0) \"\")".repeat(100_001);
    let expected = "the component has 100001 data segments, at most 100000 are allowed";
    check_text(&format!("(component (core module (memory 1) {data}))"), expected).await;
}

#[tokio::test]
async fn a_component_that_is_nothing_for_us_is_told_what_to_be() {
    let hint = "export `nodata:streaming/transformer@0.1.0` (world `transform`) or \
                `nodata:streaming/sink-writer@0.1.0` (world `sink`) or `nodata:streaming/source-reader@0.1.0` (world `source`) or \
                `nodata:streaming/aggregator@0.1.0` (world `aggregate`)";
    let nothing = wat::parse_str("(component)").unwrap();
    check(nothing, "the component exports nothing, which is nothing that this host runs", hint).await;
    let other = "(component (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)) (export \"x\" (instance $i)))";
    let expected = "the component exports wasi:cli/run@0.2.0, x, which is nothing that this host runs";
    check(wat::parse_str(other).unwrap(), expected, hint).await;
}

/// A component that exports an instance without anything under this name, after these imports.
fn exports(name: &str, imports: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {imports} (instance $i) (export \"{name}\" (instance $i)))")).unwrap()
}

const TRANSFORMER: &str = "nodata:streaming/transformer@0.1.0";

#[tokio::test]
async fn another_version_of_the_contract_is_named() {
    let of = |version: &str| exports(&format!("nodata:streaming/transformer@{version}"), "");
    let expected = "the component exports `nodata:streaming/transformer@0.2.0`; this host runs version 0.1.0";
    check(of("0.2.0"), expected, "build it against nodata:streaming 0.1.0, or use a newer host").await;

    let imports = "(import \"nodata:streaming/types@0.1.3\" (instance))";
    let expected = "built against nodata:streaming 0.1.3; this host offers 0.1.0";
    check(exports(TRANSFORMER, imports), expected, "use a newer host").await;
}

#[tokio::test]
async fn exports_of_another_type_are_refused() {
    let expected = "`nodata:streaming/transformer@0.1.0` is not what the contract says: there is no function `process`";
    check(exports(TRANSFORMER, ""), expected, "").await;

    let text = format!(
        "(component
            (core module $m (func (export \"process\")))
            (core instance $c (instantiate $m))
            (func $process (canon lift (core func $c \"process\")))
            (instance $i (export \"process\" (func $process)))
            (export \"{TRANSFORMER}\" (instance $i)))"
    );
    let error = refused(wat::parse_str(text).unwrap()).await.to_string();
    let begin = "`nodata:streaming/transformer@0.1.0` is not what the contract says: ";
    assert!(error.starts_with(begin) && error.contains("expected 2-tuple, found 0-tuple"), "{error}");
}

#[tokio::test]
async fn imports_that_nobody_offers_are_named() {
    let imports = "(import \"wasi:keyvalue/store@0.2.0-draft\" (instance (export \"open\" (func))))";
    let error = refused(exports(TRANSFORMER, imports)).await.to_string();
    let begin = "the component imports something that this host does not offer: ";
    assert!(error.starts_with(begin) && error.contains("`wasi:keyvalue/store@0.2.0-draft`"), "{error}");

    // A function of ours that is not in this version.
    let imports = "(import \"nodata:streaming/config@0.1.0\" (instance (export \"delete\" (func))))";
    let error = refused(exports(TRANSFORMER, imports)).await.to_string();
    assert!(error.contains("`nodata:streaming/config@0.1.0`") && error.contains("`delete`"), "{error}");

    // And one that is there, with another type.
    let imports = "(import \"nodata:streaming/config@0.1.0\" (instance (export \"get\" (func (param \"key\" u32)))))";
    let error = refused(exports(TRANSFORMER, imports)).await.to_string();
    assert!(error.contains("`get` has the wrong type"), "{error}");
}

#[tokio::test]
async fn a_component_that_does_not_start_is_refused() {
    let text = format!(
        "(component
            (core module $m (func $start unreachable) (start $start) (func (export \"process\")))
            (core instance $c (instantiate $m))
            (func $process (canon lift (core func $c \"process\")))
            (instance $i (export \"process\" (func $process)))
            (export \"{TRANSFORMER}\" (instance $i)))"
    );
    let expected = "the component does not start: the component failed: it reached code that cannot be reached, which is \
                    how a panic or an abort ends";
    check_text(&text, expected).await;
}
