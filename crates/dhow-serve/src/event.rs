//! Docker's JSON of events.

use dhow_engine::{Event, Label};
use serde_json::{Value, json};

const NS_PER_S: i64 = 1_000_000_000;
/// What filters may be about.
pub const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// A message of `GET /events`.
pub fn message(event: &Event) -> Value {
    let Event { kind, action, id, attributes, time_ns } = event;
    let mut message = json!({
        "Type": kind,
        "Action": action,
        "Actor": { "ID": id, "Attributes": attributes },
        "scope": "local",
        "time": time_ns.div_euclid(NS_PER_S),
        "timeNano": time_ns,
    });
    // The names that these fields had before 2016, which scripts still read.
    if matches!(kind.as_str(), "container" | "image") {
        let fields = message.as_object_mut().expect("it was written as an object");
        fields.insert("status".to_owned(), Value::from(action.as_str()));
        fields.insert("id".to_owned(), Value::from(id.as_str()));
        if let Some(image) = attributes.get("image").filter(|_| kind == "container") {
            fields.insert("from".to_owned(), Value::from(image.as_str()));
        }
    }
    message
}

/// Whether these filters let an event through; `values` are those of a filter, by its name. Values of one name are
/// alternatives, names and labels must all fit.
pub fn fits(event: &Event, values: &dyn Fn(&str) -> Vec<String>) -> bool {
    let any = |name: &str, fits: &dyn Fn(&str) -> bool| {
        let wanted = values(name);
        wanted.is_empty() || wanted.iter().any(|value| fits(value))
    };
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    // An id may be given by its beginning, and an image's name without its tag.
    let is_called = |kind: &str, text: &str| {
        event.kind == kind
            && (event.id.starts_with(text)
                || attribute("name") == Some(text)
                || event.id.trim_start_matches("sha256:").starts_with(text))
    };
    let image = |text: &str| {
        is_called("image", text) || attribute("image").is_some_and(|image| same_image(image, text))
    };
    let none_of = ["config", "node", "plugin", "secret", "service"];
    any("type", &|text| event.kind == text)
        && any("event", &|text| event.action == text || event.action.split(':').next() == Some(text))
        && any("container", &|text| is_called("container", text))
        && any("volume", &|text| is_called("volume", text))
        && any("network", &|text| is_called("network", text))
        && any("image", &image)
        && any("scope", &|text| text == "local")
        && any("daemon", &|_| event.kind == "daemon")
        && none_of.iter().all(|name| values(name).is_empty())
        && values("label").iter().all(|label| Label::parse(label).is_in(&event.attributes))
}

fn same_image(image: &str, text: &str) -> bool {
    image == text || image.rsplit_once(':').is_some_and(|(name, _)| name == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_events_are_alternatives_and_labels_are_not() {
        let attributes = [("name", "web"), ("image", "busybox"), ("a", "1")];
        let event = Event {
            kind: "container".into(),
            action: "exec_start: ls".into(),
            id: "abc123".into(),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            time_ns: 0,
        };
        for (name, wanted, expected) in [
            ("type", &["image", "container"][..], true),
            ("container", &["web"], true),
            ("container", &["abc"], true),
            ("container", &["other"], false),
            ("event", &["exec_start"], true),
            ("event", &["exec"], false),
            ("label", &["a", "a=1"], true),
            ("label", &["a", "b"], false),
            ("image", &["busybox"], true),
            ("volume", &["web"], false),
        ] {
            let values = |asked: &str| match asked == name {
                true => wanted.iter().map(|value| (*value).to_owned()).collect(),
                false => Vec::new(),
            };
            assert_eq!(fits(&event, &values), expected, "{name}={wanted:?}");
        }
    }
}
