//! Copies events, and describes its ports: the input, the default port of JSON, and `bad`, which it can do without, of three partitions.
//! With config `ports` it does as that says: `many`, `twice`, `long`, `zero` partitions, `permanent`, or `panic`.

use nodata_component::{Error, Events, Output, PortInfo, Result, Transform, component, config};

struct DescribesPorts;

#[component]
impl Transform for DescribesPorts {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            out.forward(&event)?;
        }
        Ok(())
    }

    fn ports() -> Result<Vec<PortInfo>> {
        let mut ports = vec![
            PortInfo::input("what is copied").text().partitions(2),
            PortInfo::output("", "the copies").json(),
            PortInfo::output("bad", "what was never there").optional().partitions(3),
        ];
        match config::get("ports").as_deref() {
            Some("many") => ports.extend((0..100).map(|number| PortInfo::output(number.to_string(), ""))),
            Some("twice") => ports.push(PortInfo::output("bad", "once more")),
            Some("long") => ports.push(PortInfo::output("x".repeat(201), "")),
            Some("zero") => ports.push(PortInfo::output("none", "").optional().partitions(0)),
            Some("permanent") => return Err(Error::permanent("told to")),
            Some("panic") => panic!("told to"),
            _ => {}
        }
        Ok(ports)
    }
}
