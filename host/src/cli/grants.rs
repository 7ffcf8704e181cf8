//! What a component asks for, and what a deployment of it is granted.

use nodata_client::proto::Deployment;
use nodata_runtime::{Ask, Grant, asks};
use serde_json::{Value, json};

/// What came of one thing that is asked for.
enum Given {
    Always,
    Never,
    /// These. None: it is not granted.
    These(Vec<String>),
}

fn given(ask: Ask, deployment: &Deployment) -> Given {
    match ask.grant() {
        Grant::Always => Given::Always,
        Grant::Never => Given::Never,
        Grant::Deployment => Given::These(match ask {
            Ask::Http => deployment.allow_http.clone(),
            _ => {
                let config = deployment.config.keys().cloned();
                config.chain(deployment.secrets.keys().map(|name| format!("secret {name}"))).collect()
            }
        }),
    }
}

/// One line for each thing that a component with these imports asks for.
pub(crate) fn lines(imports: &[String], deployment: &Deployment) -> Vec<String> {
    let line = |ask: Ask| {
        let given = match given(ask, deployment) {
            Given::Always => "granted, as to every component".to_owned(),
            Given::Never => "never granted".to_owned(),
            Given::These(none) if none.is_empty() => "not granted".to_owned(),
            Given::These(some) => format!("granted: {}", some.join(", ")),
        };
        format!("{}; {given}", ask.says())
    };
    asks(imports).into_iter().map(line).collect()
}

pub(crate) fn to_json(imports: &[String], deployment: &Deployment) -> Value {
    let one = |ask: Ask| {
        let granted = match given(ask, deployment) {
            Given::Always => true.into(),
            Given::Never => false.into(),
            Given::These(none) if none.is_empty() => false.into(),
            Given::These(some) => Value::from(some),
        };
        json!({ "asks_for": ask.name(), "granted": granted })
    };
    asks(imports).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_granted_or_not() {
        let imports = [
            "wasi:http/outgoing-handler@0.2.4",
            "nodata:streaming/config@0.1.0",
            "wasi:clocks/wall-clock@0.2.4",
            "wasi:filesystem/types@0.2.4",
        ];
        let imports = imports.map(str::to_owned);
        let nothing = Deployment::default();
        assert_eq!(
            lines(&imports, &nothing),
            [
                "send HTTP requests; not granted",
                "read its configuration and its secrets; not granted",
                "know the time, and sleep; granted, as to every component",
                "read and write files; never granted",
            ]
        );
        let some = Deployment {
            allow_http: vec!["GET https://api.example.com".to_owned()],
            config: [("by".to_owned(), "key".to_owned())].into(),
            secrets: [("token".to_owned(), "api-token".to_owned())].into(),
            ..Deployment::default()
        };
        assert_eq!(
            lines(&imports, &some)[..2],
            [
                "send HTTP requests; granted: GET https://api.example.com",
                "read its configuration and its secrets; granted: by, secret token",
            ]
        );
        assert_eq!(
            to_json(&imports[1..3], &some),
            json!([{ "asks_for": "config", "granted": ["by", "secret token"] }, { "asks_for": "clock", "granted": true }])
        );
    }
}
