//! `AggregateService`.

use crate::api::status::Refusal;
use crate::deployment::{Deployments, GroupView};
use nodata_proto::server as wire;
use tonic::{Request, Response, Status};

pub(crate) struct AggregateApi {
    pub(crate) deployments: Deployments,
}

#[tonic::async_trait]
impl wire::aggregate_service_server::AggregateService for AggregateApi {
    async fn scan_groups(
        &self,
        request: Request<wire::ScanGroupsRequest>,
    ) -> Result<Response<wire::ScanGroupsResponse>, Status> {
        let wire::ScanGroupsRequest { deployment, key, page_size, page_token } = request.into_inner();
        let groups = self.deployments.groups(&deployment, key.as_deref(), page_size as usize, &page_token);
        let (groups, next) = groups.await.map_err(Refusal::from)?;
        let to_wire = |GroupView { key, window_us, value }| wire::Group {
            key,
            window_start_us: window_us.map(|(start, _)| start),
            window_end_us: window_us.map(|(_, end)| end),
            value,
        };
        Ok(Response::new(wire::ScanGroupsResponse {
            groups: groups.into_iter().map(to_wire).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }
}
