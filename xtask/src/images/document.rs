//! The JSON of an image: config, manifest and index, in docker's words or image-spec's.

use serde_json::{Map, Value, json};

use super::pack::{self, Packed};
use super::recipes::{Dialect, EPOCH_TEXT, ImageRecipe, STAND_IN_LABEL};

/// A piece of JSON as it goes to the registry, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Document {
    /// `sha256:…` of the bytes.
    pub(crate) fn digest(&self) -> String {
        pack::digest(&self.bytes)
    }

    fn new(media_type: &'static str, value: &Value) -> Self {
        Self { media_type, bytes: value.to_string().into_bytes() }
    }

    fn descriptor(&self) -> Map<String, Value> {
        descriptor(self.media_type, &self.digest(), self.bytes.len() as u64)
    }
}

/// A layer with its line in the history.
#[derive(Debug, Clone)]
pub(crate) struct HistoryLayer {
    pub(crate) packed: Packed,
    pub(crate) created_by: &'static str,
}

/// The config of `image` for `architecture`.
///
/// `caveat` is added to what the stand-in says of itself.
pub(crate) fn config(
    image: &ImageRecipe,
    architecture: &str,
    layers: &[HistoryLayer],
    caveat: &str,
) -> Document {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.packed.diff_id.as_str()).collect();
    let value = json!({
        "created": EPOCH_TEXT,
        "architecture": architecture,
        "os": "linux",
        "config": execution(image, caveat),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history(image, layers),
    });
    Document::new(media_types(image.dialect).config, &value)
}

/// The `config` within the config: how to run it. What is not set is not mentioned.
fn execution(image: &ImageRecipe, caveat: &str) -> Value {
    let set =
        |names: &[&str]| Value::Object(names.iter().map(|name| ((*name).to_owned(), json!({}))).collect());
    let mut config = Map::new();
    let mut put = |name: &str, value: Value| {
        let is_empty = match &value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if !is_empty {
            config.insert(name.to_owned(), value);
        }
    };
    put("ExposedPorts", set(image.exposed_ports));
    put("Env", json!(image.env));
    put("Entrypoint", json!(image.entrypoint));
    put("Cmd", json!(image.cmd));
    put("Volumes", set(image.volumes));
    put("WorkingDir", json!(image.working_dir));
    let labels =
        image.stand_in.iter().map(|text| (STAND_IN_LABEL.to_owned(), json!(format!("{text}{caveat}"))));
    put("Labels", Value::Object(labels.collect()));
    Value::Object(config)
}

fn history(image: &ImageRecipe, layers: &[HistoryLayer]) -> Value {
    let layers = layers.iter().map(|layer| json!({ "created": EPOCH_TEXT, "created_by": layer.created_by }));
    let last = [("ENTRYPOINT", image.entrypoint), ("CMD", image.cmd)]
        .into_iter()
        .filter(|(_, words)| !words.is_empty());
    let empty = last.map(|(name, words)| {
        json!({ "created": EPOCH_TEXT, "created_by": format!("{name} {}", json!(words)), "empty_layer": true })
    });
    layers.chain(empty).collect()
}

/// The manifest that ties `config` and `layers` together.
pub(crate) fn manifest(dialect: Dialect, config: &Document, layers: &[HistoryLayer]) -> Document {
    let media_types = media_types(dialect);
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| Value::Object(descriptor(media_types.layer, &layer.packed.digest, layer.packed.size)))
        .collect();
    let value = json!({
        "schemaVersion": 2,
        "mediaType": media_types.manifest,
        "config": config.descriptor(),
        "layers": layers,
    });
    Document::new(media_types.manifest, &value)
}

/// The index of `manifests`, each with its architecture.
pub(crate) fn index(dialect: Dialect, manifests: &[(&str, &Document)]) -> Document {
    let entries: Vec<_> = manifests
        .iter()
        .map(|(architecture, manifest)| {
            let mut entry = manifest.descriptor();
            entry.insert("platform".to_owned(), json!({ "architecture": architecture, "os": "linux" }));
            Value::Object(entry)
        })
        .collect();
    let media_type = media_types(dialect).index;
    Document::new(media_type, &json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries }))
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Map<String, Value> {
    let Value::Object(map) = json!({ "mediaType": media_type, "digest": digest, "size": size }) else {
        unreachable!("an object was written")
    };
    map
}

struct MediaTypes {
    config: &'static str,
    layer: &'static str,
    manifest: &'static str,
    index: &'static str,
}

