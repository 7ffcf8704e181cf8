//! Does with the table `t` what each event says, and pushes what came of it:
//!
//! ```text
//! get KEY    put KEY VALUE    delete KEY    get-many KEY…    put-many KEY=VALUE…    scan START END    scan-all
//! open NAME    put-large KEY BYTES    fail    trap
//! ```

use nodata_component::{Error, Events, Output, Result, component, state, state::Table};

#[component]
fn uses_state(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let table = Table::open("t")?;
    for event in events {
        let words: Vec<&str> = event.text()?.split(' ').collect();
        let answer = match words[..] {
            ["fail"] => return Err(Error::permanent("asked to")),
            ["trap"] => panic!("asked to"),
            _ => answer(&table, &words).unwrap_or_else(|error| format!("{error:?}")),
        };
        out.like(&event).value(answer)?;
    }
    Ok(())
}

fn answer(table: &Table, words: &[&str]) -> state::Result<String> {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let listed = |entries: state::Scan<'_>| -> state::Result<String> {
        let mut list = Vec::new();
        for entry in entries {
            let (key, value) = entry?;
            list.push(format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value)));
        }
        Ok(list.join(" "))
    };
    match words {
        ["get", key] => table.get(key).map(|value| format!("{:?}", text(value.as_deref()))),
        ["put", key, value] => table.put(key, value).map(|()| "put".to_owned()),
        ["put-large", key, bytes] => table.put(key, vec![b'x'; bytes.parse().unwrap_or(0)]).map(|()| "put".to_owned()),
        ["delete", key] => table.delete(key).map(|()| "deleted".to_owned()),
        ["get-many", keys @ ..] => {
            table.get_many(keys).map(|values| format!("{:?}", values.iter().map(text).collect::<Vec<_>>()))
        }
        ["put-many", entries @ ..] => {
            let entries = entries.iter().filter_map(|entry| entry.split_once('='));
            table.put_many(entries).map(|()| "put".to_owned())
        }
        ["scan", start, end] => listed(table.scan(start..end)),
        ["scan-all"] => listed(table.scan(..)),
        ["open", name] => Table::open(name).map(|_| "open".to_owned()),
        _ => Ok(format!("what is {words:?}?")),
    }
}
