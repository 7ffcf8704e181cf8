//! The program that compiles components for the tests and the benchmark of this crate. The server is its own compiler.

fn main() -> std::process::ExitCode {
    nodata_runtime::child_main()
}
