//! The time that `SOURCE_DATE_EPOCH` takes from a build context, or from a stage that adds one thing: that of its
//! commit, or of what was downloaded.

use std::borrow::Cow;
use std::path::Path;

use dhow_dockerfile::{InstructionKind, Stage};

use crate::error::BuildError;
use crate::event::BuildEvent;
use crate::export::{self, Epoch};
use crate::lower::NamedContext;
use crate::place;
use crate::plan::{Op, Plan};
use crate::remote::Remote;
use crate::request::BuildRequest;

/// What a stage without a base begins with.
const FROM_NOTHING: &str = "FROM scratch";

/// What knows the times of contexts.
pub(crate) struct Dates<'a> {
    pub request: &'a BuildRequest,
    /// The time of the build context, in seconds since 1970, if it has one.
    pub context: Option<i64>,
    pub remote: &'a Remote<'a>,
    pub locks: &'a Path,
    pub observer: &'a (dyn Fn(BuildEvent<'_>) + Sync),
    /// What the stage of a name adds.
    pub stage: &'a dyn Fn(&str) -> Result<NamedContext, BuildError>,
}

impl Dates<'_> {
    /// The time asked for, in seconds since 1970. A folder has none, and then nothing is asked for.
    pub(crate) fn resolve(&self, epoch: Option<Epoch>) -> Result<Option<i64>, BuildError> {
        let (what, time) = match epoch {
            None => return Ok(None),
            Some(Epoch::At(seconds)) => return Ok(Some(seconds)),
            Some(Epoch::Context) => ("the build context".to_owned(), self.context),
            Some(Epoch::Named(name)) => match NamedContext::find(&self.request.sources.named, &name)? {
                Some(context) => (format!("build context {name}"), self.time_of(&name, &context)?),
                None => (format!("stage {name}"), self.time_of(&name, &(self.stage)(&name)?)?),
            },
        };
        if time.is_none() {
            let note = format!("{} is ignored: {what} has no time of its own", export::EPOCH);
            (self.observer)(BuildEvent::Note(&note));
        }
        Ok(time)
    }

    fn time_of(&self, name: &str, context: &NamedContext) -> Result<Option<i64>, BuildError> {
        match context {
            NamedContext::Repository(source) => place::commit_time(source, self.remote, self.locks),
            NamedContext::File(source) => place::download_time(source, self.remote),
            NamedContext::Folder(_) => Ok(None),
            NamedContext::Image(_) | NamedContext::Layout(_) | NamedContext::Target(_) => {
                let why = "is neither a repository nor a download";
                Err(BuildError::Request(format!("{}: build context {name} {why}", export::EPOCH)))
            }
        }
    }
}

/// What a stage adds, whose instructions may be but `ARG` and one `ADD`.
pub(crate) fn added_by(
    name: &str,
    stage: &Stage,
    lower: impl FnOnce() -> Result<Plan, BuildError>,
) -> Result<NamedContext, BuildError> {
    let is_plain = |kind: &InstructionKind| matches!(kind, InstructionKind::Add(_) | InstructionKind::Arg(_));
    let more = || {
        let message = format!("{}: stage {name} is more than `FROM scratch` and", export::EPOCH);
        BuildError::Request(format!("{message} one ADD of a repository or a URL"))
    };
    if !stage.instructions.iter().all(|instruction| is_plain(&instruction.kind)) {
        return Err(more());
    }
    let plan = lower()?;
    let (mut found, mut copies) = (Vec::new(), 0);
    for id in plan.graph.needed(plan.vertex) {
        let vertex = plan.graph.vertex(id);
        match &vertex.op {
            Op::All => {}
            Op::Base { .. } if vertex.site.instruction == FROM_NOTHING => {}
            Op::Fetch(source) => found.push(NamedContext::File(source.clone())),
            Op::CheckOut(source) => found.push(NamedContext::Repository(source.clone())),
            Op::Copy(copy) if copy.sources.len() == 1 && copy.inline.is_empty() => copies += 1,
            Op::Base { .. } | Op::Copy(_) | Op::Run(_) | Op::Workdir(_) => return Err(more()),
        }
    }
    match (found.pop(), &*found, copies) {
        (Some(source), [], 1) => Ok(source),
        _ => Err(more()),
    }
}

/// The request as programs are to see it: with the time in place of where it comes from.
pub(crate) fn resolved(request: &BuildRequest, time: Option<i64>) -> Cow<'_, BuildRequest> {
    let mut resolved = Cow::Borrowed(request);
    let time = time.map(|seconds| seconds.to_string());
    if let Some(given) = request.build_args.get(export::EPOCH)
        && Some(given) != time.as_ref()
    {
        let args = &mut resolved.to_mut().build_args;
        args.remove(export::EPOCH);
        args.extend(time.map(|time| (export::EPOCH.to_owned(), time)));
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_see_the_time_and_not_where_it_comes_from() {
        let mut request = BuildRequest::new(std::path::PathBuf::from("."));
        assert!(matches!(resolved(&request, None), Cow::Borrowed(_)));
        let seen =
            |request: &BuildRequest, time| resolved(request, time).build_args.get(export::EPOCH).cloned();
        request.build_args.insert(export::EPOCH.to_owned(), "context".to_owned());
        assert_eq!(seen(&request, Some(7)).as_deref(), Some("7"));
        assert_eq!(seen(&request, None), None);
        request.build_args.insert(export::EPOCH.to_owned(), "7".to_owned());
        assert!(matches!(resolved(&request, Some(7)), Cow::Borrowed(_)));
    }
}
