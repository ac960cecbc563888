//! Reference parsing against the tables of the conformance corpus, when it lies beside the repository.

use dhow_oci::Reference;
use serde_json::Value;

fn cases(name: &str) -> Vec<Value> {
    let path = format!("{}/../../../shared/conformance/tables/data/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {path} is not here");
        return Vec::new();
    };
    let table: Value = serde_json::from_str(&text).expect("a JSON table");
    table["cases"].as_array().expect("cases").clone()
}

#[test]
fn names_are_accepted_and_refused_as_docker_does() {
    for case in cases("reference_names") {
        let input = case["input"].as_str().expect("input");
        let parsed = input.parse::<Reference>();
        assert_eq!(parsed.is_ok(), case["ok"] == true, "{input}: {parsed:?}");
    }
}

#[test]
fn short_forms_are_completed_as_docker_does() {
    for case in cases("reference_normalize") {
        for key in ["FullName", "AmbiguousName", "FamiliarName"] {
            let text = case[key].as_str().expect("a name");
            if text.is_empty() {
                continue;
            }
            let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.repository(), case["RemoteName"], "{text}");
            assert_eq!(reference.familiar_name(), case["FamiliarName"], "{text}");
            assert_eq!(reference.name(), case["FullName"], "{text}");
            assert_eq!(reference.registry(), case["Domain"], "{text}");
        }
    }
}

#[test]
fn a_missing_tag_is_latest() {
    for case in cases("reference_dockerref") {
        let reference: Reference = case["input"].as_str().expect("input").parse().expect("a reference");
        let reference = match reference.digest() {
            Some(digest) => reference.with_digest(digest),
            None => reference.or_latest(),
        };
        assert_eq!(reference.to_string(), case["expected"].as_str().expect("expected"));
    }
}
