//! Volumes as Docker describes them.

use std::collections::BTreeMap;

use dhow_engine::Label;
use dhow_engine::containers::Volume;
use serde_json::{Value, json};

/// The answer to `GET /volumes/{name}`.
pub fn inspect(volume: &Volume) -> Value {
    json!({
        "CreatedAt": seconds_only(&volume.created),
        "Driver": volume.driver(),
        "Labels": map(&volume.labels),
        "Mountpoint": volume.mountpoint.display().to_string(),
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": "local",
    })
}

/// Whether a list with these filters shows a volume; `values` are those of a filter, by its name. Names and drivers are
/// alternatives, labels must all fit.
pub fn fits(volume: &Volume, values: &dyn Fn(&str) -> Vec<String>) -> bool {
    let any = |name: &str, fits: &dyn Fn(&str) -> bool| {
        let wanted = values(name);
        wanted.is_empty() || wanted.iter().any(|value| fits(value))
    };
    let has = |text: &String| Label::parse(text).is_in(&volume.labels);
    any("name", &|text| volume.name.contains(text))
        && any("driver", &|text| volume.driver() == text)
        && values("label").iter().all(has)
        && !values("label!").iter().any(has)
}

/// Docker says `null` where nothing was given.
fn map(entries: &BTreeMap<String, String>) -> Value {
    if entries.is_empty() { Value::Null } else { json!(entries) }
}

/// The time without its fraction, as it comes from a folder's time there.
fn seconds_only(time: &str) -> String {
    let whole = time.split_once('.').map_or(time, |(whole, _)| whole);
    if whole.is_empty() || whole.ends_with('Z') { whole.to_owned() } else { format!("{whole}Z") }
}
