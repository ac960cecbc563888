//! What the rules find in a Dockerfile, and what else is wrong with it before anything runs.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::PathBuf;

use dhow_dockerfile::IgnoreRules;
use dhow_oci::ImageConfig;
use expect_test::{Expect, expect};

use super::*;

/// Every image is for linux/amd64 and has a PATH; `shelled` has a SHELL too, `arm` is for another processor.
struct Images {
    ignore: IgnoreRules,
    found: RefCell<Vec<Diagnostic>>,
}

impl World for Images {
    fn base(&self, reference: &Reference, _: &Platform) -> Result<BaseImage, StepError> {
        let name = reference.repository();
        let platform = if name.ends_with("arm") { "linux/arm64" } else { "linux/amd64" };
        let mut config = ImageConfig::scratch(&platform.parse().expect("a platform"));
        config.config.set_env("PATH", "/bin");
        if name.ends_with("shelled") {
            config.config.shell = Some(vec!["/bin/bash".to_owned(), "-c".to_owned()]);
        }
        Ok(BaseImage { config, layers: Vec::new(), source: None })
    }

    fn layout(&self, _: &Layout, platform: &Platform) -> Result<BaseImage, StepError> {
        Ok(BaseImage { config: ImageConfig::scratch(platform), layers: Vec::new(), source: None })
    }

    fn context_has(&self, _: &str) -> bool {
        false
    }

    fn left_out(&self, source: &str) -> Option<String> {
        self.ignore.leaves_out(source)
    }

    fn warn(&self, _: Span, _: String, _: Option<String>) {}

    fn lint(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }
}

/// Findings of all stages, line by line, and the error if there is one.
fn found(text: &str, ignore: &str, change: impl FnOnce(&mut BuildRequest)) -> String {
    let (dockerfile, mut diagnostics) = Dockerfile::parse(text);
    assert!(!diagnostics.iter().any(|found| found.is_error()), "{diagnostics:?}");
    let mut request = BuildRequest {
        platforms: vec!["linux/amd64".parse().expect("a platform")],
        ..BuildRequest::new(PathBuf::new())
    };
    change(&mut request);
    let images = Images { ignore: IgnoreRules::parse(ignore).expect("patterns"), found: RefCell::default() };
    let source = Source { name: "Dockerfile", text, dockerfile: &dockerfile, identity: "test" };
    let lowered = lower(&source, &request, Reach::Everything, &images);
    diagnostics.extend(images.found.into_inner());
    diagnostics.sort_by_key(|found| found.span.start_line);
    let mut told = String::new();
    for finding in diagnostics {
        if let Some(rule) = finding.rule {
            writeln!(told, "{} {rule}: {}", finding.span.start_line, finding.message).expect("text");
        }
    }
    if let Err(error) = lowered {
        writeln!(told, "error {error}").expect("text");
    }
    told
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&found(text, "", |_| {}));
}

