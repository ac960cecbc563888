//! What a `COPY` or an `ADD` means.

use dhow_dockerfile::{AddInstruction, CopyInstruction, FileCopy, Span};
use dhow_solver::VertexId;

use super::{Current, Lowering, Written, layer_history};
use crate::chmod::Chmod;
use crate::configure;
use crate::error::{BuildError, StepError};
use crate::plan::{CopyFrom, CopyOp, Op};

impl Lowering<'_> {
    pub(super) fn copy(
        &mut self,
        current: &mut Current,
        copy: &CopyInstruction,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        let (from, input) = match &copy.from {
            None => (CopyFrom::Context, None),
            Some(name) => {
                let vertex = self.copy_source(current.index, at.span, name)?;
                (CopyFrom::Stage(name.clone()), Some(vertex))
            }
        };
        let reading = Reading { from, input, parents: copy.parents, is_add: false, unpack: false };
        self.files(current, &copy.files, reading, at)
    }

    pub(super) fn add(
        &mut self,
        current: &mut Current,
        add: &AddInstruction,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        self.refuse(at.span, add.checksum.is_some(), "ADD --checksum")?;
        self.refuse(at.span, add.keep_git_dir.is_some(), "ADD --keep-git-dir")?;
        for source in &add.files.sources {
            let source = self.expand(current, at.span, source)?;
            let is_remote =
                ["http://", "https://", "git@", "git://", "ssh://"].iter().any(|p| source.starts_with(p));
            self.refuse(at.span, is_remote, &format!("ADD of the remote source {source}"))?;
        }
        let unpack = add.unpack.unwrap_or(true);
        let reading = Reading { from: CopyFrom::Context, input: None, parents: false, is_add: true, unpack };
        self.files(current, &add.files, reading, at)
    }

    pub(super) fn copy_source(
        &mut self,
        index: usize,
        span: Span,
        name: &str,
    ) -> Result<VertexId, BuildError> {
        if let Some(earlier) = self.stage_for_copy(name, index) {
            return Ok(self.stage_end(earlier)?.planned.vertex);
        }
        if let Some(vertex) = self.images.get(name) {
            return Ok(*vertex);
        }
        if name.parse::<usize>().is_ok() || name.eq_ignore_ascii_case(self.own_name(index)) {
            let message = format!("invalid from flag value {name}: there is no such stage before this one");
            return Err(self.fail(span, StepError::Invalid(message)));
        }
        let reference = self.reference(name, span)?;
        let image = self.world.base(&reference, &self.platform).map_err(|error| self.fail(span, error))?;
        let vertex = self.base_vertex(name, image.layers, image.config.created);
        self.images.insert(name.to_owned(), vertex);
        Ok(vertex)
    }

    fn own_name(&self, index: usize) -> &str {
        self.source.dockerfile.stages[index].name.as_deref().unwrap_or_default()
    }

    fn files(
        &mut self,
        current: &mut Current,
        files: &FileCopy,
        reading: Reading,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        let name = if reading.is_add { "ADD" } else { "COPY" };
        let Reading { from, input, parents, is_add, unpack } = reading;
        let (mut sources, mut dest) = (&files.sources, &files.dest);
        if let Some(comment) = &files.trailing_comment
            && from == CopyFrom::Context
            && !self.world.context_has("#")
        {
            self.world.warn(at.span, comment.warning(), Some(format!("write `{}`", comment.fixed_line)));
            (sources, dest) = (&comment.sources, &comment.dest);
        }
        let scope = self.scope(current);
        let expand =
            |word: &String| scope.expand(word).map_err(|error| StepError::Invalid(error.to_string()));
        let inline = files.heredocs.iter().map(|doc| {
            let body = doc.body();
            let body = if doc.expand { scope.expand_heredoc(&body) } else { Ok(body) };
            body.map(|body| (doc.name.clone(), body)).map_err(|error| StepError::Invalid(error.to_string()))
        });
        let made = (|| {
            let dest = expand(dest)?;
            let chmod = files.chmod.as_ref().map(&expand).transpose()?;
            let chown = files.chown.as_ref().map(&expand).transpose()?;
            // Whose numbers belong to a name is written in the layers below.
            let needs_below = chmod.is_some() || chown.as_deref().is_some_and(has_names);
            Ok(CopyOp {
                from,
                sources: sources.iter().map(&expand).collect::<Result<_, StepError>>()?,
                inline: inline.collect::<Result<_, StepError>>()?,
                dest: destination(&scope.config.config.working_dir, &dest),
                chown,
                chmod: chmod.map(|text| Chmod::parse(&text).map_err(StepError::Invalid)).transpose()?,
                excludes: files.excludes.iter().map(&expand).collect::<Result<_, StepError>>()?,
                parents,
                is_add,
                unpack,
                link: files.link && !needs_below,
            })
        })();
        let op = made.map_err(|cause| self.fail(at.span, cause))?;
        let shown: Vec<&str> = op
            .sources
            .iter()
            .map(String::as_str)
            .chain(op.inline.iter().map(|(name, _)| name.as_str()))
            .collect();
        let created_by = format!("{name} {} {dest} # buildkit", shown.join(" "));
        let inputs = [current.end.planned.vertex].into_iter().chain(input).collect();
        let vertex = self.vertex(current, Op::Copy(op), inputs, at.text);
        self.step(current, at, Some(vertex), Some(layer_history(created_by)));
        Ok(())
    }
}

/// Where a `COPY` or `ADD` reads, and what is particular to the one or the other.
struct Reading {
    from: CopyFrom,
    input: Option<VertexId>,
    parents: bool,
    is_add: bool,
    unpack: bool,
}

/// Whether `user[:group]` is not all numbers.
fn has_names(owner: &str) -> bool {
    !owner.split(':').all(|part| part.bytes().all(|c| c.is_ascii_digit()))
}

/// An absolute destination that still ends in a slash if it was written so.
fn destination(working_dir: &str, dest: &str) -> String {
    let path = configure::join_path(working_dir, dest);
    let is_dir = dest.ends_with('/') || dest == "." || dest.ends_with("/.") || dest.ends_with("..");
    if is_dir && path != "/" { format!("{path}/") } else { path }
}
