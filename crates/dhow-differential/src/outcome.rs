//! What a build changed, in lines.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use crate::archive::Image;

/// Comments that BuildKit gives its own history entries.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// What old dockers tell about the container that a step ran in, and not about the image.
const NOT_THE_IMAGES: [&str; 8] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Hostname",
    "Image",
    "OpenStdin",
    "StdinOnce",
];

/// The images that cases build upon.
#[derive(Debug, Default)]
pub struct Bases(Vec<Image>);

impl Bases {
    /// Adds one.
    pub fn add(&mut self, image: Image) {
        self.0.push(image);
    }

    /// The one with the most layers of those that `image` begins with.
    fn of(&self, image: &Image) -> Option<&Image> {
        let fitting = self.0.iter().filter(|base| image.diff_ids.starts_with(&base.diff_ids));
        fitting.max_by_key(|base| base.diff_ids.len())
    }
}

/// How a build ended, in lines. Those that begin with `#` are for people only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome(Vec<String>);

impl Outcome {
    /// As it is written down.
    pub(crate) fn written(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    /// There is no image, for this reason.
    pub(crate) fn refused(complaint: &str) -> Self {
        let reason = complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Self(vec!["refused".to_owned(), format!("# {}", reason.trim())])
    }

    /// What `image` has that its base has not.
    pub(crate) fn built(image: &Image, bases: &Bases) -> Self {
        let nothing = Image { config: Value::Null, diff_ids: Vec::new(), tree: crate::tree::Tree::default() };
        let base = bases.of(image).unwrap_or(&nothing);
        let mut lines = image.tree.changes_from(&base.tree);
        lines.extend(config_changes(&image.config, &base.config));
        lines.extend(history(&image.config, &base.config));
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        Self(lines)
    }

    /// The lines of which only this one or only `actual` has as many, with a sign before.
    pub fn differences(&self, actual: &Outcome) -> Vec<String> {
        let without = |one: &Outcome, other: &Outcome, sign: &str| -> Vec<String> {
            let mut rest: Vec<String> = other.counted().cloned().collect();
            let is_extra = |line: &&String| match rest.iter().position(|held| held == *line) {
                Some(at) => {
                    rest.remove(at);
                    false
                }
                None => true,
            };
            one.counted().filter(is_extra).map(|line| format!("{sign} {line}")).collect()
        };
        let mut lines = without(self, actual, "-");
        lines.extend(without(actual, self, "+"));
        if lines.is_empty() && !self.counted().eq(actual.counted()) {
            lines.push("the same lines in another order".to_owned());
        }
        lines
    }

    fn counted(&self) -> impl Iterator<Item = &String> {
        self.0.iter().filter(|line| !line.starts_with('#'))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn config_changes(image: &Value, base: &Value) -> Vec<String> {
    let nothing = Map::new();
    let own = image["config"].as_object().unwrap_or(&nothing);
    let old = base["config"].as_object().unwrap_or(&nothing);
    let keys: BTreeSet<&String> = own.keys().chain(old.keys()).collect();
    let mut lines = Vec::new();
    for key in keys.into_iter().filter(|key| !NOT_THE_IMAGES.contains(&key.as_str())) {
        let value = |config: &Map<String, Value>| config.get(key).filter(|value| !is_empty(value)).cloned();
        lines.extend(value_changes(key, value(own), value(old)));
    }
    let author = |config: &Value| config.get("author").filter(|value| !is_empty(value)).cloned();
    lines.extend(value_changes("author", author(image), author(base)));
    lines
}

/// One line, or one for each member of an object whose members are the user's.
fn value_changes(key: &str, own: Option<Value>, old: Option<Value>) -> Vec<String> {
    if own == old {
        return Vec::new();
    }
    if matches!(key, "Labels" | "ExposedPorts" | "Volumes") {
        let members =
            |value: Option<Value>| value.and_then(|value| value.as_object().cloned()).unwrap_or_default();
        let (own, old) = (members(own), members(old));
        let keys: BTreeSet<&String> = own.keys().chain(old.keys()).collect();
        let changed = keys.into_iter().filter(|name| own.get(*name) != old.get(*name));
        return changed
            .map(|name| match own.get(name) {
                Some(value) => format!("config {key} {name:?}: {value}"),
                None => format!("config {key} {name:?} is gone"),
            })
            .collect();
    }
    vec![match own {
        Some(value) => format!("config {key}: {value}"),
        None => format!("config {key} is gone"),
    }]
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) => false,
    }
}

fn history(image: &Value, base: &Value) -> Vec<String> {
    let entries = |config: &Value| config["history"].as_array().cloned().unwrap_or_default();
    let (own, old) = (entries(image), entries(base));
    let line = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let kind = if entry["empty_layer"] == true { "history without a layer" } else { "history" };
        let comment = text("comment");
        let comment = if comment == COMMENT { String::new() } else { format!(" # {comment}") };
        let author = match text("author") {
            author if author.is_empty() => author,
            author => format!(" by {author}"),
        };
        format!("{kind}{author}: {}{comment}", Value::from(text("created_by")))
    };
    let layers = own.iter().filter(|entry| entry["empty_layer"] != true).count();
    let counted = image["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
    let fits =
        (layers != counted).then(|| format!("history of {layers} layers, of which there are {counted}"));
    own.iter().skip(old.len()).map(line).chain(fits).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_from_the_base_is_told() {
        let config = |config: Value| json!({ "config": config });
        let base =
            config(json!({ "Env": ["A=1"], "Labels": { "a": "1", "b": "2" }, "Cmd": ["sh"], "User": "" }));
        let image =
            config(json!({ "Env": ["A=1"], "Labels": { "b": "3" }, "Cmd": null, "Entrypoint": ["x"] }));
        expect![[r#"
            config Cmd is gone
            config Entrypoint: ["x"]
            config Labels "a" is gone
            config Labels "b": "3""#]]
        .assert_eq(&config_changes(&image, &base).join("\n"));
    }

    #[test]
    fn differences_name_lines_too_few_and_too_many() {
        let written = |text: &str| Outcome::written(text);
        let one = written("a\nb\n# for people\n");
        assert!(one.differences(&written("a\nb\n")).is_empty());
        assert_eq!(one.differences(&written("b\nc\nb\n")), ["- a", "+ c", "+ b"]);
        assert_eq!(one.differences(&written("b\na\n")), ["the same lines in another order"]);
    }
}
