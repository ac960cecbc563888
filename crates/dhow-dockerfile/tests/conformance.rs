//! Tables and real Dockerfiles with what BuildKit said about them, kept beside the repository.
use std::path::PathBuf;

use dhow_dockerfile::{Command, Dockerfile, InstructionKind, sexpr};
use serde_json::Value;

/// Reads a file of the conformance folder. Without the folder the test is a skip, and says so.
fn load(name: &str) -> Option<Vec<Value>> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance"));
    let Ok(text) = std::fs::read_to_string(root.join(name)) else {
        println!("skipped: {} is not there", root.join(name).display());
        return None;
    };
    let table: Value = serde_json::from_str(&text).expect("the table is JSON");
    Some(table["cases"].as_array().expect("the table has cases").clone())
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {case}"))
}

fn errors(dockerfile: &str) -> Vec<String> {
    let (_, diagnostics) = Dockerfile::parse(dockerfile);
    diagnostics.into_iter().filter(|one| one.is_error()).map(|one| one.message).collect()
}

#[track_caller]
fn assert_none_differ(differing: &[String], of: usize) {
    assert!(differing.is_empty(), "{} of {of} differ:\n{}", differing.len(), differing.join("\n"));
}

#[test]
fn wrong_instructions_have_the_words_of_docker() {
    let Some(cases) = load("tables/data/instruction_errors.json") else { return };
    let differs = |case: &&Value| {
        !errors(text(case, "dockerfile")).iter().any(|error| error.contains(text(case, "error")))
    };
    let differing: Vec<String> = cases.iter().filter(differs).map(Value::to_string).collect();
    assert_none_differ(&differing, cases.len());
}

#[test]
fn exec_forms_are_recognised() {
    let Some(cases) = load("tables/data/json_exec_form.json") else { return };
    for case in &cases {
        let source = format!("FROM scratch\nCMD {}\n", text(case, "input"));
        let (dockerfile, _) = Dockerfile::parse(&source);
        let ok = errors(&source).is_empty();
        assert_eq!(ok, case["ok"].as_bool().unwrap(), "{case}");
        if ok {
            let expected: Vec<String> = serde_json::from_str(text(case, "input").trim()).unwrap();
            assert_eq!(
                dockerfile.stages[0].instructions[0].kind,
                InstructionKind::Cmd(Command::Exec(expected))
            );
        }
    }
}

#[test]
fn forms_are_split_as_buildkit_does() {
    let Some(cases) = load("tables/data/parser.json") else { return };
    let mut differing = Vec::new();
    for case in &cases {
        match (sexpr(text(case, "dockerfile")), case["ok"].as_bool().unwrap()) {
            (Ok(tree), true) => differing.extend(difference(text(case, "name"), &tree, text(case, "ast"))),
            (Err(_), false) => {}
            (result, _) => differing.push(format!("{}: {result:?}", text(case, "name"))),
        }
    }
    assert_none_differ(&differing, cases.len());
}

/// The first line in which two trees differ.
fn difference(name: &str, ours: &str, theirs: &str) -> Option<String> {
    let (mut ours, mut theirs) = (ours.trim().lines(), theirs.trim().lines());
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return None,
            (ours, theirs) if ours != theirs => {
                return Some(format!(
                    "{name}\n  ours   {}\n  theirs {}",
                    ours.unwrap_or("-"),
                    theirs.unwrap_or("-")
                ));
            }
            _ => {}
        }
    }
}

#[test]
fn real_files_have_the_same_tree() {
    let Some(cases) = load("dockerfile-corpus/data/corpus.json") else { return };
    let mut differing = Vec::new();
    for case in &cases {
        match (sexpr(text(case, "text")), case["ast"].as_str()) {
            (Ok(tree), Some(ast)) => differing.extend(difference(text(case, "file"), &tree, ast)),
            (Err(_), None) => {}
            (result, _) => differing.push(format!("{}: {result:?}", text(case, "file"))),
        }
    }
    assert_none_differ(&differing, cases.len());
}

#[test]
fn real_files_are_accepted_and_refused_as_by_docker() {
    let Some(cases) = load("dockerfile-corpus/data/corpus.json") else { return };
    let mut differing = Vec::new();
    for case in &cases {
        let expected = case["parse_error"].as_str().or(case["instr_error"].as_str());
        // Found by expanding FROM with the arguments of a build, which is not this crate's part.
        let expected = expected.filter(|error| !error.starts_with("(docker 29"));
        let found = errors(text(case, "text"));
        let agree = match expected {
            None => found.is_empty(),
            Some(error) => {
                let error = error
                    .split_once(": ")
                    .filter(|(head, _)| head.contains("on line"))
                    .map_or(error, |(_, tail)| tail);
                found.iter().any(|found| found.starts_with(error))
            }
        };
        if !agree {
            differing.push(format!("{}\n  ours   {found:?}\n  theirs {expected:?}", text(case, "file")));
        }
    }
    assert_none_differ(&differing, cases.len());
}

#[test]
fn real_files_have_the_same_stages_and_lines() {
    let Some(cases) = load("dockerfile-corpus/data/corpus.json") else { return };
    let mut differing = Vec::new();
    for case in cases.iter().filter(|case| case["stages"].is_array() && case["instr_error"].is_null()) {
        let (dockerfile, _) = Dockerfile::parse(text(case, "text"));
        let stages: Vec<Value> = dockerfile
            .stages
            .iter()
            .map(|stage| {
                let commands: Vec<&str> = stage.instructions.iter().map(|one| one.keyword.as_str()).collect();
                serde_json::json!({
                    "base": stage.base,
                    "commands": if commands.is_empty() { Value::Null } else { commands.into() },
                    "name": stage.name.clone().unwrap_or_default(),
                    "platform": stage.platform.clone().unwrap_or_default(),
                })
            })
            .collect();
        let mut lines: Vec<Value> = Vec::new();
        let mut push =
            |span: dhow_dockerfile::Span| lines.push(serde_json::json!([span.start_line, span.end_line]));
        dockerfile.global_args.iter().for_each(|arg| push(arg.span));
        for stage in &dockerfile.stages {
            push(stage.span);
            stage.instructions.iter().for_each(|one| push(one.span));
        }
        if Value::from(stages.clone()) != case["stages"] {
            differing.push(format!(
                "{}\n  ours   {stages:?}\n  theirs {}",
                text(case, "file"),
                case["stages"]
            ));
        } else if Value::from(lines.clone()) != case["lines"] {
            differing.push(format!(
                "{}\n  ours   {:?}\n  theirs {}",
                text(case, "file"),
                Value::from(lines).to_string(),
                case["lines"]
            ));
        }
    }
    assert_none_differ(&differing, cases.len());
}
