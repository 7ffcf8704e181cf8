//! `SecretService`.

use crate::api::status::{self, Refusal};
use crate::deployment::Deployments;
use crate::secrets::{SecretError, SecretView, Secrets};
use nodata_proto::server as wire;
use tonic::{Request, Response, Status};

pub(crate) struct SecretApi {
    pub(crate) secrets: Secrets,
    pub(crate) deployments: Deployments,
}

impl From<SecretError> for Refusal {
    fn from(error: SecretError) -> Self {
        if let SecretError::Log(error) = error {
            return error.into();
        }
        let refusal = Refusal::new(error.kind(), error.reason(), error.to_string());
        match error.hint() {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }
}

fn to_wire(view: SecretView) -> wire::Secret {
    wire::Secret { name: view.name, updated_timestamp_us: view.updated_us }
}

#[tonic::async_trait]
impl wire::secret_service_server::SecretService for SecretApi {
    async fn put_secret(
        &self,
        request: Request<wire::PutSecretRequest>,
    ) -> Result<Response<wire::PutSecretResponse>, Status> {
        let wire::PutSecretRequest { name, value } = request.into_inner();
        let name = status::name("secret", &name)?;
        let view = self.secrets.put(&name, value.to_vec().into()).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::PutSecretResponse { secret: Some(to_wire(view)) }))
    }

    async fn list_secrets(
        &self,
        request: Request<wire::ListSecretsRequest>,
    ) -> Result<Response<wire::ListSecretsResponse>, Status> {
        let wire::ListSecretsRequest { page_size, page_token } = request.into_inner();
        let (page, next_page_token) =
            status::page(self.secrets.list(), page_size, &page_token, |secret| secret.name.clone());
        let secrets = page.into_iter().map(to_wire).collect();
        Ok(Response::new(wire::ListSecretsResponse { secrets, next_page_token }))
    }

    async fn delete_secret(
        &self,
        request: Request<wire::DeleteSecretRequest>,
    ) -> Result<Response<wire::DeleteSecretResponse>, Status> {
        let name = status::name("secret", &request.into_inner().name)?;
        let granted_to = self.deployments.granted(name.as_str()).await.map_err(Refusal::from)?;
        self.secrets.delete(&name, granted_to).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::DeleteSecretResponse {}))
    }
}
