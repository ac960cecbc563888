//! Sources of an `ADD` that are elsewhere: each is a vertex of its own, so that it comes while other steps run.

use dhow_dockerfile::AddInstruction;
use dhow_oci::{Algorithm, Digest};
use dhow_solver::{CachePolicy, Site, Vertex, VertexId};

use super::{Lowering, Written};
use crate::error::{BuildError, StepError};
use crate::plan::{CopyFrom, Op};
use crate::remote::{GitSource, HttpSource, WrittenBy, check_commit, is_http};

impl Lowering<'_> {
    /// The vertex that gets a source; `None` if it is a path.
    pub(super) fn remote_source(
        &mut self,
        from: &CopyFrom,
        source: &str,
        add: Option<&AddInstruction>,
        at: &Written<'_>,
    ) -> Result<Option<VertexId>, BuildError> {
        if *from != CopyFrom::Context {
            return Ok(None);
        }
        let invalid = |message: String| self.fail(at.span, StepError::Invalid(message));
        if let Some(git) = GitSource::parse(source, WrittenBy::Dockerfile) {
            let Some(add) = add else {
                return Err(invalid("source can't be a git ref for COPY".to_owned()));
            };
            let git = git.and_then(|git| with_flags(git, add)).map_err(invalid)?;
            return Ok(Some(self.check_out_vertex(git)));
        }
        if !is_http(source) {
            return Ok(None);
        }
        let Some(add) = add else {
            return Err(invalid("source can't be a URL for COPY".to_owned()));
        };
        let checksum = add.checksum.as_deref().map(checksum).transpose().map_err(invalid)?;
        Ok(Some(self.fetch_vertex(HttpSource { url: source.to_owned(), checksum })))
    }

    /// What comes is looked at anew in each build.
    pub(super) fn fetch_vertex(&mut self, source: HttpSource) -> VertexId {
        let site = Site { position: format!("url {}", source.shown()), instruction: "fetch".to_owned() };
        let op = Op::Fetch(source);
        self.vertices.add(Vertex { op, inputs: Vec::new(), site, cache: CachePolicy::Bypass })
    }

    /// The files of a commit need to come but once.
    pub(super) fn check_out_vertex(&mut self, source: GitSource) -> VertexId {
        let site = Site { position: format!("git {source}"), instruction: format!("git {source}") };
        let cache = if self.request.no_cache { CachePolicy::Refresh } else { CachePolicy::Use };
        self.vertices.add(Vertex { op: Op::CheckOut(source), inputs: Vec::new(), site, cache })
    }
}

/// What the flags of an `ADD` say about a repository, which must not be something else than its URL says.
fn with_flags(mut git: GitSource, add: &AddInstruction) -> Result<GitSource, String> {
    match (add.keep_git_dir, git.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => {
            return Err("inconsistent keep-git-dir configuration".to_owned());
        }
        (Some(flag), _) => git.keep_git_dir = Some(flag),
        (None, _) => {}
    }
    if let Some(checksum) = &add.checksum {
        check_commit(checksum)?;
        let checksum = checksum.to_ascii_lowercase();
        if let Some(query) = git.checksum.as_ref().filter(|query| **query != checksum) {
            return Err(format!("checksum mismatch {checksum:?} != {query:?}"));
        }
        git.checksum = Some(checksum);
    }
    Ok(git)
}

fn checksum(text: &str) -> Result<Digest, String> {
    let digest: Digest = text.parse().map_err(|error| format!("invalid checksum {text:?}: {error}"))?;
    match digest.algorithm() {
        Algorithm::Sha256 => Ok(digest),
        other => Err(format!("invalid checksum {text:?}: only sha256 is supported, not {}", other.name())),
    }
}
