//! What a component says of its ports.

/// What a component says of one of its ports when it is deployed.
///
/// A required port without a topic refuses the deployment, and so does a topic on a port that was not described. A topic that does
/// not exist is made as its port says, where the operator allows that with `--create-topics`.
///
/// ```
/// use nodata_component::{PortInfo, Result};
///
/// fn ports() -> Result<Vec<PortInfo>> {
///     Ok(vec![
///         PortInfo::input("flights, one JSON object each").json(),
///         PortInfo::output("", "those that were late").json().partitions(4),
///         PortInfo::output("odd", "those that say nothing about it").optional(),
///     ])
/// }
/// ```
///
/// It is one of the functions of [`Transform`](crate::Transform::ports) and the other traits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    pub(crate) is_input: bool,
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) is_required: bool,
    pub(crate) values: Values,
    pub(crate) partitions: Option<u32>,
}

/// What a topic holds that is made for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    Bytes,
    Text,
    Json,
}

impl PortInfo {
    /// The input, and one sentence about what comes in.
    pub fn input(about: impl Into<String>) -> Self {
        Self { is_input: true, ..Self::output("input", about) }
    }

    /// An output by its name, `""` being the default port, and one sentence about what goes out. It is required.
    pub fn output(name: impl Into<String>, about: impl Into<String>) -> Self {
        let (name, about) = (name.into(), about.into());
        Self { is_input: false, name, about, is_required: true, values: Values::Bytes, partitions: None }
    }

    /// The component can do without it.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.is_required = false;
        self
    }

    /// A topic that is made for it holds texts.
    #[must_use]
    pub fn text(mut self) -> Self {
        self.values = Values::Text;
        self
    }

    /// A topic that is made for it holds JSON.
    #[must_use]
    pub fn json(mut self) -> Self {
        self.values = Values::Json;
        self
    }

    /// A topic that is made for it has so many partitions; without this, as many as the input.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }
}
