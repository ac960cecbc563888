//! `docker build --check` and `--call`: what docker's frontend says about a Dockerfile without building it.

use expect_test::expect;
use serde_json::Value;

use crate::rig::{Finished, Rig};

/// The answer to a line, as JSON, and the exit status.
#[track_caller]
fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error} in {}", finished.both()))
}

const UNWISE: &str =
    "FROM alpine as base\nENV NAME World\nENV PATH=$PAHT:/bin\nCMD echo \\\n  hello\nCOPY secret.txt /\n";

#[test]
fn findings_are_shown_with_their_page_and_their_lines() {
    let Some(rig) = Rig::start() else { return };
    let files = [("Dockerfile", UNWISE), ("secret.txt", ""), (".dockerignore", "*.txt\n")];
    let app = rig.context("app", &files);
    let said = app.run("docker build --check .");
    assert_eq!(said.status, 1, "{}", said.both());
    expect![[r#"
        Check complete, 5 warnings have been found!

        WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
        'as' and 'FROM' keywords' casing do not match
        Dockerfile:1
        --------------------
           1 | >>> FROM alpine as base
           2 |     ENV NAME World
           3 |     ENV PATH=$PAHT:/bin
        --------------------

        WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
        "ENV key=value" should be used instead of legacy "ENV key value" format
        Dockerfile:2
        --------------------
           1 |     FROM alpine as base
           2 | >>> ENV NAME World
           3 |     ENV PATH=$PAHT:/bin
           4 |     CMD echo \
        --------------------

        WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/
        Usage of undefined variable '$PAHT' (did you mean $PATH?)
        Dockerfile:3
        --------------------
           1 |     FROM alpine as base
           2 |     ENV NAME World
           3 | >>> ENV PATH=$PAHT:/bin
           4 |     CMD echo \
           5 |       hello
        --------------------

        WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
        JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
        Dockerfile:4
        --------------------
           3 |     ENV PATH=$PAHT:/bin
           4 | >>> CMD echo \
           5 | >>>   hello
           6 |     COPY secret.txt /
        --------------------

        WARNING: CopyIgnoredFile - https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/
        Attempting to Copy file "secret.txt" that is excluded by .dockerignore
        Dockerfile:6
        --------------------
           4 |     CMD echo \
           5 |       hello
           6 | >>> COPY secret.txt /
           7 |     
        --------------------
    "#]]
    .assert_eq(&said.stdout);
    // Nothing was built, and of the base image nothing but its configuration was fetched.
    assert_eq!(rig.ok("docker images -q"), "");
    assert_eq!(app.run("docker build --call=check,ignorestatus=true .").status, 0);
    let found = json(&app.run("docker build --call=check,format=json ."));
    assert_eq!(found["warnings"].as_array().map(Vec::len), Some(5));
    assert_eq!(found["warnings"][3]["location"]["ranges"][1]["start"]["line"], 5);
    assert_eq!(found["sources"][0]["filename"], "Dockerfile");
}

#[test]
fn a_file_without_findings_says_so_and_one_with_mistakes_fails() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("Dockerfile", "FROM scratch\nCMD [\"x\"]\n")]);
    assert_eq!(app.ok("docker build --check ."), "Check complete, no warnings found.");
    app.write("Dockerfile", "FROM scratch AS Base\nBADCMD\n");
    let said = app.run("docker build --check .");
    assert_eq!(said.status, 1);
    assert!(said.stdout.contains("WARNING: StageNameCasing"), "{}", said.both());
    assert!(said.stderr.contains("unknown instruction: BADCMD"), "{}", said.both());
    let found = json(&app.run("docker build --call=check,format=json ."));
    assert_eq!(
        found["buildError"]["message"],
        "dockerfile parse error on line 2: unknown instruction: BADCMD"
    );
    assert!(app.fails("docker build --call=chek .", 125).contains("outline"));
}

#[test]
fn a_build_lists_findings_at_its_end_and_may_refuse_them() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("Dockerfile", "FROM scratch AS a\nCMD x\n")]);
    let said = app.run("docker build -t app .");
    assert_eq!(said.status, 0, "{}", said.both());
    let summary = " 1 warning found (use --check to expand):\n - JSONArgsRecommended: JSON arguments recommended for CMD";
    assert!(said.stderr.contains(summary) && said.stderr.contains("(line 2)"), "{}", said.both());
    assert!(!app.run("docker build -q -t app .").stderr.contains("warning"));
    let line = "docker build --build-arg BUILDKIT_DOCKERFILE_CHECK=error=true .";
    assert!(app.fails(line, 1).contains("lint violation found for rules: JSONArgsRecommended"));
    app.write("Dockerfile", "# check=skip=JSONArgsRecommended;error=true\nFROM scratch AS a\nCMD x\n");
    app.ok("docker build -q .");
}

const OUTLINED: &str = "\
# VERSION of the base
ARG VERSION=latest
FROM alpine:$VERSION AS first
RUN --mount=type=secret,target=/etc/x,required=true --mount=type=ssh true

FROM alpine AS unused
ARG NOT_SHOWN

# app is what is shipped
FROM first AS app
ARG OTHER
# PORT it listens on
ARG PORT=80
RUN --mount=type=secret,id=token$PORT true
";

#[test]
fn an_outline_names_arguments_secrets_and_agents() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("Dockerfile", OUTLINED)]);
    expect![[r#"
        TARGET:      app
        DESCRIPTION: is what is shipped

        BUILD ARG   VALUE    DESCRIPTION
        VERSION     latest   of the base
        OTHER                
        PORT        8080     it listens on

        SECRET      REQUIRED
        x           true
        token8080   

        SSH       REQUIRED
        default   

    "#]]
    .assert_eq(&app.run("docker build --call=outline --build-arg PORT=8080 .").stdout);
    let told = json(&app.run("docker build --call=outline,format=json --target first ."));
    assert_eq!(told["args"][0]["name"], "VERSION");
    assert_eq!(told["args"][0]["location"]["ranges"][0]["start"]["line"], 2);
    assert_eq!(told["secrets"][0]["required"], true);
    assert!(told.get("description").is_none(), "{told}");
}

#[test]
fn targets_and_methods_are_listed() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("Dockerfile", OUTLINED)]);
    expect![[r#"
        TARGET        DESCRIPTION
        first         
        unused        
        app (default) is what is shipped
    "#]]
    .assert_eq(&app.run("docker build --call=targets .").stdout);
    let told = json(&app.run("docker build --call targets,format=json ."));
    assert_eq!(told["targets"][0]["base"], "alpine:$VERSION");
    assert_eq!(told["targets"][2]["default"], true);
    expect![[r#"
        NAME                 VERSION DESCRIPTION
        outline              1.0.0   List all parameters current build target supports
        targets              1.0.0   List all targets current build supports
        subrequests.describe 1.0.0   List available subrequest types
    "#]]
    .assert_eq(&app.run("docker build --call=subrequests.describe .").stdout);
}

#[test]
fn a_syntax_tree_is_printed_as_buildkit_prints_it() {
    let Some(rig) = Rig::start() else { return };
    let app =
        rig.context("app", &[("Dockerfile", "FROM a AS b\nRUN --network=none x \\\n y\nCMD [\"z\"]\n")]);
    assert_eq!(
        app.ok("dhow debug dockerfile-ast Dockerfile"),
        "(from \"a\" \"AS\" \"b\")\n(run [\"--network=none\"] \"x  y\")\n(cmd \"z\")"
    );
}
