//! The Dockerfiles of the tutorials learners start with, in the forms they are printed there.
use dhow_dockerfile::{Command, Dockerfile, InstructionKind};
use expect_test::{Expect, expect};

/// Prints the stages, and what a learner is told.
#[track_caller]
fn check(text: &str, expected: Expect) {
    let (dockerfile, diagnostics) = Dockerfile::parse(text);
    let mut out = dockerfile.to_string();
    for one in diagnostics.iter().filter(|one| one.rule.is_none()) {
        out.push_str(&one.render("Dockerfile", text));
    }
    expected.assert_eq(&out);
}

#[test]
fn a_python_app_with_requirements_and_a_legacy_env() {
    check(
        "FROM python:2.7-slim\n\n# Set the working directory to /app\nWORKDIR /app\n\nADD . /app\nRUN pip install -r requirements.txt\nEXPOSE 80\n\n# Define environment variable\nENV NAME World\nCMD [\"python\", \"app.py\"]\n",
        expect![[r#"
            FROM python:2.7-slim
            #
            # Set the working directory to /app
            WORKDIR /app
            ADD . /app
            RUN pip install -r requirements.txt
            EXPOSE 80
            #
            # Define environment variable
            ENV NAME World
            CMD ["python","app.py"]
        "#]],
    );
}

#[test]
fn a_flask_app_on_alpine() {
    check(
        "# our base image\nFROM alpine:3.5\n\nRUN apk add --update py2-pip\n\nCOPY requirements.txt /usr/src/app/\nRUN pip install --no-cache-dir -r /usr/src/app/requirements.txt\n\nCOPY app.py /usr/src/app/\nCOPY templates/index.html /usr/src/app/templates/\n\nEXPOSE 5000\n\nCMD [\"python\", \"/usr/src/app/app.py\"]\n",
        expect![[r##"
            #
            # our base image
            FROM alpine:3.5
            RUN apk add --update py2-pip
            COPY requirements.txt /usr/src/app/
            RUN pip install --no-cache-dir -r /usr/src/app/requirements.txt
            COPY app.py /usr/src/app/
            COPY templates/index.html /usr/src/app/templates/
            EXPOSE 5000
            CMD ["python","/usr/src/app/app.py"]
        "##]],
    );
}

#[test]
fn a_copy_may_follow_the_cmd() {
    let text =
        "FROM python:3.6.1-alpine\nRUN pip install flask\nCMD [\"python\",\"app.py\"]\nCOPY app.py /app.py\n";
    let (dockerfile, diagnostics) = Dockerfile::parse(text);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let names: Vec<_> = dockerfile.stages[0].instructions.iter().map(|one| one.kind.name()).collect();
    assert_eq!(names, ["RUN", "CMD", "COPY"]);
}

#[test]
fn the_last_cmd_is_the_one_that_counts() {
    let (dockerfile, _) =
        Dockerfile::parse("FROM user/image:version\nCMD one\nCMD [\"/bin/bash\", \"two\"]\n");
    let last = dockerfile.stages[0].instructions.last().map(|one| &one.kind);
    let words = vec!["/bin/bash".to_owned(), "two".to_owned()];
    assert_eq!(last, Some(&InstructionKind::Cmd(Command::Exec(words))));
}

#[test]
fn push_in_a_dockerfile_is_explained() {
    check(
        "FROM a\nPUSH me/app\n",
        expect![[r#"
        FROM a
        Error: unknown instruction: PUSH
          --> Dockerfile:2
           1 |     FROM a
           2 | >>> PUSH me/app
        Hint: PUSH is not a Dockerfile instruction; use `dhow push`
    "#]],
    );
}