#[test]
fn variables_are_defined_before_they_are_used() {
    check(
        "FROM base\nCOPY $foo .\nARG foo=bar\nCOPY $foo .\nARG DIR_ASSETS=a\nCOPY $DIR_ASSET .\nENV PATH=$PAHT:/x\n\
         ARG bare\nUSER ${bare:-$DIR_ASSETS}\nARG one=1 two=$one three=$four\nRUN echo $nothing\nEXPOSE $port\n\
         CMD [\"$x\"]\n",
        expect![[r#"
            2 UndefinedVar: Usage of undefined variable '$foo'
            6 UndefinedVar: Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)
            7 UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?)
            10 UndefinedVar: Usage of undefined variable '$four' (did you mean $foo?)
        "#]],
    );
    check(
        "FROM base AS a\nARG x=1\nENV y=2\nFROM a\nUSER $x$y\nCOPY <<E <<'F' /\n$z\nE\n$z\nF\n",
        expect![[r#"
            6 UndefinedVar: Usage of undefined variable '$z' (did you mean $y?)
        "#]],
    );
}

#[test]
fn what_from_names_is_declared_and_valid_without_arguments() {
    check(
        "ARG tag=latest\nARG empty\nFROM base:${tag}${version}\nFROM base$empty AS b\nFROM base:$empty$tag\n",
        expect![[r#"
            3 UndefinedArgInFrom: FROM argument 'version' is not declared
        "#]],
    );
    expect![[r#"
        3 InvalidDefaultArgInFrom: Default value for ARG $IMAGE results in empty or invalid base image name
        4 InvalidDefaultArgInFrom: Default value for ARG base:$TAG results in empty or invalid base image name
    "#]]
    .assert_eq(&found("ARG IMAGE\nARG TAG\nFROM $IMAGE\nFROM base:$TAG\n", "", |request| {
        request.build_args.insert("IMAGE".to_owned(), "base".to_owned());
        request.build_args.insert("TAG".to_owned(), "1".to_owned());
    }));
}

#[test]
fn a_platform_is_not_redundant_nor_constant() {
    check(
        "FROM --platform=$TARGETPLATFORM base\nFROM --platform=linux/amd64 base\nFROM --platform=linux/amd64 base AS \
         my_amd64\nFROM --platform=$BUILDPLATFORM base\nFROM --platform=${TARGETPLATFORM} base\nFROM arm\n",
        expect![[r#"
            1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior
            2 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64"
            5 RedundantTargetPlatform: Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior
            6 InvalidBaseImagePlatform: Base image arm was pulled with platform "linux/arm64", expected "linux/amd64" for current build
        "#]],
    );
}

#[test]
fn the_rules_about_single_instructions_speak() {
    check(
        "FROM base as A\nmaintainer me\nENV DB_PASSWORD x y\nLABEL a b\nWORKDIR app\nWORKDIR sub\nCMD echo\ncmd [\"b\"]\n\
         EXPOSE 80/TcP 127.0.0.1:80:80 8080/udp\nARG super_secret_token PUBLIC_KEY AUTH_FILE\n\
         HEALTHCHECK NONE\nHEALTHCHECK NONE\nENTRYPOINT x\n",
        expect![[r#"
            1 StageNameCasing: Stage name 'A' should be lowercase
            1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match
            2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label
            2 ConsistentInstructionCasing: Command 'maintainer' should match the case of the command majority (uppercase)
            3 LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format
            3 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "DB_PASSWORD")
            4 LegacyKeyValueFormat: "LABEL key=value" should be used instead of legacy "LABEL key value" format
            5 WorkdirRelativePath: Relative workdir "app" can have unexpected results if the base image changes
            7 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
            7 MultipleInstructionsDisallowed: Multiple cmd instructions should not be used in the same stage because only the last one will be used
            8 ConsistentInstructionCasing: Command 'cmd' should match the case of the command majority (uppercase)
            9 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'
            9 ExposeProtoCasing: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase
            10 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "super_secret_token")
            11 MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used
            13 JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals
        "#]],
    );
}

#[test]
fn a_finding_is_told_once_for_all_platforms_and_twice_if_it_is_there_twice() {
    let several = |request: &mut BuildRequest| {
        request.platforms =
            ["linux/amd64", "linux/arm64"].map(|text| text.parse().expect("a platform")).to_vec();
    };
    expect![[r#"
        2 UndefinedVar: Usage of undefined variable '$x'
        2 UndefinedVar: Usage of undefined variable '$x'
        3 InvalidBaseImagePlatform: Base image base was pulled with platform "linux/amd64", expected "linux/arm64" for current build
    "#]]
    .assert_eq(&found("FROM arm\nCOPY $x $x\nFROM base\n", "", several).lines().filter(|line| !line.starts_with('1')).map(|line| format!("{line}\n")).collect::<String>());
}

#[test]
fn what_a_stage_below_has_set_counts() {
    check(
        "FROM base AS a\nWORKDIR /app\nSHELL [\"x\"]\nCMD [\"a\"]\nFROM a\nWORKDIR sub\nCMD b\nFROM shelled\nCMD c\n\
         ARG password\n",
        expect![[r#"
            10 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "password")
        "#]],
    );
    // Nobody sees the value of an argument that only FROM reads.
    check("ARG password=x\nFROM base\n", expect![""]);
}

#[test]
fn files_that_are_left_out_are_not_copied() {
    let text =
        "FROM base AS a\nCOPY Dockerfile .\nADD ./Dockerfile /x\nCOPY . .\nCOPY --from=a Dockerfile /\n";
    expect![[r#"
        2 CopyIgnoredFile: Attempting to Copy file "Dockerfile" that is excluded by .dockerignore
        3 CopyIgnoredFile: Attempting to Add file "Dockerfile" that is excluded by .dockerignore
    "#]]
    .assert_eq(&found(&text.replace("COPY --from=a Dockerfile /\n", ""), "Dockerfile\n", |_| {}));
    let text = "FROM base AS a\nFROM base\nCOPY --from=a Dockerfile /\n";
    expect![""].assert_eq(&found(text, "Dockerfile\n", |_| {}));
}

#[test]
fn comments_silence_a_rule_for_one_instruction() {
    check(
        "# check=skip=JSONArgsRecommended\nFROM base\nCMD x\n# check=skip=SecretsUsedInArgOrEnv // it is none\nENV \
         password=a\n# check=skip=all\nENV token=a b=$c\nENV secret=x\n# check=skip=ConsistentInstructionCasing\nuser x\n",
        expect![[r#"
            8 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "secret")
            10 ConsistentInstructionCasing: Command 'user' should match the case of the command majority (uppercase)
        "#]],
    );
}

#[test]
fn mistakes_in_stages_nobody_needs_are_found() {
    let error = |text: &str| found(text, "", |request| request.target = Some("last".to_owned()));
    let last = "FROM base AS last\n";
    for (text, expected) in [
        ("FROM $X AS a\n", "error base name ($X) should not be blank"),
        ("FROM --platform=$X base\n", "error empty platform value from expression $X"),
        ("FROM --platform=linux/$X base\n", "error failed to parse platform linux/$X"),
        ("FROM ${X^} AS a\n", "error failed to process"),
        ("FROM Bad/Name AS a\n", "error failed to parse stage name \"Bad/Name\""),
        ("FROM base AS a\nCOPY --from=$X a b\n", "error variable expansion is not supported for --from"),
        ("FROM base AS a\nCOPY --from=7 a b\n", "error invalid stage index 7"),
        ("FROM base AS a\nCOPY --from=-1 a b\n", "error invalid stage index -1"),
        ("FROM base AS a\nCOPY --from=a a b\n", "error circular dependency detected on stage: a"),
        (
            "FROM base AS a\nCOPY --from=b a b\nFROM base AS b\nCOPY --from=0 a b\n",
            "error circular dependency",
        ),
        (
            "FROM base AS a\nRUN --mount=from=b,target=/x a\nFROM base AS b\nCOPY --from=a a b\n",
            "error circular",
        ),
    ] {
        let told = error(&format!("{text}{last}"));
        let message = told.lines().last().unwrap_or_default();
        assert!(message.starts_with(expected), "{text}\n{told}");
    }
    // A stage may copy from one below it.
    assert_eq!(error("FROM base AS last\nCOPY --from=b a b\nFROM base AS b\n"), "");
}

#[test]
fn a_default_that_is_not_needed_may_be_malformed() {
    let text = "ARG A=${B:?missing}\nFROM base\nARG C=${D:?missing}\nUSER $C\n";
    assert!(found(text, "", |_| {}).contains("error failed to process"));
    let given = |request: &mut BuildRequest| {
        request.build_args.extend(["A", "C"].map(|name| (name.to_owned(), "1".to_owned())));
    };
    assert_eq!(found(text, "", given), "");
}
