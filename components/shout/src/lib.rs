//! Writes values in capitals: the same component as those in `../python` and `../javascript`, to see them side by side.
//!
//! In: events whose values are text. Out: the same events, in capitals. Aside: events without a value, and values that are no text.

use nodata_component::{Events, Output, Result, component};

#[component]
fn shout(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    for event in events {
        match event.text() {
            Ok(text) => out.like(&event).id_of(&event).headers_of(&event).value(text.to_uppercase())?,
            Err(why) => out.reject(&event, why),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, Harness};

    #[test]
    fn values_are_in_capitals_and_the_rest_is_as_it_was() {
        let event = |value: &str| Event::new(value).key("k").id("1").header("h", "x").timestamp_us(7);
        let call = Harness::new(shout).call([event("straße"), Event::new([0xff]), Event::tombstone()]).ok();
        assert_eq!(call.events(), [event("STRASSE")]);
        assert_eq!(call.rejected().len(), 2);
    }
}
