//! Docker is the judge: its recorded answers to `docker inspect --format`, and ours.
//!
//! `docker-answers.json` holds pairs of template and answer (output or error) of docker 28.2.2 for
//! the container in `docker-data.json`. Where we answer otherwise on purpose, [`DEVIATIONS`] says so.

use dhow_template::{MissingKey, Template};
use serde_json::Value;

const DATA: &str = include_str!("docker-data.json");
const ANSWERS: &str = include_str!("docker-answers.json");

/// A template and our answer to it, where that is not docker's.
const DEVIATIONS: &[(&str, &str)] = &[
    // An object of nothing but strings is taken for a map of strings, as labels are.
    (
        r#"{{index .Data.list 1}} {{index .Data.map "a"}}|{{index .Data.map "zz"}}|{{index .Data.mixed "x" 1}}"#,
        "b 1||y",
    ),
    // `null` is what a nil map of strings looks like in JSON.
    (r#"{{index .Data.nil "x"}}"#, ""),
    // `null` is what a nil list looks like in JSON.
    ("{{len .Data.nil}}", "0"),
    // JSON does not say that a list is one of strings: its items do.
    (r#"{{join .Data.list ", "}}"#, "a, b, c"),
    // `json` keeps the order of the keys.
    (
        r#"{{join .Config.Env ", "}} {{json .Config.Labels}} {{.Config.Labels}} {{index .Config.Labels "nope"}}| {{.Config.Labels.a}} {{.Config.Labels.nope}}"#,
        r#"A=1, B=2 {"com.b":"2","a":"1"} map[a:1 com.b:2] | 1 <no value>"#,
    ),
    // The type that is there helps more than `interface {}`.
    (
        "{{.Data.s.foo}}",
        r#"template parsing error: template: :1:7: executing "" at <.Data.s.foo>: can't evaluate field foo in type string"#,
    ),
    // Nothing in JSON can be called.
    ("{{call .Name}}", r#"template parsing error: template: :1: function "call" not defined"#),
    // `json` keeps the order of the keys.
    (
        r#"{{.Data.list | json}} {{json .Data.map}} {{json "a<b>&\u2028é\u0001"}} {{json 1.0}} {{json 1e21}} {{json nil}} {{json 1e-7}} {{json true}} {{json 0.000001}}"#,
        r#"["a","b","c"] {"b":"2","a":"1"} "a<b>&\u2028é\u0001" 1 1e+21 null 1e-7 true 0.000001"#,
    ),
    // The depth is bounded by the stack of a thread, not by what Go can grow to.
    (
        r#"{{define "r"}}{{template "r" .}}{{end}}{{template "r" .}}"#,
        r#"template parsing error: template: :1:29: executing "r" at <.>: exceeded maximum template depth (200)"#,
    ),
    // `null` is what a nil list looks like in JSON.
    ("{{len nil}}", "0"),
    // A clear message.
    (
        r#"{{pad "x" -1 0}}"#,
        r#"template parsing error: template: :1:2: executing "" at <pad "x" -1 0>: error calling pad: negative padding"#,
    ),
    // The type that is there helps more than `interface {}`.
    (
        "{{.Data.map.a.b}}",
        r#"template parsing error: template: :1:7: executing "" at <.Data.map.a.b>: can't evaluate field b in type string"#,
    ),
    // Hexadecimal floating point is not offered.
    (
        r#"{{printf "%#o %#b %O" 8 5 8}} {{printf "%x" -255}} {{printf "%x" 3.5}}"#,
        "010 0b101 0o10 -ff %!x(float64=3.5)",
    ),
];

/// The output, or the text of the error, for the recorded container.
fn answer(template: &str, data: &Value) -> String {
    let rendered = Template::parse(template).and_then(|t| t.missing_key(MissingKey::Error).render(data));
    rendered.unwrap_or_else(|error| error.to_string())
}

#[test]
fn templates_are_answered_as_docker_answers_them() {
    let data: Value = serde_json::from_str(DATA).expect("recorded data is JSON");
    let answers: Vec<(String, String)> = recorded();
    let mut wrong = Vec::new();
    for (template, docker) in &answers {
        let deviation = DEVIATIONS.iter().find(|(t, _)| t == template);
        let expected = deviation.map_or(docker.as_str(), |(_, ours)| ours);
        let actual = answer(template, &data);
        if actual != expected {
            wrong.push(format!("{template}\n  expected {expected:?}\n  got      {actual:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), answers.len(), wrong.join("\n"));
}

#[test]
fn every_deviation_still_is_one() {
    let answers = recorded();
    for (template, ours) in DEVIATIONS {
        let recorded = answers.iter().find(|(t, _)| t == template);
        let (_, docker) = recorded.unwrap_or_else(|| panic!("docker was not asked {template}"));
        assert_ne!(docker, ours, "{template}");
    }
}

fn recorded() -> Vec<(String, String)> {
    let pairs: Vec<[String; 2]> = serde_json::from_str::<Value>(ANSWERS)
        .expect("recorded answers are JSON")
        .as_array()
        .expect("a list of pairs")
        .iter()
        .map(|pair| [0, 1].map(|i| pair[i].as_str().expect("a pair of strings").to_owned()))
        .collect();
    pairs.into_iter().map(|[template, answer]| (template, answer)).collect()
}

#[test]
fn a_missing_key_has_no_value_unless_the_caller_is_strict() {
    let data: Value = serde_json::from_str(DATA).expect("recorded data is JSON");
    let lenient = |template| Template::parse(template).and_then(|t| t.render(&data));
    assert_eq!(lenient("{{.Data.nope}}|{{.Nope.nope}}"), Ok("<no value>|<no value>".into()));
    assert!(answer("{{.Data.nope}}", &data).ends_with(r#"map has no entry for key "nope""#));
    assert_eq!(answer("{{.Config.Labels.nope}}", &data), "<no value>");
}
