//! Every sync in the code is there because something is lost without it. Each is taken away here, and the suite must notice.

use crate::power::{End, Run};
use nodata_log::fs::SyncSite;
use nodata_log::fs::simulated::Chance;
use std::panic;

/// Syncs without which something that was promised is lost, or a store does not start any more.
const NEEDED: [SyncSite; 7] = [
    SyncSite::StoreFile,
    SyncSite::StoreName,
    SyncSite::Group,
    SyncSite::Spare,
    SyncSite::SegmentName,
    SyncSite::Found,
    SyncSite::Checkpoint,
];

/// Whether any run of the suite goes wrong with this sync doing nothing.
fn is_noticed(lost: SyncSite) -> bool {
    (0..400).any(|seed| {
        let mut chance = Chance::new(seed);
        let lives = (0..6)
            .map(|_| {
                let end = if chance.percent(50) { End::Kill } else { End::Power };
                (end, chance.percent(70).then(|| chance.below(150)))
            })
            .collect();
        let run = Run { seed, steps: 60, lost_syncs: Some(lost), short_writes: false, lives };
        panic::catch_unwind(panic::AssertUnwindSafe(|| run.live())).is_err()
    })
}

#[test]
fn a_missing_sync_is_noticed() {
    let unnoticed: Vec<SyncSite> = NEEDED.into_iter().filter(|site| !is_noticed(*site)).collect();
    assert!(unnoticed.is_empty(), "nobody notices when these syncs do nothing: {unnoticed:?}");
}
