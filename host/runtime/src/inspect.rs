//! What a file is, before anything of it is compiled.
//!
//! Everything here is cheap compared with compiling, and it says what is wrong in words that somebody who has never seen
//! this project understands.

use crate::accept::AcceptError;
use crate::contract::{EXTRAS, Extra, Interface, PACKAGE, ROLES, Role};
use crate::engine::FEATURES;
use crate::limits::{
    COMPONENT_BYTES_MAX, DATA_SEGMENTS_MAX, FUNCTION_BYTES_MAX, FUNCTIONS_MAX, IMPORTS_MAX, MODULES_MAX, NESTING_MAX,
    STORE_INSTANCES_MAX,
};
use wasmparser::{Parser, Payload, Validator};
use wasmtime::Engine;
use wit_component::WitPrinter;

/// What could be learned without compiling.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) roles: Vec<Role>,
    pub(crate) extras: Vec<Extra>,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    pub(crate) wit: String,
}

const MAGIC: &[u8] = b"\0asm";
/// What follows the magic in a core module, and in a component.
const MODULE: &[u8] = &[1, 0, 0, 0];
const COMPONENT: &[u8] = &[0x0d, 0, 1, 0];

/// Looks at everything in a file that does not need a compiler.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspected, AcceptError> {
    check_header(bytes)?;
    let names = check_structure(bytes)?;
    let mut validator = Validator::new_with_features(FEATURES);
    validator.validate_all(bytes).map_err(|error| invalid(&error))?;
    check_imports(&names.imports)?;
    let roles = roles(&names.exports)?;
    let extras = extras(&names.exports, &roles)?;
    Ok(Inspected { roles, extras, wit: wit(bytes), imports: names.imports, exports: names.exports })
}

fn invalid(error: &wasmparser::BinaryReaderError) -> AcceptError {
    AcceptError::NotValid { message: format!("{} (at byte {})", error.message(), error.offset()) }
}

fn check_header(bytes: &[u8]) -> Result<(), AcceptError> {
    if bytes.is_empty() {
        return Err(AcceptError::Empty);
    }
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(AcceptError::TooLarge { bytes: bytes.len() });
    }
    if let Some(kind) = bytes.strip_prefix(MAGIC) {
        return match kind {
            _ if kind.starts_with(COMPONENT) => Ok(()),
            _ if kind.starts_with(MODULE) => Err(AcceptError::CoreModule),
            _ => Err(AcceptError::UnknownVersion),
        };
    }
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(AcceptError::Precompiled);
    }
    if is_wat(bytes) {
        return Err(AcceptError::Text);
    }
    Err(AcceptError::NotWasm { looks_like: looks_like(bytes) })
}

/// Whether it is the text format: after blanks and comments, an opening parenthesis and one of two words.
fn is_wat(bytes: &[u8]) -> bool {
    let Ok(mut text) = std::str::from_utf8(bytes) else { return false };
    loop {
        text = text.trim_start();
        let Some(comment) = text.strip_prefix(";;") else { break };
        text = comment.split_once('\n').map_or("", |(_, rest)| rest);
    }
    let inside = text.strip_prefix('(').map(str::trim_start);
    inside.is_some_and(|inside| inside.starts_with("module") || inside.starts_with("component"))
}

fn looks_like(bytes: &[u8]) -> &'static str {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"\x7fELF", "a program for Linux (ELF)"),
        (b"\xcf\xfa\xed\xfe", "a program for macOS (Mach-O)"),
        (b"MZ", "a program for Windows (PE)"),
        (b"\x1f\x8b", "a file compressed with gzip"),
        (b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
        (b"\xfd7zXZ", "a file compressed with xz"),
        (b"PK\x03\x04", "a zip archive"),
        (b"!<arch>", "a static library (ar)"),
        (b"#!", "a script"),
        (b"{", "JSON"),
        (b"<", "HTML or XML"),
    ];
    if let Some((_, name)) = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return name;
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return "a tar archive";
    }
    let is_text =
        std::str::from_utf8(bytes).is_ok_and(|text| !text.contains(|c: char| c.is_control() && !c.is_whitespace()));
    if is_text { "text" } else { "some other binary file" }
}

