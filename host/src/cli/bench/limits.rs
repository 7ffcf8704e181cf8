//! What the disk and the network of this machine can do at most.

use crate::cli::CliError;
use crate::cli::bench::publish::{Case, measure};
use crate::cli::bench::report::{Rows, short, spread};
use crate::cli::bench::target::Target;
use nodata_log::fs::real::RealFs;
use nodata_log::fs::{Fs, SyncSite};
use serde_json::{Value, json};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

/// The limits that stand beside the figures.
pub(crate) struct Limits {
    pub(crate) small_syncs_per_s: f64,
    pub(crate) large_sync_mb_per_s: f64,
    pub(crate) grpc: Vec<Rows>,
}

impl Limits {
    /// Measures the disk of a directory, and gRPC with the same load as the cases.
    pub(crate) async fn measure(dir: &Path, cases: &[Case], rounds: usize, seconds: f64) -> Result<Self, CliError> {
        let failed =
            |error: io::Error| CliError::failed(format!("cannot measure the disk of {}: {error}", dir.display()));
        let mut small = Vec::new();
        let mut large = Vec::new();
        for _ in 0..rounds {
            small.push(syncs_per_s(dir, 4096, seconds / 3.0).map_err(failed)?);
            large.push(syncs_per_s(dir, 1 << 20, seconds / 3.0).map_err(failed)? * (1 << 20) as f64 / 1e6);
        }
        let mut grpc: Vec<Rows> =
            cases.iter().map(|case| Rows { name: case.name("gRPC alone"), rounds: Vec::new() }).collect();
        for _ in 0..rounds {
            for (case, rows) in cases.iter().zip(&mut grpc) {
                let target = Target::start_null()?;
                rows.rounds.push(measure(&target, case, seconds / 2.0).await?);
            }
        }
        let median = |values: Vec<f64>| spread(values).map_or(0.0, |spread| spread.median);
        Ok(Self { small_syncs_per_s: median(small), large_sync_mb_per_s: median(large), grpc })
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        vec![format!(
            "limits: the disk makes {} writes of 4 KiB durable in a second, one after the other, and {:.0} MB/s in writes of 1 MiB \
             (fdatasync, blocks written before); gRPC alone is in the table",
            short(self.small_syncs_per_s),
            self.large_sync_mb_per_s
        )]
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "disk_4_kib_syncs_per_s": self.small_syncs_per_s,
            "disk_1_mib_sync_mb_per_s": self.large_sync_mb_per_s,
            "grpc_alone": super::report::to_json(&self.grpc),
        })
    }
}

/// Writes of one size, each followed by a sync, to blocks that were written before.
fn syncs_per_s(dir: &Path, bytes: usize, seconds: f64) -> io::Result<f64> {
    const FILE_BYTES: u64 = 64 << 20;
    let dir = tempfile::Builder::new().prefix("nodata-bench-disk-").tempdir_in(dir)?;
    let fs = RealFs::new(dir.path())?;
    let file = fs.create("file")?;
    file.allocate(FILE_BYTES)?;
    file.fill(0, FILE_BYTES)?;
    file.sync_data(SyncSite::Spare)?;
    let buffer = vec![7; bytes];
    let end = Duration::from_secs_f64(seconds);
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < end {
        let at = count * bytes as u64 % FILE_BYTES;
        nodata_log::fs::write_all_at(&*file, &mut [IoSlice::new(&buffer)], at)?;
        file.sync_data(SyncSite::Group)?;
        count += 1;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
