//! Says what it is configured with: one event for each entry, then config `greeting` and the secret `token`.

use nodata_component::{Events, Output, Result, component, config};

#[component]
fn uses_config(_: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for (key, text) in config::all() {
        out.event().key("all").text(format_args!("{key}={text}"))?;
    }
    out.event().key("get").text(format_args!("{:?}", config::get("greeting")))?;
    let secret = config::secret("token").map(|token| String::from_utf8_lossy(&token).into_owned());
    out.event().key("secret").text(format_args!("{secret:?}"))
}
