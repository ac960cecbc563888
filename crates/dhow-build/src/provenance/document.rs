//! The predicate in the two versions of SLSA's provenance that BuildKit writes.

use serde_json::{Map, Value, json};

use super::{Invocation, Material, StepLayers};

/// What tells readers how the rest is to be read.
const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";

/// What can be said about how one image came to be.
pub(crate) struct Predicate {
    pub invocation: Invocation,
    pub materials: Vec<Material>,
    /// Whether those are all it was made of.
    pub has_all_materials: bool,
    /// Whether no step could reach the network.
    pub is_hermetic: bool,
    pub is_reproducible: bool,
    pub builder_id: String,
    /// The steps, if they are told.
    pub build_config: Option<Value>,
    /// The Dockerfile with the places of the steps in it, if it is told.
    pub source: Option<Value>,
    pub layers: StepLayers,
    /// Tells the build from all others.
    pub id: String,
    pub started: String,
    pub finished: String,
}

impl Predicate {
    /// All of it but for the layers.
    pub(crate) fn text(&self) -> String {
        self.v1(None).to_string()
    }

    pub(super) fn v1(&self, layers: Option<Value>) -> Value {
        let mut internal = Map::new();
        internal.extend(self.build_config.clone().map(|config| ("buildConfig".to_owned(), config)));
        internal.insert("builderPlatform".to_owned(), self.invocation.builder_platform.clone().into());
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE_V1,
                "externalParameters": {
                    "configSource": self.invocation.config_source("path"),
                    "request": self.invocation.request,
                },
                "internalParameters": internal,
                "resolvedDependencies": self.materials(),
            },
            "runDetails": {
                "builder": { "id": self.builder_id },
                "metadata": {
                    "invocationId": self.id,
                    "startedOn": self.started,
                    "finishedOn": self.finished,
                    "buildkit_metadata": self.metadata(layers),
                    "buildkit_hermetic": self.is_hermetic,
                    "buildkit_completeness": {
                        "request": self.invocation.is_complete,
                        "resolvedDependencies": self.has_all_materials,
                    },
                    "buildkit_reproducible": self.is_reproducible,
                },
            },
        })
    }

    pub(super) fn v02(&self, layers: Option<Value>) -> Value {
        let mut predicate = json!({
            "builder": { "id": self.builder_id },
            "buildType": BUILD_TYPE_V02,
            "materials": self.materials(),
            "invocation": {
                "configSource": self.invocation.config_source("entryPoint"),
                "parameters": self.invocation.request,
                "environment": { "platform": self.invocation.builder_platform },
            },
            "metadata": {
                "buildInvocationID": self.id,
                "buildStartedOn": self.started,
                "buildFinishedOn": self.finished,
                "completeness": {
                    "parameters": self.invocation.is_complete,
                    "environment": true,
                    "materials": self.has_all_materials,
                },
                "reproducible": self.is_reproducible,
                "https://mobyproject.org/buildkit@v1#hermetic": self.is_hermetic,
                "https://mobyproject.org/buildkit@v1#metadata": self.metadata(layers),
            },
        });
        if let Some(config) = &self.build_config {
            predicate["buildConfig"] = config.clone();
        }
        predicate
    }

    fn materials(&self) -> Vec<Value> {
        self.materials.iter().map(Material::json).collect()
    }

    fn metadata(&self, layers: Option<Value>) -> Value {
        let mut metadata = Map::new();
        metadata.extend(self.source.clone().map(|source| ("source".to_owned(), source)));
        metadata.extend(layers.map(|layers| ("layers".to_owned(), layers)));
        Value::Object(metadata)
    }
}
