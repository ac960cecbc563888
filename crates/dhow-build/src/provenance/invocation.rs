//! What was asked for, in the words of BuildKit's Dockerfile frontend.

use dhow_oci::Platform;
use serde_json::{Map, Value, json};

use super::Material;
use crate::facts::is_secret;
use crate::mount::MountKind;
use crate::output::ProvenanceMode;
use crate::plan::RunOp;
use crate::request::{BuildRequest, ContextSource, StepNetwork};

/// What the build was asked for.
pub(crate) struct Invocation {
    /// The context, where it came from elsewhere.
    context: Option<(String, Option<Material>)>,
    /// The Dockerfile in it.
    dockerfile: String,
    pub request: Value,
    /// Whether nothing of it is left out.
    pub is_complete: bool,
    /// What it ran on.
    pub builder_platform: String,
}

impl Invocation {
    /// `context` is what a context from elsewhere turned out to be, `runs` are the programs of the build.
    pub(crate) fn new(
        request: &BuildRequest,
        dockerfile: &str,
        context: Option<&Material>,
        mode: ProvenanceMode,
        runs: &[&RunOp],
    ) -> Invocation {
        let mut is_complete = true;
        let mut told = Map::new();
        told.insert("frontend".to_owned(), "dockerfile.v0".into());
        told.insert("args".to_owned(), args(request, mode, &mut is_complete).into());
        if mode == ProvenanceMode::Max {
            told.extend(mounts(runs));
        }
        let locals = locals(request);
        if !locals.is_empty() {
            let names = locals.iter().map(|name| json!({ "name": name }));
            told.insert("locals".to_owned(), names.collect::<Vec<_>>().into());
        }
        let from = match &request.context {
            ContextSource::Url(_) => Some((request.context.to_string(), context.cloned())),
            ContextSource::Folder(_) | ContextSource::Stream(_) => None,
        };
        let name = dockerfile.rsplit('/').next().unwrap_or(dockerfile);
        Invocation {
            context: from,
            dockerfile: name.to_owned(),
            request: Value::Object(told),
            is_complete,
            builder_platform: Platform::host().to_string(),
        }
    }

    /// What began the build. The Dockerfile is called `file` by one version and otherwise by the other.
    pub(super) fn config_source(&self, file: &str) -> Value {
        let mut source = Map::new();
        if let Some((uri, material)) = &self.context {
            source.insert("uri".to_owned(), uri.clone().into());
            source.extend(material.as_ref().map(|material| ("digest".to_owned(), material.digests())));
        }
        source.insert(file.to_owned(), self.dockerfile.clone().into());
        Value::Object(source)
    }
}

/// The options as buildx hands them over. Values that may be secret are never told, and with the small mode no
/// build argument is, nor a label.
fn args(request: &BuildRequest, mode: ProvenanceMode, is_complete: &mut bool) -> Map<String, Value> {
    let mut args = Map::new();
    for (name, value) in &request.build_args {
        if mode == ProvenanceMode::Max && !is_secret(name) {
            args.insert(format!("build-arg:{name}"), value.clone().into());
        } else {
            *is_complete = false;
        }
    }
    for (name, context) in &request.sources.named {
        // What a URL may hold of a password stays out.
        let is_url = ContextSource::is_url(context);
        let shown = if is_url { ContextSource::Url(context.clone()).to_string() } else { context.clone() };
        args.insert(format!("context:{name}"), shown.into());
    }
    let network = match request.network {
        StepNetwork::Default => None,
        given => Some(given.name()),
    };
    args.extend(network.map(|network| ("force-network-mode".to_owned(), network.into())));
    for (name, value) in &request.labels {
        if mode == ProvenanceMode::Max {
            args.insert(format!("label:{name}"), value.clone().into());
        } else {
            *is_complete = false;
        }
    }
    if request.no_cache || !request.no_cache_filter.is_empty() {
        let stages = if request.no_cache { String::new() } else { request.no_cache_filter.join(",") };
        args.insert("no-cache".to_owned(), stages.into());
    }
    args.extend(request.target.clone().map(|target| ("target".to_owned(), target.into())));
    args
}

/// Folders of this machine that files came from.
pub(crate) fn locals(request: &BuildRequest) -> Vec<String> {
    let own = match request.context {
        ContextSource::Folder(_) | ContextSource::Stream(_) => &["context", "dockerfile"][..],
        ContextSource::Url(_) => &[],
    };
    let named = request.sources.named.iter().filter(|(_, context)| {
        let others = ["docker-image://", "oci-layout://", "target:"];
        !ContextSource::is_url(context) && !others.iter().any(|other| context.starts_with(other))
    });
    own.iter().map(|name| (*name).to_owned()).chain(named.map(|(name, _)| name.clone())).collect()
}

/// Secrets and agents that programs could use, by their ids.
fn mounts(runs: &[&RunOp]) -> Map<String, Value> {
    let (mut secrets, mut agents) = (Map::new(), Map::new());
    for mount in runs.iter().flat_map(|run| &run.mounts) {
        match &mount.kind {
            MountKind::Secret { id, required, .. } => drop(secrets.insert(id.clone(), (!required).into())),
            MountKind::Ssh { id, required, .. } => drop(agents.insert(id.clone(), (!required).into())),
            MountKind::Bind { .. } | MountKind::Cache(_) | MountKind::Tmpfs { .. } => {}
        }
    }
    let listed = |ids: Map<String, Value>| {
        let entry = |(id, is_optional): (String, Value)| match is_optional == Value::Bool(true) {
            true => json!({ "id": id, "optional": true }),
            false => json!({ "id": id }),
        };
        Value::Array(ids.into_iter().map(entry).collect())
    };
    let both = [("secrets", secrets), ("ssh", agents)];
    let given = both.into_iter().filter(|(_, ids)| !ids.is_empty());
    given.map(|(name, ids)| (name.to_owned(), listed(ids))).collect()
}
