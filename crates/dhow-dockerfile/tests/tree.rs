//! What is read from a text, and what is said about it.
use dhow_dockerfile::{Dockerfile, Instruction, InstructionKind};
use expect_test::{Expect, expect};

/// Prints the tree, an instruction a line, and the diagnostics.
#[track_caller]
fn check(text: &str, expected: Expect) {
    let (dockerfile, diagnostics) = Dockerfile::parse(text);
    let mut out = String::new();
    for arg in &dockerfile.global_args {
        out.push_str(&format!("{}: {}\n", lines(arg.span.start_line, arg.span.end_line), brief(&arg.kind)));
    }
    for stage in &dockerfile.stages {
        let place = lines(stage.span.start_line, stage.span.end_line);
        out.push_str(&format!("{place}: FROM {} {:?} {:?}\n", stage.base, stage.name, stage.platform));
        for Instruction { kind, span, .. } in &stage.instructions {
            out.push_str(&format!("  {}: {}\n", lines(span.start_line, span.end_line), brief(kind)));
        }
    }
    for one in &diagnostics {
        let rule = one.rule.map(|rule| format!(" [{rule}]")).unwrap_or_default();
        let hint = one.hint.as_ref().map(|hint| format!("\n   hint: {hint}")).unwrap_or_default();
        out.push_str(&format!("{}: {:?}{rule}: {}{hint}\n", one.span.start_line, one.severity, one.message));
    }
    expected.assert_eq(&out);
}

fn lines(start: usize, end: usize) -> String {
    if start == end { start.to_string() } else { format!("{start}-{end}") }
}

/// The debug form without what was not given.
fn brief(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    for noise in [
        "sources",
        "heredocs",
        "chown",
        "chmod",
        "link",
        "excludes",
        "trailing_comment",
        "from",
        "parents",
        "checksum",
        "keep_git_dir",
        "unpack",
        "mounts",
        "network",
        "security",
        "devices",
        "interval",
        "timeout",
        "start_period",
        "start_interval",
        "retries",
        "default",
        "description",
        "legacy",
        "descriptor",
    ] {
        for nothing in ["None", "[]", "false", "Default", "Sandbox"] {
            text = text.replace(&format!(", {noise}: {nothing}"), "");
        }
    }
    text
}

