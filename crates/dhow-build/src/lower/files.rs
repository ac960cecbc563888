//! What a `COPY` or an `ADD` means.

use dhow_dockerfile::{AddInstruction, CopyInstruction, FileCopy, Span};
use dhow_solver::VertexId;

use super::{Current, Lowering, Written, layer_history};
use crate::chmod::Chmod;
use crate::configure;
use crate::error::{BuildError, StepError};
use crate::owner::has_names;
use crate::plan::{CopyFrom, CopyOp, CopySource, Op};

impl Lowering<'_> {
    pub(super) fn copy(
        &mut self,
        current: &mut Current,
        copy: &CopyInstruction,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        let (from, input) = match &copy.from {
            None => (CopyFrom::Context, None),
            Some(name) => match self.named_folder(name) {
                Some(folder) => (CopyFrom::Named(folder), None),
                None => {
                    let vertex = self.copy_source(current.index, at.span, name)?;
                    (CopyFrom::Stage(name.clone()), Some(vertex))
                }
            },
        };
        let reading = Reading { from, input, parents: copy.parents, add: None };
        self.files(current, &copy.files, reading, at)
    }

    pub(super) fn add(
        &mut self,
        current: &mut Current,
        add: &AddInstruction,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        let reading = Reading { from: CopyFrom::Context, input: None, parents: false, add: Some(add) };
        self.files(current, &add.files, reading, at)
    }

    pub(super) fn copy_source(
        &mut self,
        index: usize,
        span: Span,
        name: &str,
    ) -> Result<VertexId, BuildError> {
        if let Some(context) = self.named(name) {
            return Ok(self.context_end(&context, span)?.planned.vertex);
        }
        if let Some(stage) = self.stage_for_copy(name) {
            self.outline_need(index, stage);
            return Ok(self.stage_end(stage)?.planned.vertex);
        }
        if let Some(vertex) = self.images.get(name) {
            return Ok(*vertex);
        }
        if name.parse::<usize>().is_ok() {
            let message = format!("invalid stage index {name}: there is no such stage");
            return Err(self.fail(span, StepError::Invalid(message)));
        }
        let reference = self.reference(name, span)?;
        let image = self.world.base(&reference, &self.platform).map_err(|error| self.fail(span, error))?;
        let vertex = self.base_vertex(name, image.layers, image.config.created, image.source);
        self.images.insert(name.to_owned(), vertex);
        Ok(vertex)
    }

    fn files(
        &mut self,
        current: &mut Current,
        files: &FileCopy,
        reading: Reading<'_>,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        let Reading { from, input, parents, add } = reading;
        let name = if add.is_some() { "ADD" } else { "COPY" };
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
        let chmod =
            files.chmod.as_ref().map(&expand).transpose().map_err(|cause| self.fail(at.span, cause))?;
        let dest = expand(dest).map_err(|cause| self.fail(at.span, cause))?;
        let made = (|| {
            let chown = files.chown.as_ref().map(&expand).transpose()?;
            // Whose numbers belong to a name is written in the layers below.
            let needs_below = chmod.is_some() || chown.as_deref().is_some_and(has_names);
            Ok(CopyOp {
                from,
                sources: Vec::new(),
                inline: inline.collect::<Result<_, StepError>>()?,
                buildkit_dest: crate::elsewhere::destination(&scope.config.config.working_dir, &dest),
                dest: destination(&scope.config.config.working_dir, &dest),
                chown,
                chmod: chmod.as_deref().map(Chmod::parse).transpose().map_err(StepError::Invalid)?,
                // Docker takes these as they are.
                excludes: files.excludes.clone(),
                parents,
                is_add: add.is_some(),
                unpack: add.is_some_and(|add| add.unpack.unwrap_or(true)),
                unpack_fetched: add.is_some_and(|add| add.unpack == Some(true)),
                link: files.link && !needs_below,
            })
        })();
        let written = sources.iter().map(&expand).collect::<Result<Vec<String>, StepError>>();
        let mut op: CopyOp = made.map_err(|cause| self.fail(at.span, cause))?;
        let written = written.map_err(|cause| self.fail(at.span, cause))?;
        if op.from == CopyFrom::Context {
            self.lint_ignored(if op.is_add { "Add" } else { "Copy" }, &written, at);
        }
        let inline: Vec<String> = op.inline.iter().map(|(name, _)| format!("<<{name}")).collect();
        let flags = history_flags(op.parents, op.chown.as_deref(), chmod.as_deref());
        let shown: Vec<&str> = written.iter().chain(&inline).map(String::as_str).collect();
        let created_by = format!("{name}{flags} {} {dest} # buildkit", shown.join(" "));
        let mut inputs: Vec<VertexId> = [current.end.planned.vertex].into_iter().chain(input).collect();
        for source in written {
            let got = self.remote_source(&op.from, &source, add, at)?;
            op.sources.push(match got {
                Some(vertex) => {
                    inputs.push(vertex);
                    CopySource::Input(inputs.len() - 1)
                }
                None => CopySource::Path(source),
            });
        }
        if let Some(checksum) = add.and_then(|add| add.checksum.as_ref())
            && !matches!(op.sources[..], [CopySource::Input(_)])
        {
            let what = if op.sources.len() == 1 {
                "requires HTTP(S) or Git sources"
            } else {
                "can't be specified for multiple sources"
            };
            let message = format!("checksum {what} (--checksum={checksum})");
            return Err(self.fail(at.span, StepError::Invalid(message)));
        }
        let vertex = self.vertex(current, Op::Copy(op), inputs, at.text);
        self.step(current, at, Some(vertex), Some(layer_history(created_by)));
        Ok(())
    }
}

/// Where a `COPY` or `ADD` reads, and what is particular to the one or the other.
struct Reading<'a> {
    from: CopyFrom,
    input: Option<VertexId>,
    parents: bool,
    add: Option<&'a AddInstruction>,
}

/// The flags that the history shows.
fn history_flags(parents: bool, chown: Option<&str>, chmod: Option<&str>) -> String {
    let flag = |(name, value): (&str, Option<&str>)| value.map(|value| format!(" --{name}={value}"));
    let values = [("chown", chown), ("chmod", chmod)].into_iter().filter_map(flag);
    parents.then(|| " --parents".to_owned()).into_iter().chain(values).collect()
}

/// An absolute destination that still ends in a slash if it was written so.
fn destination(working_dir: &str, dest: &str) -> String {
    let path = configure::join_path(working_dir, dest);
    let is_dir = dest.ends_with('/') || dest == "." || dest.ends_with("/.") || dest.ends_with("..");
    if is_dir && path != "/" { format!("{path}/") } else { path }
}
