//! What an aggregate holds, as its component shows it.

use crate::deployment::aggregate::{GROUPS, StoredGroup, key_prefix, merge_all};
use crate::deployment::control::Deployments;
use crate::deployment::error::DeploymentError;
use crate::deployment::spec::{DeploymentRole, DeploymentSpec};
use crate::deployment::windows::{Span, Window};
use crate::limits::{GROUPS_PAGE_BYTES, GROUPS_PAGE_MAX};
use bytes::Bytes;
use nodata_log::{LogError, Name, StateScan, TaskKey};
use nodata_runtime::{CallError, Groups, InstanceSettings};
use std::collections::BTreeMap;

/// A group, as its component shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    pub key: Bytes,
    /// Start and end; `None` without windows.
    pub window_us: Option<(i64, i64)>,
    pub value: Bytes,
}

impl Deployments {
    /// Groups of an aggregate in the order of their keys in its state, from a token on, and the token of the next page. Those of one
    /// key, if it is given.
    ///
    /// Each partition is read as it was at some moment; a group that is in several is put together.
    pub async fn groups(
        &self,
        name: &str,
        key: Option<&[u8]>,
        page_size: usize,
        token: &[u8],
    ) -> Result<(Vec<GroupView>, Option<Bytes>), DeploymentError> {
        let (spec, version) = self.spec(name).await?;
        if spec.role != DeploymentRole::Aggregate {
            return Err(DeploymentError::NotAnAggregate { name: name.to_owned() });
        }
        let count_max = if page_size == 0 { 100 } else { page_size.min(GROUPS_PAGE_MAX) };
        let (found, next) = self.stored_groups(&spec, key, count_max, token)?;
        if found.is_empty() {
            return Ok((Vec::new(), next));
        }
        // A server that started a moment ago may not know it yet.
        self.wait_until_seen(version).await;
        let has_windows = spec.aggregation.is_some_and(|how| how.window != Window::None);
        let values = self.show(&spec, &found, has_windows).await?;
        let views = found.into_iter().zip(values).map(|((group, _), value)| GroupView {
            key: group.0,
            window_us: has_windows.then_some((group.1.start, group.1.end)),
            value,
        });
        Ok((views.collect(), next))
    }

    /// Accumulators of groups, of all partitions.
    #[allow(clippy::type_complexity, reason = "a page, and where the next one begins")]
    pub(crate) fn stored_groups(
        &self,
        spec: &DeploymentSpec,
        key: Option<&[u8]>,
        count_max: usize,
        token: &[u8],
    ) -> Result<(Vec<((Bytes, Span), Vec<Bytes>)>, Option<Bytes>), LogError> {
        let Ok(input) = self.parts.log.topic_by_id(spec.input_id()) else { return Ok((Vec::new(), None)) };
        let (mut start, mut end) = (Bytes::copy_from_slice(token), None);
        if let Some(key) = key {
            let prefix = key_prefix(key).freeze();
            start = start.max(prefix.clone());
            end = Some([&prefix[..], &[0xff; 9]].concat().into());
        }
        let mut found: BTreeMap<(Bytes, Span), (Bytes, Vec<Bytes>)> = BTreeMap::new();
        // Behind the last key of a partition that was not read to its end, others may be missing.
        let mut complete_to: Option<Bytes> = None;
        for source in spec.sources(&input) {
            let task = TaskKey { owner: spec.owner(), source };
            let scan = StateScan { start: start.clone(), end: end.clone(), count_max, bytes_max: GROUPS_PAGE_BYTES };
            let entries = self.parts.log.state_scan(task, &Name::new(GROUPS)?, &scan)?;
            let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
            if entries.len() >= count_max || bytes >= GROUPS_PAGE_BYTES {
                let last = entries.last().map(|(key, _)| key.clone());
                complete_to = match (complete_to, last) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
            for (state_key, value) in entries {
                let Some(group) = StoredGroup::read(&state_key, &value) else { continue };
                let known = found.entry((state_key.clone(), group.span)).or_insert((group.key, Vec::new()));
                known.1.push(group.accumulator);
            }
        }
        let is_cut = complete_to.is_some();
        if let Some(last) = &complete_to {
            found.retain(|(state_key, _), _| state_key <= last);
        }
        let mut next = complete_to;
        let mut page = Vec::new();
        for ((state_key, span), (key, accumulators)) in found {
            if page.len() == count_max {
                break;
            }
            next = Some(state_key);
            page.push(((key, span), accumulators));
        }
        let has_more = is_cut || page.len() == count_max;
        let behind = |key: Bytes| Bytes::from([&key[..], &[0]].concat());
        Ok((page, next.filter(|_| has_more).map(behind)))
    }

    /// Has an instance of the component, which is thrown away, put groups together and show them.
    pub(crate) async fn show(
        &self,
        spec: &DeploymentSpec,
        found: &[((Bytes, Span), Vec<Bytes>)],
        has_windows: bool,
    ) -> Result<Vec<Bytes>, DeploymentError> {
        let refused = |reason: String| DeploymentError::Render { reason };
        let program = self.load(spec).await?;
        let known = self.live().get(&spec.name).map(|live| (live.guest_log.clone(), live.metrics.clone()));
        let Some((log, metrics)) = known else { return Err(DeploymentError::Unknown { name: spec.name.clone() }) };
        // What is only looked at causes nothing elsewhere: it sends no requests.
        let deployment = self.granted_aside(spec, log.clone(), metrics, None);
        let source = nodata_log::Tp { topic: spec.input_id(), partition: 0 };
        let settings = InstanceSettings {
            role: spec.role.of_component(),
            deployment,
            task: TaskKey { owner: spec.owner(), source },
            log: self.parts.log.clone(),
        };
        let mut accumulators: Vec<Vec<Bytes>> = found.iter().map(|(_, accumulators)| accumulators.clone()).collect();
        let mut groups = Groups::default();
        for ((key, span), _) in found {
            groups.keys.push(key.clone());
            if has_windows {
                groups.window_starts.push(span.start);
                groups.window_ends.push(span.end);
            }
        }
        let shown = self.parts.runtime.spawn(&self.share_of(&spec.name), async move {
            let mut instance = program.instantiate(settings).await?;
            merge_all(&mut instance, &mut accumulators).await?;
            groups.accumulators = accumulators.into_iter().map(|one| one.into_iter().next()).collect();
            let rendered = instance.render(&groups).await;
            if let Err(error) = instance.let_go().await {
                log.note(0, &format!("closing an instance failed: {}", error.words()));
            }
            rendered
        });
        match shown.await {
            Ok(shown) => shown.map_err(|error: CallError| refused(error.to_string())),
            Err(_) => Err(LogError::Stopping.into()),
        }
    }
}