#[test]
fn every_instruction_is_understood() {
    check(
        r#"# syntax=docker/dockerfile:1
ARG VERSION=3.9 OTHER
FROM --platform=$BUILDPLATFORM python:${VERSION}-slim AS build
WORKDIR /app
COPY --from=0 --chown=1:1 --chmod=u=rwX --link --parents --exclude=*.md --exclude=x a b/ /dst/
ADD --checksum=sha256:aa --keep-git-dir --unpack=false https://x.org/a.tar ["no json" /x
COPY ["a b", "/c d"]
ENV A=1 B="x y" C=a\ b
LABEL a.b="c" d=e
EXPOSE 80 8000-8010/udp
USER me:us
VOLUME ["/a", "/b"]
VOLUME /c /d
STOPSIGNAL SIGINT
SHELL ["/bin/bash", "-c"]
RUN --mount=type=cache,target=/c --network=none --security=insecure pip install x
RUN ["a", "$b"]
HEALTHCHECK --interval=1m30s --timeout=0s --retries=3 CMD curl -f http://localhost
ONBUILD COPY . /src
ENTRYPOINT []
CMD ["python", "app.py"]
FROM scratch
HEALTHCHECK CMD ["a"]
FROM scratch
HEALTHCHECK NONE
"#,
        expect![[r#"
            2: ArgInstruction { args: [BuildArg { name: "VERSION", default: Some("3.9") }, BuildArg { name: "OTHER" }] }
            3: FROM python:${VERSION}-slim Some("build") Some("$BUILDPLATFORM")
              4: Workdir("/app")
              5: Copy(CopyInstruction { files: FileCopy { sources: ["a", "b/"], dest: "/dst/", chown: Some("1:1"), chmod: Some("u=rwX"), link: true, excludes: ["*.md", "x"] }, from: Some("0"), parents: true })
              6: Add(AddInstruction { files: FileCopy { sources: ["https://x.org/a.tar", "[\"no", "json\""], dest: "/x" }, checksum: Some("sha256:aa"), keep_git_dir: Some(true), unpack: Some(false) })
              7: Copy(CopyInstruction { files: FileCopy { sources: ["a b"], dest: "/c d" } })
              8: Env(Pairs { pairs: [KeyValue { key: "A", value: "1" }, KeyValue { key: "B", value: "\"x y\"" }, KeyValue { key: "C", value: "a\\ b" }] })
              9: Label(Pairs { pairs: [KeyValue { key: "a.b", value: "\"c\"" }, KeyValue { key: "d", value: "e" }] })
              10: Expose(["80", "8000-8010/udp"])
              11: User("me:us")
              12: Volume(["/a", "/b"])
              13: Volume(["/c", "/d"])
              14: StopSignal("SIGINT")
              15: Shell(["/bin/bash", "-c"])
              16: Run(RunInstruction { command: Shell("pip install x"), mounts: [MountSpec { text: "type=cache,target=/c" }], security: Insecure })
              17: Run(RunInstruction { command: Exec(["a", "$b"]) })
              18: Healthcheck(Test(HealthcheckTest { command: Shell("curl -f http://localhost"), interval: Some(90s), retries: Some(3) }))
              19: Onbuild(Onbuild { trigger: "COPY . /src", instruction: Some(Copy(CopyInstruction { files: FileCopy { sources: ["."], dest: "/src" } })) })
              20: Entrypoint(Exec([]))
              21: Cmd(Exec(["python", "app.py"]))
            22: FROM scratch None None
              23: Healthcheck(Test(HealthcheckTest { command: Exec(["a"]) }))
            24: FROM scratch None None
              25: Healthcheck(None)
            17: Warning: `$b` is passed as it is: variables are not replaced in the JSON form
               hint: to have it replaced write ["/bin/sh","-c","exec a $b"]
        "#]],
    );
}

#[test]
fn lines_are_joined_and_comments_dropped() {
    check(
        "\u{feff}\r\n  # comment\r\n  from a \\\r\n    as \\  \r\n# inside\r\n\r\n  b\r\nRUN one \\\\\nRUN two \\\n",
        expect![[r#"
            3-7: FROM a Some("b") None
              8: Run(RunInstruction { command: Shell("one \\\\") })
              9: Run(RunInstruction { command: Shell("two") })
            3: Warning [ConsistentInstructionCasing]: Command 'from' should match the case of the command majority (uppercase)
            7: Warning [NoEmptyContinuation]: Empty continuation line
        "#]],
    );
}

#[test]
fn the_escape_character_can_be_changed() {
    check(
        "#escape=`\nFROM a\nCOPY c:\\x\\ `\n  d:\\\nENV A=a` b\n",
        expect![[r#"
        2: FROM a None None
          3-4: Copy(CopyInstruction { files: FileCopy { sources: ["c:\\x\\"], dest: "d:\\" } })
          5: Env(Pairs { pairs: [KeyValue { key: "A", value: "a` b" }] })
    "#]],
    );
}

#[test]
fn heredocs_belong_to_run_copy_and_add() {
    check(
        "FROM a\nRUN <<EOF\n  echo hi\n# kept\n\nEOF\nRUN python3 - <<-'PY' && cat <<B\n\t\tx = \"$y\"\n\tPY\nb\nB\nCOPY <<a.txt <<\"b.txt\" c /d/\n$x\na.txt\n$y\nb.txt\nONBUILD RUN <<E\nx\nE\nCMD echo <<E\n",
        expect![[r#"
            1: FROM a None None
              2-6: Run(RunInstruction { command: Shell("<<EOF"), heredocs: [Heredoc { name: "EOF", expand: true, strip_tabs: false, content: "  echo hi\n# kept\n\n" }] })
              7-11: Run(RunInstruction { command: Shell("python3 - <<-'PY' && cat <<B"), heredocs: [Heredoc { name: "PY", expand: false, strip_tabs: true, content: "\t\tx = \"$y\"\n" }, Heredoc { name: "B", expand: true, strip_tabs: false, content: "b\n" }] })
              12-16: Copy(CopyInstruction { files: FileCopy { sources: ["c"], heredocs: [Heredoc { name: "a.txt", expand: true, strip_tabs: false, content: "$x\n" }, Heredoc { name: "b.txt", expand: false, strip_tabs: false, content: "$y\n" }], dest: "/d/" } })
              17-19: Onbuild(Onbuild { trigger: "RUN <<E\nx\nE", instruction: Some(Run(RunInstruction { command: Shell("<<E"), heredocs: [Heredoc { name: "E", expand: true, strip_tabs: false, content: "x\n" }] })) })
              20: Cmd(Shell("echo <<E"))
        "#]],
    );
}

#[test]
fn a_script_is_what_a_run_with_heredocs_executes() {
    let script = |text: &str| {
        let (instruction, _) = Instruction::parse(text);
        match instruction.map(|instruction| instruction.kind) {
            Some(InstructionKind::Run(run)) => format!("{:?}", run.script()),
            other => panic!("{text} is read as {other:?}"),
        }
    };
    expect![[r#"Shell("echo $x")"#]].assert_eq(&script("RUN echo $x"));
    expect![[r#"Shell("echo a\necho b\n")"#]].assert_eq(&script("RUN <<-E\n\techo a\n\techo b\nE\n"));
    expect![[r##"File { name: "E", content: "#!/usr/bin/python\nprint()\n" }"##]]
        .assert_eq(&script("RUN <<E\n#!/usr/bin/python\nprint()\nE\n"));
    expect![[r#"Shell("cat <<A > /x && cat <<-B\na\nA\n\tb\nB")"#]]
        .assert_eq(&script("RUN cat <<A > /x && cat <<-B\na\nA\n\tb\nB\n"));
}

#[test]
fn the_layering_example_of_a_tutorial_is_accepted_with_warnings() {
    check(
        r#"FROM python:3.9-slim   # Layer 1: Base image
COPY . /app             # Layer 2: Copy files to /app
RUN pip install -r /app/requirements.txt  # Layer 3: Install dependencies
CMD ["python", "/app/app.py"]  # Layer 4: Command to run the app
"#,
        expect![[r##"
            1: FROM python:3.9-slim None None
              2: Copy(CopyInstruction { files: FileCopy { sources: [".", "/app", "#", "Layer", "2:", "Copy", "files", "to"], dest: "/app", trailing_comment: Some(TrailingComment { comment: "# Layer 2: Copy files to /app", sources: ["."], dest: "/app", fixed_line: "COPY . /app" }) } })
              3: Run(RunInstruction { command: Shell("pip install -r /app/requirements.txt  # Layer 3: Install dependencies") })
              4: Cmd(Exec(["python", "/app/app.py"]))
            1: Warning: `# Layer 1: Base image` is not a comment in the middle of a line to Docker; ignored
               hint: write `FROM python:3.9-slim`
            4: Warning: `# Layer 4: Command to run the app` is not a comment in the middle of a line to Docker; ignored
               hint: write `CMD ["python", "/app/app.py"]`
        "##]],
    );
}

#[test]
fn comments_at_the_end_of_other_lines_are_explained() {
    check(
        r##"FROM a AS b # c
EXPOSE 80 # web
ENV A=1 B=2 # both
ENV C=1 #D=2
ENV E f # g
WORKDIR /app # here
VOLUME /v # data
ARG X=1 # x
ADD <<E x /y # z
E
COPY a # b
RUN [ "x" ] # a test
RUN ["x"] # an array
"##,
        expect![[r##"
            1: FROM a Some("b") None
              2: Expose(["80"])
              3: Env(Pairs { pairs: [KeyValue { key: "A", value: "1" }, KeyValue { key: "B", value: "2" }] })
              4: Env(Pairs { pairs: [KeyValue { key: "C", value: "1" }, KeyValue { key: "#D", value: "2" }] })
              5: Env(Pairs { pairs: [KeyValue { key: "E", value: "f # g" }], legacy: true })
              6: Workdir("/app # here")
              7: Volume(["/v", "#", "data"])
              8: Arg(ArgInstruction { args: [BuildArg { name: "X", default: Some("1") }, BuildArg { name: "#" }, BuildArg { name: "x" }] })
              9-10: Add(AddInstruction { files: FileCopy { sources: ["x", "/y", "#"], heredocs: [Heredoc { name: "E", expand: true, strip_tabs: false, content: "" }], dest: "z", trailing_comment: Some(TrailingComment { comment: "# z", sources: ["x"], dest: "/y", fixed_line: "ADD <<E x /y" }) } })
              11: Copy(CopyInstruction { files: FileCopy { sources: ["a", "#"], dest: "b" } })
              12: Run(RunInstruction { command: Shell("[ \"x\" ] # a test") })
              13: Run(RunInstruction { command: Exec(["x"]) })
            1: Warning: `# c` is not a comment in the middle of a line to Docker; ignored
               hint: write `FROM a AS b`
            2: Warning: `# web` is not a comment in the middle of a line to Docker; ignored
               hint: write `EXPOSE 80`
            3: Warning: `# both` is not a comment in the middle of a line to Docker; ignored
               hint: write `ENV A=1 B=2`
            5: Warning: `# g` is part of the ENV instruction: a comment cannot follow it on the same line
               hint: write `ENV E f`
            6: Warning: `# here` is part of the WORKDIR instruction: a comment cannot follow it on the same line
               hint: write `WORKDIR /app`
            7: Warning: `# data` is part of the VOLUME instruction: a comment cannot follow it on the same line
               hint: write `VOLUME /v`
            8: Warning: `# x` is part of the ARG instruction: a comment cannot follow it on the same line
               hint: write `ARG X=1`
            13: Warning: `# an array` is not a comment in the middle of a line to Docker; ignored
               hint: write `RUN ["x"]`
        "##]],
    );
}

#[test]
fn traps_are_pointed_at() {
    check(
        r#"FROM a
CMD ["/bin/bash", "echo", "Hello World"]
ENTRYPOINT ["python", "app.py", "--port", "$PORT"]
RUN ['a', 'b']
RUN [ '1' = '1' ]
COPY ['a b', '/c']
HEALTHCHECK CMD ["curl", "${URL}"]
ONBUILD RUN ["sh", "-c", "$X"]
RUN ["awk", "$1 > 2"]
"#,
        expect![[r#"
            1: FROM a None None
              2: Cmd(Exec(["/bin/bash", "echo", "Hello World"]))
              3: Entrypoint(Exec(["python", "app.py", "--port", "$PORT"]))
              4: Run(RunInstruction { command: Shell("['a', 'b']") })
              5: Run(RunInstruction { command: Shell("[ '1' = '1' ]") })
              6: Copy(CopyInstruction { files: FileCopy { sources: ["['a", "b',"], dest: "'/c']" } })
              7: Healthcheck(Test(HealthcheckTest { command: Exec(["curl", "${URL}"]) }))
              8: Onbuild(Onbuild { trigger: "RUN [\"sh\", \"-c\", \"$X\"]", instruction: Some(Run(RunInstruction { command: Exec(["sh", "-c", "$X"]) })) })
              9: Run(RunInstruction { command: Exec(["awk", "$1 > 2"]) })
            2: Warning: `/bin/bash` takes `echo` for the name of a script
               hint: to run a command write ["/bin/bash","-c","echo Hello World"]
            3: Warning: `$PORT` is passed as it is: variables are not replaced in the JSON form
               hint: to have it replaced write ["/bin/sh","-c","exec python app.py --port $PORT"]
            4: Warning: `['a', 'b']` is not a JSON array, so its brackets and quotes are taken literally
               hint: a JSON array has words in double quotes with commas between them: ["a", "b"]
            6: Warning: `['a b', '/c']` is not a JSON array, so its brackets and quotes are taken literally
               hint: a JSON array has words in double quotes with commas between them: ["a", "b"]
            7: Warning: `${URL}` is passed as it is: variables are not replaced in the JSON form
               hint: to have it replaced write ["/bin/sh","-c","exec curl ${URL}"]
        "#]],
    );
}

#[test]
fn a_single_instruction_is_read_in_its_own_lines() {
    let (instruction, diagnostics) = Instruction::parse("RUN a \\\n  b");
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let span = instruction.unwrap().span;
    assert_eq!((span.start_line, span.end_line, span.start, span.end), (1, 2, 0, 11));
    let (_, diagnostics) = Instruction::parse("COPY a");
    assert_eq!(diagnostics[0].span.start_line, 1);
    for several in ["RUN a\nRUN b", "FROM x"] {
        assert!(Instruction::parse(several).1.iter().any(|one| one.is_error()), "{several}");
    }
}

#[test]
fn all_mistakes_are_found_in_one_run() {
    check(
        r#"RUN early
COPY a b
FROM
RUNN <<EOF
not an instruction
EOF
PUSH me/app
copi a b
COPY a
COPY --form=x a b
COPY --from=x --from=y a b
COPY --link=maybe a b
ADD a <<E
E
RUN --network=fake x
RUN --mount=from=$X,target=/a x
RUN --mount=typ=x y
ENV A
ENV =b
ENV A=b c
CMD ["a", 1]
SHELL bash
HEALTHCHECK CMD
HEALTHCHECK --interval=1ns CMD x
HEALTHCHECK ICMD x
ONBUILD ONBUILD RUN x
ONBUILD from x
ONBUILD COPY a
ONBUILD FOO
FROM a as 1b
FROM a b
  && apt-get install
FROM a
"#,
        expect![[r#"
            3: FROM  None None
              16: Run(RunInstruction { command: Shell("x"), mounts: [MountSpec { text: "from=$X,target=/a" }] })
              17: Run(RunInstruction { command: Shell("y"), mounts: [MountSpec { text: "typ=x" }] })
              28: Onbuild(Onbuild { trigger: "COPY a", instruction: None })
              29: Onbuild(Onbuild { trigger: "FOO", instruction: None })
            30: FROM  None None
            31: FROM  None None
            33: FROM a None None
            1: Error: no build stage in current context
               hint: a Dockerfile begins with FROM; only ARG may stand before it
            3: Error: FROM requires either one or three arguments
            4: Error: unknown instruction: RUNN (did you mean RUN?)
            7: Error: unknown instruction: PUSH
               hint: PUSH is not a Dockerfile instruction; use `dhow push`
            8: Error: unknown instruction: copi (did you mean copy?)
            9: Error: COPY requires at least two arguments, but only one was provided. Destination could not be determined
            10: Error: unknown flag: --form (did you mean from?)
            11: Error: duplicate flag specified: --from
            12: Error: expecting boolean value for flag --link, not: maybe
            13: Error: ADD cannot accept a heredoc as a destination
            15: Error: invalid network mode "fake"
            16: Error: 'from' doesn't support variable expansion, define alias stage instead
            17: Warning: this step will fail: unexpected key 'typ' in 'typ=x' (did you mean type?)
            18: Error: ENV must have two arguments
            19: Error: ENV names can not be blank
            20: Error: Syntax error - can't find = in "c". Must be of the form: name=value
            21: Error: when using JSON array syntax, arrays must be comprised of strings only
            22: Error: SHELL requires the arguments to be in JSON form
            23: Error: Missing command after HEALTHCHECK CMD
            24: Error: Interval "interval" cannot be less than 1ms
            25: Error: Unknown type "ICMD" in HEALTHCHECK (try CMD)
            26: Error: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed
            27: Error: FROM isn't allowed as an ONBUILD trigger
            28: Warning: COPY requires at least two arguments, but only one was provided. Destination could not be determined
            29: Warning: unknown instruction: FOO (did you mean FROM?)
            30: Error: invalid name for build stage: "1b", name can't start with a number or contain symbols
            30: Warning [FromAsCasing]: 'as' and 'FROM' keywords' casing do not match
            31: Error: FROM requires either one or three arguments
            32: Error: unknown instruction: &&
               hint: if this line belongs to the instruction above it, that instruction's last line must end in `\`
        "#]],
    );
}

#[test]
fn a_file_needs_instructions_and_a_stage() {
    check(
        "",
        expect![[r#"
        1: Error: file with no instructions
    "#]],
    );
    check(
        "# only\n\n",
        expect![[r#"
        1: Error: file with no instructions
    "#]],
    );
    check(
        "ARG A\n",
        expect![[r#"
        1: ArgInstruction { args: [BuildArg { name: "A" }] }
        1: Error: dockerfile contains no stages to build
           hint: a Dockerfile begins with FROM; only ARG may stand before it
    "#]],
    );
    check(
        "FROM a\nRUN <<E\nx\n",
        expect![[r#"
        1: FROM a None None
        2: Error: unterminated heredoc
           hint: no line below is just `E`
    "#]],
    );
    check(
        "FROM a\nCOPY <<A <<B /\nA\n",
        expect![[r#"
        1: FROM a None None
        2: Error: unterminated heredoc
           hint: no line below is just `B`
    "#]],
    );
    check(
        &format!("FROM a\n#{}\n", "x".repeat(70_000)),
        expect![[r#"
        1: FROM a None None
        2: Error: dockerfile line greater than max allowed size of 65535
    "#]],
    );
}

#[test]
fn what_is_no_dockerfile_is_given_up() {
    let (_, diagnostics) = Dockerfile::parse(&"X <<A\n".repeat(50_000));
    assert_eq!(diagnostics.len(), 102);
    assert!(diagnostics.iter().any(|one| one.message.starts_with("too many errors")));
}

#[test]
fn lint_rules_speak_by_their_names() {
    check(
        r#"FROM --platform=linux/amd64 alpine:$TAGG as Base
maintainer me
ENV DB_PASSWORD x y
WORKDIR app
CMD echo a
CMD echo b
EXPOSE 80/TCP 127.0.0.1:1:1
FROM --platform=$TARGETPLATFORM base AS scratch
WORKDIR sub
RUN a \

  b
FROM Base AS base
SHELL ["sh"]
ENTRYPOINT x
"#,
        expect![[r#"
            1: FROM alpine:$TAGG Some("base") Some("linux/amd64")
              2: Maintainer("me")
              3: Env(Pairs { pairs: [KeyValue { key: "DB_PASSWORD", value: "x y" }], legacy: true })
              4: Workdir("app")
              5: Cmd(Shell("echo a"))
              6: Cmd(Shell("echo b"))
              7: Expose(["80/TCP", "127.0.0.1:1:1"])
            8: FROM base Some("scratch") Some("$TARGETPLATFORM")
              9: Workdir("sub")
              10-12: Run(RunInstruction { command: Shell("a   b") })
            13: FROM Base Some("base") None
              14: Shell(["sh"])
              15: Entrypoint(Shell("x"))
            1: Warning [StageNameCasing]: Stage name 'Base' should be lowercase
            1: Warning [FromAsCasing]: 'as' and 'FROM' keywords' casing do not match
            2: Warning [MaintainerDeprecated]: Maintainer instruction is deprecated in favor of using label
            2: Warning [ConsistentInstructionCasing]: Command 'maintainer' should match the case of the command majority (uppercase)
            8: Warning [ReservedStageName]: Stage name should not use the same name as reserved stage "scratch"
            12: Warning [NoEmptyContinuation]: Empty continuation line
            13: Warning [DuplicateStageName]: Duplicate stage name "base", stage names should be unique
        "#]],
    );
}

#[test]
fn lint_rules_can_be_told_to_be_silent() {
    check(
        "# check=skip=JSONArgsRecommended;experimental=InvalidDefinitionDescription\nARG A\nFROM a\nCMD x\n# check=skip=WorkdirRelativePath\nWORKDIR x\n# wrong text\nFROM b AS c\n",
        expect![[r#"
            2: ArgInstruction { args: [BuildArg { name: "A" }] }
            3: FROM a None None
              4: Cmd(Shell("x"))
              6: Workdir("x")
            8: FROM b Some("c") None
            8: Warning [InvalidDefinitionDescription]: Comment for FROM should follow the format: `# c <description>`
        "#]],
    );
}

#[test]
fn descriptions_stand_above_stages_and_arguments() {
    let (dockerfile, _) = Dockerfile::parse(
        "# VERSION of python\nARG VERSION OTHER\n# header\n#\n# build makes it\nFROM a AS build\n",
    );
    assert_eq!(dockerfile.global_args[0].kind.args[0].description.as_deref(), Some("of python"));
    assert_eq!(dockerfile.global_args[0].kind.args[1].description, None);
    assert_eq!(dockerfile.stages[0].description.as_deref(), Some("makes it"));
}

#[test]
fn stages_are_found_by_name_whatever_its_case() {
    let (dockerfile, _) = Dockerfile::parse("FROM a AS x\nFROM b AS y\nFROM c AS x\n");
    assert_eq!(dockerfile.stage_index("X"), Some(2));
    assert_eq!(dockerfile.stage_index("y"), Some(1));
    assert_eq!(dockerfile.stage_index("0"), None);
}
