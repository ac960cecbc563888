//! Plans as data: what a Dockerfile asks to be done, without a kernel or a store.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use dhow_oci::ImageConfig;
use expect_test::{Expect, expect};

use super::*;
use crate::plan::CopySource;

mod run;

/// Two images: `base`, which is plain, and `triggers`, which copies from the first stage of whoever uses it.
#[derive(Default)]
struct Images(RefCell<Vec<String>>);

impl World for Images {
    fn base(&self, reference: &Reference, platform: &Platform) -> Result<BaseImage, StepError> {
        let mut config = ImageConfig::scratch(platform);
        config.config.set_env("PATH", "/bin");
        config.config.working_dir = "/".to_owned();
        config.config.cmd = Some(vec!["base-cmd".to_owned()]);
        if reference.repository().ends_with("triggers") {
            config.config.on_build =
                vec!["COPY --from=first /out /in".to_owned(), "ENV TRIGGERED=1".to_owned()];
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
        (source == "ignored").then(|| source.to_owned())
    }

    fn warn(&self, _: Span, message: String, _: Option<String>) {
        self.0.borrow_mut().push(message);
    }

    fn lint(&self, _: Diagnostic) {}
}

fn plan(text: &str, change: impl FnOnce(&mut BuildRequest)) -> String {
    let (dockerfile, diagnostics) = Dockerfile::parse(text);
    assert!(!diagnostics.iter().any(|found| found.is_error()), "{diagnostics:?}");
    let mut request = BuildRequest {
        platforms: vec!["linux/amd64".parse().expect("a platform")],
        ..BuildRequest::new(PathBuf::new())
    };
    change(&mut request);
    let images = Images::default();
    let source = Source { name: "Dockerfile", text, dockerfile: &dockerfile, identity: "test" };
    let mut told = match lower(&source, &request, Reach::Target, &images) {
        Ok(plan) => show(&plan),
        Err(error) => format!("error {error}\n"),
    };
    for warning in images.0.into_inner() {
        writeln!(told, "warning {warning}").expect("a String takes all text");
    }
    told
}

/// One line a step, with the vertices that do its work and that it needs, and the image at the end.
fn show(plan: &Plan) -> String {
    let mut told = String::new();
    let mut seen = BTreeSet::new();
    for step in &plan.steps {
        write!(told, "{} {}/{}", step.info.stage, step.info.number, step.info.count).expect("text");
        match step.vertex {
            None => writeln!(told, "  -  {}", step.info.text),
            Some(vertex) if !seen.insert(vertex) => {
                writeln!(told, "  ={}  {}", vertex.index(), step.info.text)
            }
            Some(vertex) => {
                let node = plan.graph.vertex(vertex);
                let inputs: Vec<String> = node.inputs.iter().map(|id| id.index().to_string()).collect();
                writeln!(told, "  {}({})  {}", vertex.index(), inputs.join(","), describe(&node.op))
            }
        }
        .expect("text");
    }
    let run = &plan.target(&plan.targets[0]).config.config;
    writeln!(told, "image env {:?} cwd {} cmd {:?}", &run.env[1..], run.working_dir, run.cmd).expect("text");
    told
}

fn describe(op: &Op) -> String {
    match op {
        Op::Base { .. } => "base".to_owned(),
        Op::Fetch(source) => format!("fetch {}", source.shown()),
        Op::CheckOut(source) => format!("check out {source}"),
        Op::All => "all".to_owned(),
        Op::Workdir(workdir) => format!("mkdir {} for {:?}", workdir.path, workdir.user),
        Op::Run(run) => {
            let env = run
                .env
                .iter()
                .filter(|var| var.name != "PATH")
                .map(|var| format!("{}={} ", var.name, var.value));
            format!("{}{:?} in {}", env.collect::<String>(), run.args, run.cwd)
        }
        Op::Copy(copy) => {
            let inline: Vec<String> =
                copy.inline.iter().map(|(name, text)| format!("<<{name} {text:?}")).collect();
            let link = if copy.link { " linked" } else { "" };
            let show = |source: &CopySource| match source {
                CopySource::Path(path) => format!("{path:?}"),
                CopySource::Input(number) => format!("input {number}"),
            };
            let paths: Vec<String> = copy.sources.iter().map(show).collect();
            let paths = paths.join(", ");
            format!("{:?} [{paths}]{} to {}{link}", copy.from, inline.join(" "), copy.dest)
        }
    }
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&plan(text, |_| {}));
}

