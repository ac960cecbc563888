//! Docker's JSON of events.

use dhow_engine::Event;
use serde_json::{Value, json};

const NS_PER_S: i64 = 1_000_000_000;

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
