use dhow_engine::{Engine, Event, EventRange};
use dhow_serve::event::{self, message};
use dhow_template::{MissingKey, Template};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;
use crate::when;

/// Show what happens to images, containers and volumes
#[derive(clap::Args, Debug)]
pub(crate) struct EventsArgs {
    /// Show only what fits, such as type=image, event=die or container=NAME (can be repeated)
    #[arg(short, long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Format output by a Go template, or 'json'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Begin with what happened since then, such as 2026-01-31T12:00:00 or 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show what happens until then, and end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

pub(crate) fn run(args: &EventsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let now = Timestamp::now();
    let filters = Filters::parse(&args.filters, event::FILTERS)?;
    let time = |text: &Option<String>| text.as_deref().map(|text| when::parse_ns(text, now)).transpose();
    let until_ns = time(&args.until)?;
    // Who asks for an end only means what has been, as with docker.
    let since_ns = time(&args.since)?.or(until_ns.map(|_| 0));
    let values = |name: &str| filters.all(name).map(str::to_owned).collect();
    let show = Show::new(args.format.as_deref())?;
    let mut failed = None;
    engine.events(EventRange { since_ns, until_ns }, &mut |event| {
        let shown = if event::fits(event, &values) { show.print(event, ui) } else { Ok(()) };
        // Who follows wants to see each when it happens.
        failed = shown.and_then(|()| ui.flush()).err();
        failed.is_none()
    })?;
    failed.map_or(Ok(0), Err)
}

/// How an event is printed.
enum Show {
    Text,
    Json,
    Template(Template),
}

impl Show {
    fn new(format: Option<&str>) -> Result<Show, CliError> {
        Ok(match format {
            None | Some("") => Show::Text,
            Some("json" | "{{json .}}" | "{{ json . }}") => Show::Json,
            Some(format) => Show::Template(Template::parse(format)?.missing_key(MissingKey::Error)),
        })
    }

    fn print(&self, event: &Event, ui: &mut Ui) -> Result<(), CliError> {
        match self {
            Show::Text => ui.line(text(event)),
            Show::Json => ui.line(message(event)),
            Show::Template(template) => ui.line(template.render(&fields(event))?),
        }
    }
}

/// An event as docker's templates know it.
fn fields(event: &Event) -> Value {
    let message = message(event);
    json!({
        "Type": event.kind,
        "Action": event.action,
        "Status": event.action,
        "ID": event.id,
        "From": message["from"].as_str().unwrap_or_default(),
        "Actor": message["Actor"],
        "Scope": message["scope"],
        "Time": message["time"],
        "TimeNano": message["timeNano"],
    })
}

fn text(event: &Event) -> String {
    let Event { kind, action, id, attributes, time_ns } = event;
    let time = Timestamp::from_nanosecond(i128::from(*time_ns)).unwrap_or_default();
    let time = time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    let time = time.strip_suffix("+00:00").map(|utc| format!("{utc}Z")).unwrap_or(time);
    let attributes: Vec<String> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    match attributes.is_empty() {
        true => format!("{time} {kind} {action} {id}"),
        false => format!("{time} {kind} {action} {id} ({})", attributes.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            kind: "container".into(),
            action: "exec_start: ls".into(),
            id: "0123456789".into(),
            attributes: [("image", "busybox:latest"), ("name", "web"), ("a", "b")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            time_ns: 1_500_000_001,
        }
    }

    #[test]
    fn filters_of_one_name_are_alternatives_and_names_must_all_fit() {
        let check = |texts: &[&str], expected| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let filters = Filters::parse(&texts, event::FILTERS).expect("filters");
            let values = |name: &str| filters.all(name).map(str::to_owned).collect();
            assert_eq!(event::fits(&event(), &values), expected, "{texts:?}");
        };
        check(&[], true);
        check(&["type=image"], false);
        check(&["type=image", "type=container"], true);
        check(&["container=web", "event=exec_start"], true);
        check(&["container=0123", "event=die"], false);
        check(&["image=busybox"], true);
        check(&["label=a=b", "label=a"], true);
        check(&["label=a=c"], false);
        check(&["plugin=x"], false);
    }

    #[test]
    fn an_event_is_printed_as_docker_does() {
        let text = text(&event());
        let (time, rest) = text.split_once(' ').expect("a time");
        assert!(time.contains(":01.500000001"), "{time}");
        assert_eq!(rest, "container exec_start: ls 0123456789 (a=b, image=busybox:latest, name=web)");
    }
}