#[test]
fn only_what_the_target_needs_is_planned() {
    let text = "FROM base AS a\nRUN a\nFROM base AS unused\nRUN u\nFROM base\nCOPY --from=a /x /y\nCMD c\n";
    check(
        text,
        expect![[r#"
        a 1/2  0()  base
        a 2/2  1(0)  ["/bin/sh", "-c", "a"] in /
        stage-2 1/3  2()  base
        stage-2 2/3  3(2,1)  Stage("a") ["/x"] to /y
        stage-2 3/3  -  CMD c
        image env [] cwd / cmd Some(["/bin/sh", "-c", "c"])
    "#]],
    );
    expect![[r#"
        unused 1/2  0()  base
        unused 2/2  1(0)  ["/bin/sh", "-c", "u"] in /
        image env [] cwd / cmd Some(["base-cmd"])
    "#]]
    .assert_eq(&plan(text, |request| request.target = Some("unused".to_owned())));
    expect![[r#"
        error target stage "none" could not be found
    "#]]
    .assert_eq(&plan(text, |request| request.target = Some("none".to_owned())));
}

#[test]
fn a_stage_on_another_goes_on_where_that_ends() {
    check(
        "FROM base AS a\nENV A=1\nWORKDIR /a\nRUN a\nFROM a AS b\nWORKDIR b\nRUN b\nFROM a\nRUN c\n",
        expect![[r#"
            a 1/4  0()  base
            a 2/4  -  ENV A=1
            a 3/4  1(0)  mkdir /a for ""
            a 4/4  2(1)  A=1 ["/bin/sh", "-c", "a"] in /a
            stage-2 1/2  =2  FROM a
            stage-2 2/2  3(2)  A=1 ["/bin/sh", "-c", "c"] in /a
            image env ["A=1"] cwd /a cmd Some(["base-cmd"])
        "#]],
    );
}

#[test]
fn arguments_are_seen_from_their_line_on_and_by_the_stages_above() {
    let text = "ARG G=global\nARG TAG=base\nFROM $TAG AS a\nRUN 1\nARG G\nARG L=local\nRUN 2\nFROM a AS b\nARG L\n\
                ARG M=$L-more\nENV G=env\nRUN 3\nFROM base\nRUN 4\nCOPY --from=b / /b\n";
    check(
        text,
        expect![[r#"
        a 1/5  0()  base
        a 2/5  1(0)  ["/bin/sh", "-c", "1"] in /
        a 3/5  -  ARG G
        a 4/5  -  ARG L=local
        a 5/5  2(1)  G=global L=local ["/bin/sh", "-c", "2"] in /
        b 1/5  =2  FROM a AS b
        b 2/5  -  ARG L
        b 3/5  -  ARG M=$L-more
        b 4/5  -  ENV G=env
        b 5/5  3(2)  L=local M=local-more G=env ["/bin/sh", "-c", "3"] in /
        stage-2 1/3  4()  base
        stage-2 2/3  5(4)  ["/bin/sh", "-c", "4"] in /
        stage-2 3/3  6(5,3)  Stage("b") ["/"] to /b
        image env [] cwd / cmd Some(["base-cmd"])
    "#]],
    );
    expect![[r#"
        a 1/5  0()  base
        a 2/5  1(0)  ["/bin/sh", "-c", "1"] in /
        a 3/5  -  ARG G
        a 4/5  -  ARG L=local
        a 5/5  2(1)  G=given L=given ["/bin/sh", "-c", "2"] in /
        b 1/5  =2  FROM a AS b
        b 2/5  -  ARG L
        b 3/5  -  ARG M=$L-more
        b 4/5  -  ENV G=env
        b 5/5  3(2)  L=given M=given-more G=env ["/bin/sh", "-c", "3"] in /
        stage-2 1/3  4()  base
        stage-2 2/3  5(4)  ["/bin/sh", "-c", "4"] in /
        stage-2 3/3  6(5,3)  Stage("b") ["/"] to /b
        image env [] cwd / cmd Some(["base-cmd"])
        warning One or more build-args [NOBODY] were not consumed
    "#]]
    .assert_eq(&plan(text, |request| {
        request.build_args = [("G", "given"), ("L", "given"), ("NOBODY", "x"), ("HTTP_PROXY", "p")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    }));
}

#[test]
fn of_an_env_and_an_arg_of_one_name_the_later_one_counts() {
    check(
        "FROM base AS a\nENV A=env\nARG A=arg\nENV B=$A\nRUN 1\nENV A=again\nRUN 2\nARG A=arg\nRUN 3\n\
         FROM a\nRUN 4\n",
        expect![[r#"
            a 1/9  0()  base
            a 2/9  -  ENV A=env
            a 3/9  -  ARG A=arg
            a 4/9  -  ENV B=$A
            a 5/9  1(0)  A=arg B=arg ["/bin/sh", "-c", "1"] in /
            a 6/9  -  ENV A=again
            a 7/9  2(1)  B=arg A=again ["/bin/sh", "-c", "2"] in /
            a 8/9  -  ARG A=arg
            a 9/9  3(2)  B=arg A=arg ["/bin/sh", "-c", "3"] in /
            stage-1 1/2  =3  FROM a
            stage-1 2/2  4(3)  A=again B=arg ["/bin/sh", "-c", "4"] in /
            image env ["A=again", "B=arg"] cwd / cmd Some(["base-cmd"])
        "#]],
    );
}

#[test]
fn triggers_of_a_base_run_first_and_may_need_any_earlier_stage() {
    check(
        "FROM base AS first\nRUN make\nFROM triggers\nRUN own\n",
        expect![[r#"
        first 1/2  1()  base
        first 2/2  2(1)  ["/bin/sh", "-c", "make"] in /
        stage-1 1/4  0()  base
        stage-1 2/4  3(0,2)  Stage("first") ["/out"] to /in
        stage-1 3/4  -  ENV TRIGGERED=1
        stage-1 4/4  4(3)  TRIGGERED=1 ["/bin/sh", "-c", "own"] in /
        image env ["TRIGGERED=1"] cwd / cmd Some(["base-cmd"])
    "#]],
    );
    check(
        "FROM triggers\nRUN own\n",
        expect![[r#"
        stage-0 1/4  0()  base
        stage-0 2/4  2(0,1)  Stage("first") ["/out"] to /in
        stage-0 3/4  -  ENV TRIGGERED=1
        stage-0 4/4  3(2)  TRIGGERED=1 ["/bin/sh", "-c", "own"] in /
        image env ["TRIGGERED=1"] cwd / cmd Some(["base-cmd"])
    "#]],
    );
}

#[test]
fn a_working_directory_is_made_once_it_is_not_the_root() {
    check(
        "FROM base\nWORKDIR /\nWORKDIR a/./b/..\nUSER me\nWORKDIR c\nRUN x\nWORKDIR /d/\nRUN [\"y\", \"z\"]\n",
        expect![[r#"
            stage-0 1/8  0()  base
            stage-0 2/8  -  WORKDIR /
            stage-0 3/8  1(0)  mkdir /a for ""
            stage-0 4/8  -  USER me
            stage-0 5/8  2(1)  mkdir /a/c for "me"
            stage-0 6/8  3(2)  ["/bin/sh", "-c", "x"] in /a/c
            stage-0 7/8  4(3)  mkdir /d for "me"
            stage-0 8/8  5(4)  ["y", "z"] in /d
            image env [] cwd /d/ cmd Some(["base-cmd"])
        "#]],
    );
}

#[test]
fn an_entrypoint_forgets_the_command_of_the_base_only() {
    check(
        "FROM base\nENTRYPOINT [\"e\"]\n",
        expect![[r#"
        stage-0 1/2  0()  base
        stage-0 2/2  -  ENTRYPOINT ["e"]
        image env [] cwd / cmd None
    "#]],
    );
    check(
        "FROM base\nCMD [\"own\"]\nENTRYPOINT [\"e\"]\n",
        expect![[r#"
        stage-0 1/3  0()  base
        stage-0 2/3  -  CMD ["own"]
        stage-0 3/3  -  ENTRYPOINT ["e"]
        image env [] cwd / cmd Some(["own"])
    "#]],
    );
}

#[test]
fn copies_expand_variables_and_link_only_what_needs_nothing_below() {
    check(
        "FROM base\nENV D=/dir NAME=world\nWORKDIR /w\nCOPY a $D/\nCOPY a b .\nCOPY --link a /l\n\
         COPY --link --chown=1:2 a /l\nCOPY --link --chown=me a /l\nCOPY --link --chmod=755 a /l\n\
         COPY <<hi <<'EOF' /h/\nhello $NAME\nhi\nhello $NAME\nEOF\n",
        expect![[r#"
            stage-0 1/10  0()  base
            stage-0 2/10  -  ENV D=/dir NAME=world
            stage-0 3/10  1(0)  mkdir /w for ""
            stage-0 4/10  2(1)  Context ["a"] to /dir/
            stage-0 5/10  3(2)  Context ["a", "b"] to /w/
            stage-0 6/10  4(3)  Context ["a"] to /l linked
            stage-0 7/10  5(4)  Context ["a"] to /l linked
            stage-0 8/10  6(5)  Context ["a"] to /l
            stage-0 9/10  7(6)  Context ["a"] to /l
            stage-0 10/10  8(7)  Context []<<hi "hello world\n" <<EOF "hello $NAME\n" to /h/
            image env ["D=/dir", "NAME=world"] cwd /w cmd Some(["base-cmd"])
        "#]],
    );
}

#[test]
fn comments_at_the_end_of_a_line_are_left_out_with_a_warning() {
    check(
        "FROM base # why\nCOPY . /app # all\n",
        expect![[r#"
        stage-0 1/2  0()  base
        stage-0 2/2  1(0)  Context ["."] to /app
        image env [] cwd / cmd Some(["base-cmd"])
        warning `# all` is not a comment in the middle of a line, Docker takes its words for file names; ignored
    "#]],
    );
}

#[test]
fn what_cannot_be_planned_says_why() {
    for (text, why) in [
        ("FROM base AS a\nCOPY --from=a / /\n", "error circular dependency detected on stage: a (a needs a)"),
        (
            "FROM base AS a\nCOPY --from=b / /\nFROM base AS b\nCOPY --from=0 / /\n",
            "error circular dependency detected on stage: a (a needs b needs a)",
        ),
        (
            "FROM base AS a\nCOPY --from=b / /\nFROM a AS b\n",
            "error circular dependency detected on stage: a (a needs b needs a)",
        ),
        ("FROM base\nCOPY --from=1 / /\n", "error invalid stage index 1"),
        ("FROM $NONE\n", "error base name ($NONE) should not be blank"),
        ("FROM base\nCOPY https://example.com/x /\n", "error source can't be a URL for COPY"),
        ("FROM base\nCOPY https://example.com/x.git /\n", "error source can't be a git ref for COPY"),
        (
            "FROM base\nADD https://example.com/x.git?what=1 /\n",
            "error https://example.com/x.git: unexpected",
        ),
        (
            "FROM base\nADD --checksum=sha256:1 https://example.com/x /\n",
            "error invalid checksum \"sha256:1\"",
        ),
        ("FROM base\nADD --checksum=1234567 a /\n", "error checksum requires HTTP(S) or Git sources"),
        ("FROM base\nADD --checksum=1234567 a b /\n", "error checksum can't be specified for multiple"),
        (
            "FROM base\nADD --keep-git-dir=false https://h/x.git?keep-git-dir=1 /\n",
            "error inconsistent keep-git-dir configuration",
        ),
        ("FROM base\nCOPY --chmod=888 a /\n", "error invalid chmod parameter: '888'"),
        ("FROM base\nCOPY ${X:?wanted} /\n", "error failed to process \"${X:?wanted}\": X: wanted"),
    ] {
        let told = plan(text, |_| {});
        assert!(told.starts_with(why), "{text}: {told}");
    }
}

#[test]
fn what_is_elsewhere_is_got_by_vertices_of_its_own() {
    check(
        "FROM base\nADD a https://h/f.tar https://h/r.git#v1:sub /d/\nADD --link https://h/f.tar /e\n",
        expect![[r#"
            stage-0 1/3  0()  base
            stage-0 2/3  3(0,1,2)  Context ["a", input 1, input 2] to /d/
            stage-0 3/3  5(3,4)  Context [input 1] to /e linked
            image env [] cwd / cmd Some(["base-cmd"])
        "#]],
    );
}

#[test]
fn a_named_context_stands_in_for_stages_images_and_sources() {
    let text = "FROM base AS tools\nRUN never\nFROM other:latest\nCOPY --from=tools /t /t\nCOPY --from=files f /f\n\
                COPY --from=late /l /l\nFROM base AS last\nRUN last\n";
    expect![[r#"
        stage-1 1/4  1()  check out https://h/r.git
        stage-1 2/4  2(1,0)  Stage("tools") ["/t"] to /t
        stage-1 3/4  3(2)  Named("files") ["f"] to /f
        stage-1 4/4  6(3,5)  Stage("late") ["/l"] to /l
        last 1/2  4()  base
        last 2/2  5(4)  ["/bin/sh", "-c", "last"] in /
        image env [] cwd / cmd None
    "#]]
    .assert_eq(&plan(text, |request| {
        request.target = Some("1".to_owned());
        request.sources.named = [
            ("tools", "docker-image://busybox"),
            ("docker.io/library/other", "https://h/r.git"),
            ("files", "/some/where"),
            ("late", "target:last"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    }));
}

#[test]
fn platforms_share_what_comes_out_equal() {
    let text = "FROM --platform=$BUILDPLATFORM base AS build\nRUN common\nARG TARGETARCH\nRUN for $TARGETARCH\n\
                FROM scratch\nCOPY --from=build /out /\n";
    let told = plan(text, |request| {
        request.platforms =
            ["linux/amd64", "linux/s390x"].map(|text| text.parse().expect("a platform")).to_vec();
        request.build_args.insert("BUILDPLATFORM".to_owned(), "linux/amd64".to_owned());
    });
    let shared: Vec<&str> = told.lines().filter(|line| line.contains("  =")).collect();
    let expected = expect![[r#"
        linux/s390x build 1/4  =0  FROM base AS build
        linux/s390x build 2/4  =1  RUN common
        linux/s390x stage-1 1/2  =3  FROM scratch"#]];
    expected.assert_eq(&shared.join("\n"));
}

#[test]
fn automatic_arguments_tell_of_the_build() {
    let text = "FROM base AS made\nARG TARGETSTAGE\nARG TARGETOSVERSION\nARG BUILDOSVERSION\nARG TARGETARCH\nRUN it\n";
    let env = |target: Option<&str>, version: Option<&str>, args: &[(&str, &str)]| {
        let told = plan(text, |request| {
            request.target = target.map(str::to_owned);
            request.platforms[0].os_version = version.map(str::to_owned);
            request.build_args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        });
        let line = told.lines().find(|line| line.contains("\"it\"")).expect("the step").to_owned();
        line.split_once(")  ").and_then(|(_, rest)| rest.split_once('[')).expect("variables").0.to_owned()
    };
    let default = "TARGETSTAGE=default TARGETOSVERSION= BUILDOSVERSION= TARGETARCH=amd64 ";
    assert_eq!(env(None, None, &[]), default);
    let given = "TARGETSTAGE=made TARGETOSVERSION=10.0.1 BUILDOSVERSION= TARGETARCH=amd64 ";
    assert_eq!(env(Some("made"), Some("10.0.1"), &[]), given);
    let overridden = "TARGETSTAGE=mine TARGETOSVERSION= BUILDOSVERSION= TARGETARCH=amd64 ";
    assert_eq!(env(Some("made"), None, &[("TARGETSTAGE", "mine")]), overridden);
}
