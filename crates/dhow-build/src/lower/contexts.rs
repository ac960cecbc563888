//! Named contexts: what stands in for a stage, a base image or the source of a `COPY --from`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dhow_dockerfile::Span;
use dhow_image::Layout;
use dhow_oci::Reference;
use dhow_solver::{CachePolicy, Site, Vertex, VertexId};

use super::base::scratch;
use super::{Lowering, StageEnd};
use crate::error::{BuildError, StepError};
use crate::plan::{BaseImage, CopyFrom, CopyOp, CopySource, Op, PlannedHistory, PlannedStage};
use crate::remote::{GitSource, HttpSource, WrittenBy, is_http};
use crate::scope::Declared;

/// What a name was given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NamedContext {
    Folder(PathBuf),
    Image(Reference),
    Layout(Layout),
    Repository(GitSource),
    File(HttpSource),
    /// A stage of the Dockerfile.
    Target(String),
}

impl NamedContext {
    /// Reads all of them, by the names under which a Dockerfile finds them.
    pub(crate) fn parse_all(
        named: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, NamedContext>, BuildError> {
        let mut contexts = BTreeMap::new();
        for (name, value) in named {
            let invalid = |why: String| BuildError::Request(format!("build context {name}: {why}"));
            if ["scratch", "context"].contains(&name.to_ascii_lowercase().as_str()) {
                return Err(invalid("the name is reserved".to_owned()));
            }
            let key = normal(name).ok_or_else(|| invalid("invalid name".to_owned()))?;
            contexts.insert(key, NamedContext::parse(value).map_err(invalid)?);
        }
        Ok(contexts)
    }

    /// The one of a name as it was given.
    pub(crate) fn find(
        named: &BTreeMap<String, String>,
        name: &str,
    ) -> Result<Option<NamedContext>, BuildError> {
        let mut all = NamedContext::parse_all(named)?;
        Ok(normal(name).and_then(|key| all.remove(&key)))
    }

    fn parse(text: &str) -> Result<NamedContext, String> {
        if let Some(image) = text.strip_prefix("docker-image://") {
            let reference: Reference = image.parse().map_err(|error| format!("{image:?}: {error}"))?;
            return Ok(NamedContext::Image(reference.or_latest()));
        }
        if let Some(layout) = text.strip_prefix("oci-layout://") {
            return Layout::parse(layout).map(NamedContext::Layout);
        }
        if let Some(stage) = text.strip_prefix("target:") {
            return Ok(NamedContext::Target(stage.to_owned()));
        }
        if let Some(git) = GitSource::parse(text, WrittenBy::User) {
            return git.map(NamedContext::Repository);
        }
        if is_http(text) {
            return Ok(NamedContext::File(HttpSource { url: text.to_owned(), checksum: None }));
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(format!("{scheme}:// is no kind of build context")),
            None => Ok(NamedContext::Folder(PathBuf::from(text))),
        }
    }
}

/// A name as it is compared: images are the same however much of their names is written.
fn normal(name: &str) -> Option<String> {
    let reference: Reference = name.to_ascii_lowercase().parse().ok()?;
    let text = reference.familiar();
    Some(text.strip_suffix(":latest").unwrap_or(&text).to_owned())
}

impl Lowering<'_> {
    /// The context that stands in for `name`.
    pub(super) fn named(&self, name: &str) -> Option<String> {
        normal(name).filter(|name| self.named.contains_key(name))
    }

    /// The name of the folder that stands in for `name`, if it is a folder: of that only what is copied is read.
    pub(super) fn named_folder(&self, name: &str) -> Option<String> {
        self.named(name).filter(|name| matches!(self.named[name], NamedContext::Folder(_)))
    }

