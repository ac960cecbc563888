//! The lint rules, by Docker's names and words.
use std::fmt;

/// Something legal but unwise that [`Dockerfile::parse`](crate::Dockerfile::parse) or the builder looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A stage's name has capitals.
    StageNameCasing,
    /// `FROM … as`, one in capitals and the other not.
    FromAsCasing,
    /// A blank line between continued ones.
    NoEmptyContinuation,
    /// An instruction is spelt otherwise than most.
    ConsistentInstructionCasing,
    /// Two stages have one name.
    DuplicateStageName,
    /// A stage has a name that means something else.
    ReservedStageName,
    /// A shell stands between the program and signals to it.
    JsonArgsRecommended,
    /// MAINTAINER is used.
    MaintainerDeprecated,
    /// FROM uses an argument that nothing declares.
    UndefinedArgInFrom,
    /// A relative WORKDIR depends on the base image's.
    WorkdirRelativePath,
    /// A variable is used that nothing sets.
    UndefinedVar,
    /// An instruction that counts once comes twice.
    MultipleInstructionsDisallowed,
    /// `k v` instead of `k=v`.
    LegacyKeyValueFormat,
    /// The base image is for another platform.
    InvalidBaseImagePlatform,
    /// `--platform` says what is so anyway.
    RedundantTargetPlatform,
    /// The name of a variable speaks of secrets.
    SecretsUsedInArgOrEnv,
    /// Without `--build-arg` there is no base image.
    InvalidDefaultArgInFrom,
    /// `--platform` is no variable.
    FromPlatformFlagConstDisallowed,
    /// COPY of a file that the ignore file leaves out.
    CopyIgnoredFile,
    /// A comment above ARG or FROM describes something else.
    InvalidDefinitionDescription,
    /// `80/TCP`
    ExposeProtoCasing,
    /// `127.0.0.1:80:80`
    ExposeInvalidFormat,
}

use Rule::*;

/// Rule, name, the last part of its page's address, and what it is about.
const RULES: [(Rule, &str, &str, &str); 22] = [
    (StageNameCasing, "StageNameCasing", "stage-name-casing", "Stage names should be lowercase"),
    (
        FromAsCasing,
        "FromAsCasing",
        "from-as-casing",
        "The 'as' keyword should match the case of the 'from' keyword",
    ),
    (
        NoEmptyContinuation,
        "NoEmptyContinuation",
        "no-empty-continuation",
        "Empty continuation lines will become errors in a future release",
    ),
    (
        ConsistentInstructionCasing,
        "ConsistentInstructionCasing",
        "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    (DuplicateStageName, "DuplicateStageName", "duplicate-stage-name", "Stage names should be unique"),
    (
        ReservedStageName,
        "ReservedStageName",
        "reserved-stage-name",
        "Reserved words should not be used as stage names",
    ),
    (
        JsonArgsRecommended,
        "JSONArgsRecommended",
        "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    ),
    (
        MaintainerDeprecated,
        "MaintainerDeprecated",
        "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    ),
    (
        UndefinedArgInFrom,
        "UndefinedArgInFrom",
        "undefined-arg-in-from",
        "FROM command must use declared ARGs",
    ),
    (
        WorkdirRelativePath,
        "WorkdirRelativePath",
        "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if \
         the base image changes",
    ),
    (UndefinedVar, "UndefinedVar", "undefined-var", "Variables should be defined before their use"),
    (
        MultipleInstructionsDisallowed,
        "MultipleInstructionsDisallowed",
        "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage",
    ),
    (
        LegacyKeyValueFormat,
        "LegacyKeyValueFormat",
        "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used",
    ),
    (
        InvalidBaseImagePlatform,
        "InvalidBaseImagePlatform",
        "",
        "Base image platform does not match expected target platform",
    ),
    (
        RedundantTargetPlatform,
        "RedundantTargetPlatform",
        "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    (
        SecretsUsedInArgOrEnv,
        "SecretsUsedInArgOrEnv",
        "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands",
    ),
    (
        InvalidDefaultArgInFrom,
        "InvalidDefaultArgInFrom",
        "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name",
    ),
    (
        FromPlatformFlagConstDisallowed,
        "FromPlatformFlagConstDisallowed",
        "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value",
    ),
    (
        CopyIgnoredFile,
        "CopyIgnoredFile",
        "copy-ignored-file",
        "Attempting to Copy file that is excluded by .dockerignore",
    ),
    (
        InvalidDefinitionDescription,
        "InvalidDefinitionDescription",
        "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If \
         this is not intended to be a description comment, add an empty line or comment between the instruction \
         and the comment.",
    ),
    (
        ExposeProtoCasing,
        "ExposeProtoCasing",
        "expose-proto-casing",
        "Protocol in EXPOSE instruction should be lowercase",
    ),
    (
        ExposeInvalidFormat,
        "ExposeInvalidFormat",
        "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in \
         a future release",
    ),
];

impl Rule {
    fn row(self) -> &'static (Rule, &'static str, &'static str, &'static str) {
        RULES.iter().find(|(rule, ..)| *rule == self).expect("every rule has a row")
    }

    /// Every rule.
    pub fn all() -> impl Iterator<Item = Rule> {
        RULES.iter().map(|(rule, ..)| *rule)
    }

    /// Its name, which `# check=skip=` takes.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What it is about, whatever it has found.
    pub fn description(self) -> &'static str {
        self.row().3
    }

    /// Docker's page about it.
    pub fn url(self) -> Option<String> {
        let page = Some(self.row().2).filter(|page| !page.is_empty())?;
        Some(format!("https://docs.docker.com/go/dockerfile/rule/{page}/"))
    }

    /// Speaks only when `# check=experimental=` asks it to.
    pub fn is_experimental(self) -> bool {
        self == InvalidDefinitionDescription
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_row_and_a_name_of_its_own() {
        let mut names: Vec<_> = Rule::all().map(Rule::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
        assert!(Rule::all().all(|rule| !rule.description().is_empty()));
        assert_eq!(Rule::all().filter(|rule| rule.url().is_none()).count(), 1);
    }
}
