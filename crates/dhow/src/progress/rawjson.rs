use std::collections::HashMap;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_engine::{BuildEvent, PullEvent, StepId, StepInfo, Stream};
use dhow_oci::{Digest, Reference};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Progress;
use super::plain::{has_stages, title};

/// One JSON object a line, in the shape of BuildKit's `SolveStatus`: `vertexes`, `statuses`, `logs`, `warnings`. Goes to
/// standard error. A vertex that runs also has `reason`: why it was not cached.
pub(crate) struct RawJson {
    vertices: HashMap<StepId, Map<String, Value>>,
    /// Vertices of base images being looked up.
    lookups: HashMap<String, Map<String, Value>>,
}

fn now() -> String {
    Timestamp::now().to_string()
}

fn say(what: &str, value: Value) {
    // Standard error gone means that nobody is left to be told.
    let _ = writeln!(std::io::stderr(), "{}", json!({ what: [value] }));
}

/// A name for a vertex, which consumers take for a digest.
fn digest(name: &str) -> String {
    Digest::sha256_of(name.as_bytes()).to_string()
}

impl RawJson {
    pub(crate) fn new() -> RawJson {
        RawJson { vertices: HashMap::new(), lookups: HashMap::new() }
    }

    fn planned(&mut self, steps: &[StepInfo]) {
        for lookup in std::mem::take(&mut self.lookups).into_values() {
            complete(lookup);
        }
        let has_stages = has_stages(steps);
        let mut below: Option<(&str, String)> = None;
        for step in steps {
            let own = digest(&format!("{} {}", step.id.0, title(step, has_stages)));
            let mut vertex = Map::new();
            vertex.insert("digest".to_owned(), own.clone().into());
            if let Some((_, input)) = below.take().filter(|(stage, _)| *stage == step.stage) {
                vertex.insert("inputs".to_owned(), json!([input]));
            }
            vertex.insert("name".to_owned(), title(step, has_stages).into());
            say("vertexes", vertex.clone().into());
            self.vertices.insert(step.id, vertex);
            below = Some((&step.stage, own));
        }
    }

    /// Changes a vertex and tells what it is now.
    fn update(&mut self, id: StepId, fields: &[(&str, Value)]) {
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        vertex.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        say("vertexes", vertex.clone().into());
    }

    fn digest_of(&self, id: StepId) -> Value {
        self.vertices.get(&id).and_then(|vertex| vertex.get("digest")).cloned().unwrap_or_default()
    }

    fn resolving(&mut self, reference: &Reference) {
        let name = format!("[internal] load metadata for {reference}");
        let mut vertex = Map::new();
        vertex.insert("digest".to_owned(), digest(&name).into());
        vertex.insert("name".to_owned(), name.into());
        vertex.insert("started".to_owned(), now().into());
        say("vertexes", vertex.clone().into());
        self.lookups.insert(reference.to_string(), vertex);
    }

    fn pulling(&self, reference: &Reference, event: &PullEvent) {
        let vertex = self.lookups.get(&reference.to_string()).and_then(|vertex| vertex.get("digest"));
        let vertex = vertex.cloned().unwrap_or_default();
        match event {
            PullEvent::Warning(text) => self.warning(vertex, text),
            PullEvent::Started => {
                let name = format!("pull {}", reference.familiar());
                say(
                    "statuses",
                    json!({ "id": name, "vertex": vertex, "name": name, "current": 0, "timestamp": now(), "started": now() }),
                );
            }
            _ => {}
        }
    }

    fn warning(&self, vertex: Value, text: &str) {
        let text = text.trim_end();
        let (short, detail) = text.split_once('\n').unwrap_or((text, ""));
        let detail: Vec<String> = detail.lines().map(|line| STANDARD.encode(line)).collect();
        say(
            "warnings",
            json!({ "vertex": vertex, "level": 1, "short": STANDARD.encode(short), "detail": detail }),
        );
    }
}

fn complete(mut vertex: Map<String, Value>) {
    vertex.insert("completed".to_owned(), now().into());
    say("vertexes", vertex.into());
}

impl Progress for RawJson {
    fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Resolving(reference) => self.resolving(reference),
            BuildEvent::Pulling(reference, event) => self.pulling(reference, event),
            BuildEvent::Planned(steps) => self.planned(steps),
            BuildEvent::Started(id) => self.update(*id, &[("started", now().into())]),
            BuildEvent::Cached(id) | BuildEvent::CachedFrom(id, _) => {
                self.update(*id, &[("cached", true.into())])
            }
            BuildEvent::Running(id, reason) => self.update(*id, &[("reason", reason.to_string().into())]),
            BuildEvent::Output(id, stream, bytes) => {
                let stream = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                let (vertex, data) = (self.digest_of(*id), STANDARD.encode(bytes));
                say("logs", json!({ "vertex": vertex, "stream": stream, "data": data, "timestamp": now() }));
            }
            BuildEvent::Finished(id, _) => self.update(*id, &[("completed", now().into())]),
            BuildEvent::Failed(id) => {
                self.update(*id, &[("completed", now().into()), ("error", "the step failed".into())]);
            }
            BuildEvent::GivenUp(id) => {
                self.update(*id, &[("completed", now().into()), ("error", "context canceled".into())]);
            }
            BuildEvent::Warning { file, source, diagnostic } => {
                self.warning(Value::from(""), &dhow_engine::render(diagnostic, file, source));
            }
            BuildEvent::Note(text) => self.warning(Value::from(""), text),
            BuildEvent::CacheUnusable(cache, why) => {
                self.warning(Value::from(""), &super::cache_warning(cache, why));
            }
            _ => {}
        }
    }

    fn built(&mut self, image: &Digest, names: &[Reference]) {
        let name = "exporting to image";
        let vertex = digest(name);
        let at = now();
        say("vertexes", json!({ "digest": vertex, "name": name, "started": at, "completed": at }));
        let said = std::iter::once(format!("writing image {image}"));
        for text in said.chain(names.iter().map(|name| format!("naming to {name}"))) {
            say(
                "statuses",
                json!({ "id": text, "vertex": vertex, "current": 0, "timestamp": at, "started": at, "completed": at }),
            );
        }
    }
}
