//! `nodata secret`

use crate::cli::out::{has_input_terminal, table, time};
use crate::cli::{CliError, Common};
use crate::secrets::SECRET_BYTES_MAX;
use clap::Subcommand;
use nodata_client::proto::{DeleteSecretRequest, ListSecretsRequest, PutSecretRequest, Secret};
use serde_json::{Value, json};
use std::io::{self, Read as _};

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Keep a secret, or give it another value. The value is read from standard input, and one line end at its end is left out: a
    /// value on the command line could be read by others.
    Put {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// List secrets, without their values: nothing shows those.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Forget a secret that no deployment is granted.
    Delete {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(crate) async fn run(command: SecretCommand) -> Result<(), CliError> {
    let common = match &command {
        SecretCommand::Put { common, .. } | SecretCommand::List { common } | SecretCommand::Delete { common, .. } => {
            common.clone()
        }
    };
    run_on(command, &common).await.map_err(|error| error.told_as_json(common.json))
}

async fn run_on(command: SecretCommand, common: &Common) -> Result<(), CliError> {
    let out = common.out();
    match command {
        SecretCommand::Put { name, .. } => {
            let value = read_value(&name)?;
            let mut secrets = common.connect().await?.secrets();
            let put = secrets.put_secret(PutSecretRequest { name, value: value.into() }).await?.into_inner();
            let secret = put.secret.unwrap_or_default();
            out.show(&to_json(&secret), || vec![format!("kept secret {}", secret.name)])
        }
        SecretCommand::List { .. } => {
            let mut secrets = common.connect().await?.secrets();
            let mut found = Vec::new();
            let mut request = ListSecretsRequest { page_size: 1000, ..Default::default() };
            loop {
                let page = secrets.list_secrets(request.clone()).await?.into_inner();
                found.extend(page.secrets);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            out.show(&Value::Array(found.iter().map(to_json).collect()), || {
                let row = |secret: &Secret| vec![secret.name.clone(), time(secret.updated_timestamp_us)];
                table(&["NAME", "UPDATED"], &found.iter().map(row).collect::<Vec<_>>())
            })
        }
        SecretCommand::Delete { name, .. } => {
            let mut secrets = common.connect().await?.secrets();
            secrets.delete_secret(DeleteSecretRequest { name: name.clone() }).await?;
            out.show(&json!({ "deleted": name }), || vec![format!("deleted secret {name}")])
        }
    }
}

fn read_value(name: &str) -> Result<Vec<u8>, CliError> {
    if has_input_terminal() {
        let how = format!("give the value on standard input: `nodata secret put {name} < FILE`");
        return Err(CliError::invalid("a secret that is typed can be read on the screen").hint(how));
    }
    let mut value = Vec::new();
    // One byte more than allowed is enough to be refused for the right reason.
    let most = SECRET_BYTES_MAX as u64 + 3;
    io::stdin().take(most).read_to_end(&mut value)?;
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    Ok(value)
}

fn to_json(secret: &Secret) -> Value {
    json!({ "name": secret.name, "updated": time(secret.updated_timestamp_us) })
}
