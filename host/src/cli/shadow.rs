//! `nodata deployment shadow`

use crate::cli::component::called;
use crate::cli::out::{count, table, time};
use crate::cli::{CliError, Common};
use clap::Args;
use nodata_client::proto::difference::Call;
use nodata_client::proto::{
    Deployment, DescribeDeploymentRequest, Difference, EndShadowRequest, EventRange, ShadowReport, Task,
};
use serde_json::{Value, json};

/// Show where a revision that is tried beside the one that works does something else.
///
/// `deployment update --shadow` begins it. It is given the same input with the same state, and commits nothing.
#[derive(Debug, Args)]
pub(crate) struct ShadowArgs {
    name: String,
    /// End it, and show what it was.
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) async fn shadow(args: ShadowArgs) -> Result<(), CliError> {
    let mut deployments = args.common.connect().await?.deployments();
    let (name, end) = (args.name, args.end);
    let (deployment, tasks) = if end {
        let ended = deployments.end_shadow(EndShadowRequest { name }).await?.into_inner();
        (ended.deployment.unwrap_or_default(), ended.tasks)
    } else {
        let described = deployments.describe_deployment(DescribeDeploymentRequest { name }).await?.into_inner();
        (described.deployment.unwrap_or_default(), described.tasks)
    };
    let Some(shadow) = &deployment.shadow else {
        let error = CliError::failed(format!("deployment `{}` has no shadow", deployment.name)).reason("NO_SHADOW");
        return Err(
            error.hint(format!("begin one: nodata deployment update {} --shadow --component X", deployment.name))
        );
    };
    let json = json!({
        "name": deployment.name,
        "revision": shadow.revision,
        "component": shadow.component,
        "digest": shadow.digest,
        "label": shadow.label,
        "since": time(shadow.since_timestamp_us),
        "ended": end,
        "tasks": tasks.iter().map(|task| {
            let mut json = report_to_json(&task.shadow.clone().unwrap_or_default());
            json["partition"] = task.partition.into();
            json
        }).collect::<Vec<_>>(),
    });
    args.common.out().show(&json, || said(&deployment, &tasks, end))
}

fn said(deployment: &Deployment, tasks: &[Task], end: bool) -> Vec<String> {
    let shadow = deployment.shadow.clone().unwrap_or_default();
    let component = called(&shadow.component, &shadow.label, &shadow.digest);
    let ended = if end { "was tried until now" } else { "is tried" };
    let mut lines = vec![format!(
        "{}: revision {}, {component}, {ended} beside revision {}, since {}",
        deployment.name,
        shadow.revision,
        deployment.revision,
        time(shadow.since_timestamp_us)
    )];
    let reports: Vec<(u32, ShadowReport)> =
        tasks.iter().map(|task| (task.partition, task.shadow.clone().unwrap_or_default())).collect();
    let row = |(partition, report): &(u32, ShadowReport)| {
        let counts = [
            report.calls,
            report.events,
            report.calls_with_other_outputs,
            report.calls_with_other_rejects,
            report.calls_with_other_state,
            report.calls_failed,
        ];
        std::iter::once(partition.to_string()).chain(counts.map(count)).collect()
    };
    let head = ["PARTITION", "CALLS", "EVENTS", "OTHER OUTPUTS", "OTHER REJECTS", "OTHER STATE", "FAILED"];
    lines.extend(table(&head, &reports.iter().map(row).collect::<Vec<_>>()));
    for (partition, report) in &reports {
        if !report.ended.is_empty() {
            lines.push(String::new());
            lines.push(format!("partition {partition}: it is not asked any more: {}", report.ended));
        }
        for Difference { call, what } in &report.differences {
            lines.push(String::new());
            let call = match call {
                Some(Call::Events(EventRange { first_offset: first, last_offset: last })) if first == last => {
                    format!(", event {first}")
                }
                Some(Call::Events(EventRange { first_offset: first, last_offset: last })) => {
                    format!(", events {first} to {last}")
                }
                Some(Call::ClosedGroups(1)) => ", closing the window of a group".to_owned(),
                Some(Call::ClosedGroups(groups)) => format!(", closing the windows of {groups} groups"),
                Some(Call::TickTimestampUs(at_us)) => format!(", the tick of {}", time(*at_us)),
                None => String::new(),
            };
            lines.push(format!("partition {partition}{call}: {what}"));
        }
    }
    lines
}

fn report_to_json(report: &ShadowReport) -> Value {
    let difference = |difference: &Difference| {
        let mut json = json!({ "what": difference.what });
        match difference.call {
            Some(Call::Events(EventRange { first_offset, last_offset })) => {
                (json["first"], json["last"]) = (first_offset.into(), last_offset.into());
            }
            Some(Call::ClosedGroups(groups)) => json["closed_groups"] = groups.into(),
            Some(Call::TickTimestampUs(at_us)) => json["tick"] = time(at_us).into(),
            None => {}
        }
        json
    };
    json!({
        "calls": report.calls,
        "events": report.events,
        "calls_not_compared": report.calls_not_compared,
        "calls_with_other_outputs": report.calls_with_other_outputs,
        "calls_with_other_rejects": report.calls_with_other_rejects,
        "calls_with_other_state": report.calls_with_other_state,
        "calls_failed": report.calls_failed,
        "differences": report.differences.iter().map(difference).collect::<Vec<_>>(),
        "ended": report.ended,
    })
}
