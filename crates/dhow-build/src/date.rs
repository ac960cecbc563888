//! The time that `SOURCE_DATE_EPOCH` takes from a build context: that of its commit, or of what was downloaded.

use std::borrow::Cow;
use std::path::Path;

use crate::error::BuildError;
use crate::event::BuildEvent;
use crate::export::{self, Epoch};
use crate::lower::NamedContext;
use crate::place;
use crate::remote::Remote;
use crate::request::BuildRequest;

/// What knows the times of contexts.
pub(crate) struct Dates<'a> {
    pub request: &'a BuildRequest,
    /// The time of the build context, in seconds since 1970, if it has one.
    pub context: Option<i64>,
    pub remote: &'a Remote<'a>,
    pub locks: &'a Path,
    pub observer: &'a (dyn Fn(BuildEvent<'_>) + Sync),
}

impl Dates<'_> {
    /// The time asked for, in seconds since 1970. A folder has none, and then nothing is asked for.
    pub(crate) fn resolve(&self, epoch: Option<Epoch>) -> Result<Option<i64>, BuildError> {
        let (what, time) = match epoch {
            None => return Ok(None),
            Some(Epoch::At(seconds)) => return Ok(Some(seconds)),
            Some(Epoch::Context) => ("the build context".to_owned(), self.context),
            Some(Epoch::Named(name)) => (format!("build context {name}"), self.named(&name)?),
        };
        if time.is_none() {
            let note = format!("{} is ignored: {what} has no time of its own", export::EPOCH);
            (self.observer)(BuildEvent::Note(&note));
        }
        Ok(time)
    }

    fn named(&self, name: &str) -> Result<Option<i64>, BuildError> {
        match NamedContext::find(&self.request.sources.named, name)? {
            Some(NamedContext::Repository(source)) => place::commit_time(&source, self.remote, self.locks),
            Some(NamedContext::File(source)) => place::download_time(&source, self.remote),
            Some(NamedContext::Folder(_)) => Ok(None),
            Some(NamedContext::Image(_) | NamedContext::Layout(_) | NamedContext::Target(_)) | None => {
                let why = "is neither a repository nor a download";
                Err(BuildError::Request(format!("{}: build context {name} {why}", export::EPOCH)))
            }
        }
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