fn media_types(dialect: Dialect) -> MediaTypes {
    match dialect {
        Dialect::Docker => MediaTypes {
            config: "application/vnd.docker.container.image.v1+json",
            layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
            manifest: "application/vnd.docker.distribution.manifest.v2+json",
            index: "application/vnd.docker.distribution.manifest.list.v2+json",
        },
        Dialect::Oci => MediaTypes {
            config: "application/vnd.oci.image.config.v1+json",
            layer: "application/vnd.oci.image.layer.v1.tar+gzip",
            manifest: "application/vnd.oci.image.manifest.v1+json",
            index: "application/vnd.oci.image.index.v1+json",
        },
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::recipes::IMAGES;
    use super::*;

    fn layers() -> Vec<HistoryLayer> {
        let packed =
            Packed { diff_id: "sha256:aa".to_owned(), digest: "sha256:bb".to_owned(), size: 7, tar_size: 20 };
        vec![HistoryLayer { packed, created_by: "COPY hello /" }]
    }

    fn image(name: &str) -> &'static ImageRecipe {
        IMAGES.iter().find(|image| image.names.contains(&name)).unwrap()
    }

    fn check(document: &Document, expected: Expect) {
        let value: Value = serde_json::from_slice(&document.bytes).unwrap();
        expected.assert_eq(&format!("{}\n", serde_json::to_string_pretty(&value).unwrap()));
    }

    #[test]
    fn a_config_mentions_only_what_is_set() {
        check(
            &config(image("library/hello-world:latest"), "amd64", &layers(), ""),
            expect![[r#"
            {
              "created": "2026-09-01T00:00:00Z",
              "architecture": "amd64",
              "os": "linux",
              "config": {
                "Env": [
                  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                ],
                "Cmd": [
                  "/hello"
                ],
                "Labels": {
                  "org.dhow.stand-in": "a program with the purpose of docker's hello-world and words of its own"
                }
              },
              "rootfs": {
                "type": "layers",
                "diff_ids": [
                  "sha256:aa"
                ]
              },
              "history": [
                {
                  "created": "2026-09-01T00:00:00Z",
                  "created_by": "COPY hello /"
                },
                {
                  "created": "2026-09-01T00:00:00Z",
                  "created_by": "CMD [\"/hello\"]",
                  "empty_layer": true
                }
              ]
            }
        "#]],
        );
    }

    #[test]
    fn a_stand_in_says_what_it_is_and_what_went_wrong() {
        let config = config(image("library/ubuntu:14.04"), "amd64", &layers(), " (it rained)");
        let value: Value = serde_json::from_slice(&config.bytes).unwrap();
        assert_eq!(
            value["config"]["Labels"][STAND_IN_LABEL],
            "Debian 11, in place of Ubuntu 14.04 (it rained)"
        );
    }

    #[test]
    fn ports_and_volumes_are_sets() {
        let config = config(image("library/mongo:latest"), "amd64", &layers(), "");
        let value: Value = serde_json::from_slice(&config.bytes).unwrap();
        assert_eq!(value["config"]["ExposedPorts"], json!({ "27017/tcp": {} }));
        assert_eq!(value["config"]["Volumes"], json!({ "/data/configdb": {}, "/data/db": {} }));
    }

    #[test]
    fn a_docker_manifest_speaks_docker_throughout() {
        let config = config(image("library/python:2.7-slim"), "amd64", &layers(), "");
        let manifest = manifest(Dialect::Docker, &config, &layers());
        let text = String::from_utf8(manifest.bytes.clone()).unwrap();
        assert!(!text.contains("oci"), "{text}");
        assert!(text.contains(&config.digest()), "{text}");
    }

    #[test]
    fn an_index_names_the_platform_of_each_manifest() {
        let manifest =
            Document { media_type: "application/vnd.oci.image.manifest.v1+json", bytes: b"{}".to_vec() };
        check(
            &index(Dialect::Oci, &[("amd64", &manifest), ("s390x", &manifest)]),
            expect![[r#"
            {
              "schemaVersion": 2,
              "mediaType": "application/vnd.oci.image.index.v1+json",
              "manifests": [
                {
                  "mediaType": "application/vnd.oci.image.manifest.v1+json",
                  "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
                  "size": 2,
                  "platform": {
                    "architecture": "amd64",
                    "os": "linux"
                  }
                },
                {
                  "mediaType": "application/vnd.oci.image.manifest.v1+json",
                  "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
                  "size": 2,
                  "platform": {
                    "architecture": "s390x",
                    "os": "linux"
                  }
                }
              ]
            }
        "#]],
        );
    }
}