    /// A stage that is nothing but a named context.
    pub(super) fn context_end(&mut self, name: &str, span: Span) -> Result<StageEnd, BuildError> {
        if let Some(end) = self.context_ends.get(name) {
            return Ok(end.clone());
        }
        let end = match self.named[name].clone() {
            NamedContext::Target(stage) => {
                let message = format!("build context {name}: there is no stage {stage:?}");
                let index = self.source.dockerfile.stage_index(&stage);
                let index = index.ok_or_else(|| self.fail(span, StepError::Invalid(message.clone())))?;
                if self.open.contains(&index) {
                    let message = format!("build context {name}: stage {stage:?} needs itself");
                    return Err(self.fail(span, StepError::Invalid(message)));
                }
                self.stage_end(index)?
            }
            NamedContext::Image(reference) => {
                let image = self.world.base(&reference, &self.platform);
                let image = image.map_err(|error| self.fail(span, error))?;
                self.image_end(name, image)
            }
            NamedContext::Layout(layout) => {
                let image = self.world.layout(&layout, &self.platform);
                let image = image.map_err(|error| self.fail(span, error))?;
                self.image_end(name, image)
            }
            NamedContext::Repository(source) => {
                let vertex = self.check_out_vertex(source);
                self.files_end(vertex)
            }
            NamedContext::File(source) => {
                let fetched = self.fetch_vertex(source);
                let vertex = self.whole_vertex(name, CopyFrom::Context, CopySource::Input(1), Some(fetched));
                self.files_end(vertex)
            }
            NamedContext::Folder(_) => {
                let (from, all) = (CopyFrom::Named(name.to_owned()), CopySource::Path(".".to_owned()));
                let vertex = self.whole_vertex(name, from, all, None);
                self.files_end(vertex)
            }
        };
        self.context_ends.insert(name.to_owned(), end.clone());
        Ok(end)
    }

    fn image_end(&mut self, name: &str, image: BaseImage) -> StageEnd {
        let history = image.config.history.iter().map(|entry| PlannedHistory {
            entry: entry.clone(),
            vertex: None,
            is_config: false,
        });
        let history = history.collect();
        let vertex = self.base_vertex(name, image.layers, image.config.created.clone(), image.source);
        let planned = PlannedStage { base: vertex, vertex, config: image.config, history };
        StageEnd { planned, declared: Declared::default(), workdir_set: false }
    }

    /// Files without a configuration.
    fn files_end(&mut self, vertex: VertexId) -> StageEnd {
        let config = scratch(&self.platform);
        let planned = PlannedStage { base: vertex, vertex, config, history: Vec::new() };
        StageEnd { planned, declared: Declared::default(), workdir_set: false }
    }

    /// All of a source as a layer; an archive is unpacked.
    fn whole_vertex(
        &mut self,
        name: &str,
        from: CopyFrom,
        source: CopySource,
        input: Option<VertexId>,
    ) -> VertexId {
        let nothing = self.base_vertex("scratch", Vec::new(), None, None);
        let op = CopyOp {
            buildkit_dest: "/".to_owned(),
            from,
            sources: vec![source],
            inline: Vec::new(),
            dest: "/".to_owned(),
            chown: None,
            chmod: None,
            excludes: Vec::new(),
            parents: false,
            is_add: true,
            unpack: false,
            unpack_fetched: true,
            link: true,
        };
        let site = Site { position: format!("context {name}"), instruction: format!("context {name}") };
        let cache = if self.request.no_cache { CachePolicy::Refresh } else { CachePolicy::Use };
        let inputs = [nothing].into_iter().chain(input).collect();
        self.vertices.add(Vertex { op: Op::Copy(op), inputs, site, cache })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_told_apart_by_how_they_begin() {
        let parse = |text: &str| format!("{:?}", NamedContext::parse(text));
        for (text, expected) in [
            ("docker-image://alpine", "Ok(Image("),
            ("docker-image://A", "Err("),
            ("oci-layout:///x/y:tag", "Ok(Layout("),
            ("target:build", "Ok(Target(\"build\"))"),
            ("https://h/x.git#main", "Ok(Repository("),
            ("git@h:x", "Ok(Repository("),
            ("https://h/x.tar", "Ok(File("),
            ("../x", "Ok(Folder(\"../x\"))"),
            ("bake://x", "Err(\"bake:// is no kind of build context\")"),
        ] {
            assert!(parse(text).starts_with(expected), "{text}: {}", parse(text));
        }
        for (name, key) in
            [("alpine:latest", "alpine"), ("docker.io/library/Alpine", "alpine"), ("h:1/a:b", "h:1/a:b")]
        {
            assert_eq!(normal(name).as_deref(), Some(key));
        }
        for name in ["scratch", "context", ":"] {
            let named = BTreeMap::from([(name.to_owned(), ".".to_owned())]);
            assert!(NamedContext::parse_all(&named).is_err(), "{name}");
        }
    }
}
