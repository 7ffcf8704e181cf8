//! Which events of which request were not appended, because their topic remembers their ids.

use crate::api::door::{Placement, Share};
use bytes::Bytes;
use nodata_log::{Batch, EventPlace, Tp};
use nodata_proto::events;
use std::collections::{HashMap, HashSet};

/// Requests that were appended together, until it is known what became of them.
#[derive(Debug)]
pub(crate) struct Repeats {
    placement: Placement,
    /// The partition of each batch.
    partitions: Vec<u32>,
    requests: Vec<Bytes>,
}

impl Repeats {
    /// `None`: no event has an id, so none is known.
    pub(crate) fn of(placement: Placement, batches: &[(Tp, Batch)], requests: &[Bytes]) -> Option<Self> {
        let has_ids = batches.iter().any(|(_, batch)| batch.id_lens().is_some());
        let partitions = batches.iter().map(|(tp, _)| tp.partition).collect();
        has_ids.then(|| Self { placement, partitions, requests: requests.to_vec() })
    }

    /// For each request the places of its events that were not appended, or nothing if there are none; `shares` are left with
    /// what was.
    pub(crate) fn settle(&self, duplicates: &[EventPlace], shares: &mut [Vec<Share>]) -> Vec<Vec<u32>> {
        if duplicates.is_empty() {
            return Vec::new();
        }
        let known: HashSet<(u32, u32)> =
            duplicates.iter().map(|place| (self.partitions[place.batch], place.row)).collect();
        let mut rows: HashMap<u32, u32> = HashMap::new();
        let mut settle = |(request, shares): (&Bytes, &mut Vec<Share>)| {
            let mut gone = Vec::new();
            // They were read before, so they can be read.
            for (place, event) in (0..).zip(events::read(request).flatten()) {
                let partition = self.placement.of(event.key);
                let row = rows.entry(partition).or_default();
                if known.contains(&(partition, *row)) {
                    gone.push(place);
                    let share = shares.iter_mut().find(|share| share.partition == partition);
                    share.into_iter().for_each(|share| share.events -= 1);
                }
                *row += 1;
            }
            shares.retain(|share| share.events > 0);
            gone
        };
        self.requests.iter().zip(shares).map(&mut settle).collect()
    }
}