#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Counts what a component is made of, before the validator spends time on it.
fn check_structure(bytes: &[u8]) -> Result<Names, AcceptError> {
    let mut names = Names::default();
    let mut depth = 0usize;
    let (mut modules, mut functions, mut imports, mut instances, mut data) = (0, 0, 0, 0, 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| invalid(&error))? {
            Payload::Version { .. } => {
                depth += 1;
                modules += 1;
                check("levels of components in components", depth as u64, NESTING_MAX as u64)?;
                check("modules and components", modules, MODULES_MAX)?;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ImportSection(section) => imports += u64::from(section.count()),
            Payload::ComponentImportSection(section) => {
                imports += u64::from(section.count());
                check("imports", imports, IMPORTS_MAX)?;
                for import in section.into_iter().filter(|_| depth == 1) {
                    names.imports.push(import.map_err(|error| invalid(&error))?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                check("exports", u64::from(section.count()), IMPORTS_MAX)?;
                for export in section {
                    names.exports.push(export.map_err(|error| invalid(&error))?.name.name.to_owned());
                }
            }
            Payload::InstanceSection(section) => instances += u64::from(section.count()),
            Payload::ComponentInstanceSection(section) => instances += u64::from(section.count()),
            Payload::DataSection(section) => data += u64::from(section.count()),
            Payload::CodeSectionEntry(body) => {
                functions += 1;
                check("bytes in one function", body.as_bytes().len() as u64, FUNCTION_BYTES_MAX as u64)?;
            }
            _ => {}
        }
        check("functions", functions, FUNCTIONS_MAX)?;
        check("imports", imports, IMPORTS_MAX)?;
        check("instances", instances, STORE_INSTANCES_MAX as u64)?;
        check("data segments", data, DATA_SEGMENTS_MAX)?;
    }
    Ok(names)
}

fn check(what: &'static str, count: u64, max: u64) -> Result<(), AcceptError> {
    if count > max { Err(AcceptError::TooComplex { what, count, max }) } else { Ok(()) }
}

/// Refuses what was built against a contract that this host does not know. Other imports are left to the linker.
fn check_imports(imports: &[String]) -> Result<(), AcceptError> {
    for import in imports {
        let Some(interface) = Interface::parse(import).filter(|interface| interface.package == PACKAGE) else {
            continue;
        };
        if !interface.is_offered() {
            let version = interface.version.unwrap_or("without a version").to_owned();
            return Err(AcceptError::OtherContract { version });
        }
    }
    Ok(())
}

/// What the exports make of it. Exports that mean nothing to us are nobody's business: Python adds one.
fn roles(exports: &[String]) -> Result<Vec<Role>, AcceptError> {
    let ours: Vec<(&String, Interface<'_>)> = exports
        .iter()
        .filter_map(|export| Some((export, Interface::parse(export)?)))
        .filter(|(_, interface)| interface.package == PACKAGE)
        .collect();
    let of = |role: &Role| ours.iter().filter(|(_, interface)| interface.name == role.interface()).collect::<Vec<_>>();
    let roles: Vec<Role> =
        ROLES.iter().copied().filter(|role| of(role).iter().any(|(_, interface)| interface.is_offered())).collect();
    if !roles.is_empty() {
        return Ok(roles);
    }
    match ROLES.iter().flat_map(of).next() {
        Some((export, _)) => Err(AcceptError::OtherVersion { export: (*export).clone() }),
        None => Err(AcceptError::NoRole { exports: exports.to_vec() }),
    }
}

/// What it exports beside its roles. What none of them can have would never be called, which its author should know.
fn extras(exports: &[String], roles: &[Role]) -> Result<Vec<Extra>, AcceptError> {
    let mut extras = Vec::new();
    for extra in EXTRAS {
        let is_it = |interface: &Interface<'_>| {
            interface.package == PACKAGE && interface.name == extra.interface() && interface.is_offered()
        };
        let Some(export) = exports.iter().find(|export| Interface::parse(export).is_some_and(|found| is_it(&found)))
        else {
            continue;
        };
        if !roles.iter().any(|role| extra.is_for(*role)) {
            return Err(AcceptError::NotOfRole { export: export.clone(), roles: roles.to_vec() });
        }
        extras.push(*extra);
    }
    Ok(extras)
}

/// The component's world as text, for people. It decides nothing, so failing to write it refuses nothing.
fn wit(bytes: &[u8]) -> String {
    let text = wit_component::decode(bytes).and_then(|decoded| {
        let (resolve, main) = (decoded.resolve(), decoded.package());
        let others: Vec<_> = resolve.packages.iter().map(|(id, _)| id).filter(|id| *id != main).collect();
        let mut printer = WitPrinter::default();
        printer.print(resolve, main, &others)?;
        Ok(printer.output.to_string())
    });
    text.unwrap_or_else(|error| format!("// This component cannot be shown as WIT: {error:#}\n"))
}
