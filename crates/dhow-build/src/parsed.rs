//! A Dockerfile as the request wants it read.

use dhow_dockerfile::{CheckConfig, Diagnostic, Directives, Dockerfile};

use crate::context::DockerfileText;
use crate::error::BuildError;
use crate::request::BuildRequest;

/// Build arguments that are about the reading, not for the file.
const SYNTAX_ARG: &str = "BUILDKIT_SYNTAX";
const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// A Dockerfile and what is to be said about it.
pub(crate) struct Parsed {
    pub text: String,
    pub dockerfile: Dockerfile,
    /// The file can only be built if there are none.
    pub mistakes: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
    /// The frontend asked for, if that is another language.
    foreign: Option<String>,
}

impl Parsed {
    pub(crate) fn new(file: &DockerfileText, request: &BuildRequest) -> Result<Parsed, BuildError> {
        let text = String::from_utf8_lossy(&file.text).into_owned();
        let check = request.build_args.get(CHECK_ARG).map(|text| CheckConfig::parse(text)).transpose();
        let check = check.map_err(|problem| BuildError::CheckOptions { name: CHECK_ARG, problem })?;
        let (dockerfile, diagnostics) = Dockerfile::parse_checked(&text, check.as_ref());
        let (mistakes, warnings) = diagnostics.into_iter().partition(Diagnostic::is_error);
        let given = request.build_args.get(SYNTAX_ARG).and_then(|text| text.split_whitespace().next());
        let syntax = given.or(dockerfile.directives.syntax.as_deref());
        let foreign = syntax.filter(|syntax| !Directives::reads(syntax)).map(str::to_owned);
        Ok(Parsed { text, dockerfile, mistakes, warnings, foreign })
    }

    /// The error that all mistakes together are.
    pub(crate) fn into_error(self, name: &str) -> BuildError {
        let Parsed { text, mistakes, foreign, .. } = self;
        BuildError::Syntax { name: name.to_owned(), text, diagnostics: mistakes, foreign }
    }
}
