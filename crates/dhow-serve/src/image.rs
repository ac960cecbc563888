//! Docker's JSON of images.

use dhow_engine::{ImageDetails, ImageSummary, ListEntry};
use dhow_oci::{ContainerConfig, ImageConfig, Reference};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The fields of a configuration that docker always shows, with what stands for nothing.
const CONFIG_FIELDS: [&str; 9] =
    ["User", "ExposedPorts", "Env", "Cmd", "Entrypoint", "Volumes", "WorkingDir", "Labels", "OnBuild"];

/// `GET /images/{name}/json` and `docker image inspect`.
pub fn inspect(details: &ImageDetails) -> Value {
    let ImageDetails { image, config, layer_folders } = details;
    let record = &image.record;
    let nothing = ImageConfig::default();
    let is_artifact = config.is_none();
    let config = config.as_ref().unwrap_or(&nothing);
    let comment = config.history.last().map_or("", |history| history.comment.as_str());
    let tagged_at = image.names.iter().map(|name| name.tagged_at).max();
    let tags: Vec<String> = image.names.iter().map(|name| familiar(&name.reference)).collect();
    let digests = image.repo_digests.iter();
    let digests: Vec<String> =
        digests.map(|digest| format!("{}@{}", familiar(&digest.repository), digest.digest)).collect();
    let mut inspect = json!({
        "Id": record.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment,
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author,
        "Config": if is_artifact { Value::Null } else { container_config(&config.config) },
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": record.size_bytes,
        "GraphDriver": graph_driver(layer_folders),
        "RootFS": { "Type": "layers", "Layers": record.diff_ids },
        "Metadata": { "LastTagTime": tagged_at.and_then(time) },
        "Descriptor": record.target,
    });
    let optional = ["Variant", "Descriptor"];
    let fields = inspect.as_object_mut().expect("it was written as an object");
    fields.retain(|name, value| !optional.contains(&name.as_str()) || !is_nothing(value));
    inspect
}

/// How to run a container of an image, with the fields that templates ask for even if nothing is in them.
pub fn container_config(config: &ContainerConfig) -> Value {
    let written = serde_json::to_value(config).expect("a configuration has only text for keys");
    let mut written = match written {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let mut fields = Map::new();
    for name in CONFIG_FIELDS {
        let nothing = if matches!(name, "User" | "WorkingDir") { Value::from("") } else { Value::Null };
        fields.insert(name.to_owned(), written.remove(name).unwrap_or(nothing));
    }
    fields.extend(written);
    Value::Object(fields)
}

/// The folders an overlay of the image is made of, by docker's names.
fn graph_driver(folders: &[std::path::PathBuf]) -> Value {
    let paths: Vec<String> = folders.iter().rev().map(|folder| folder.display().to_string()).collect();
    let mut data = Map::new();
    if let Some((upper, lowers)) = paths.split_first() {
        if !lowers.is_empty() {
            data.insert("LowerDir".to_owned(), Value::from(lowers.join(":")));
        }
        data.insert("UpperDir".to_owned(), Value::from(upper.as_str()));
    }
    json!({ "Name": "overlay2", "Data": data })
}

/// `GET /images/json`: one of the list.
pub fn summary(summary: &ImageSummary) -> Value {
    let ImageSummary { image, containers } = summary;
    let tags: Vec<String> = image.names.iter().map(|name| familiar(&name.reference)).collect();
    let digest = |digest: &dhow_engine::RepoDigest| {
        let repository = digest.repository.parse::<Reference>();
        let name = repository.map_or_else(|_| digest.repository.clone(), |name| name.familiar_name());
        format!("{name}@{}", digest.digest)
    };
    json!({
        "Id": image.record.id.to_string(),
        "ParentId": "",
        "RepoTags": tags,
        "RepoDigests": image.repo_digests.iter().map(digest).collect::<Vec<_>>(),
        "Created": image.record.created,
        "Size": image.record.size_bytes,
        "VirtualSize": image.record.size_bytes,
        "SharedSize": -1,
        "Labels": image.record.labels,
        "Containers": containers,
    })
}

/// `GET /distribution/{name}/json`.
pub fn distribution(entry: &ListEntry) -> Value {
    let descriptor = serde_json::to_value(&entry.descriptor).expect("plain data serializes");
    let platforms: Vec<Value> = match &entry.descriptor.platform {
        Some(platform) => vec![serde_json::to_value(platform).expect("plain data serializes")],
        None => Vec::new(),
    };
    json!({ "Descriptor": descriptor, "Platforms": platforms })
}

/// A name as people write it.
pub(crate) fn familiar(text: &str) -> String {
    text.parse::<Reference>().map_or_else(|_| text.to_owned(), |reference| reference.familiar())
}

fn time(seconds: i64) -> Option<String> {
    Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value == ""
}
