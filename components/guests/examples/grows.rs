//! Takes memory and never gives it back.

use nodata_component::{Events, Output, Result, component};

#[component]
fn grows(_: Events<'_>, _: &mut Output<'_>) -> Result<()> {
    let mut taken = Vec::new();
    loop {
        taken.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}
