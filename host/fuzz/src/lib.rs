#![doc = include_str!("../README.md")]

// The targets.
mod batch; // a batch
mod frame; // a frame of the log
mod parquet_file; // a file of the archive
mod publish; // what a publisher sends
mod recovery; // a whole disk
mod segment; // the header of a segment

// What they share.
mod disk; // bytes as a file
mod memory; // how much of it an input may take
mod panics; // those of others may be caught, ours may not
mod seal; // checksums that are right, whatever they are over

// Inputs to begin with.
mod logs; // for `recovery`
pub mod seeds; // for all

pub use panics::watch_panics;

/// Something that reads bytes it did not write.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    run: fn(&[u8]),
    /// Bytes that an input may take at once: so many, and so many more for each byte of it. Much more than honest inputs need,
    /// and much less than a length that was believed.
    memory: (usize, usize),
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "batch", run: batch::run, memory: (64 << 10, 64) },
    Target { name: "frame", run: frame::run, memory: (64 << 10, 128) },
    Target { name: "segment", run: segment::run, memory: (64 << 10, 1) },
    // Each start opens a database, and a segment.
    Target { name: "recovery", run: recovery::run, memory: (64 << 20, 256) },
    // A page is decompressed at once, and a column of numbers is as long as the page says.
    Target {
        name: "parquet",
        run: parquet_file::run,
        memory: (nodata_archive::limits::UNPACKED_BYTES_MAX as usize + (64 << 20), 1024),
    },
    Target { name: "publish", run: publish::run, memory: (64 << 20, 1024) },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Runs an input. Panics if something does not hold.
    pub fn check(&self, input: &[u8]) {
        let ((), peak) = memory::peak(|| panics::check(|| (self.run)(input)));
        let (base, each) = self.memory;
        let allowed = base + each * input.len();
        assert!(
            peak <= allowed,
            "{} bytes of input took {peak} bytes of memory, at most {allowed} are allowed",
            input.len()
        );
    }
}
