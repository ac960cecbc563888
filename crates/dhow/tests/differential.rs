//! dhow makes of the Dockerfiles in `conformance/build` what docker makes of them, as `cargo xtask differential --record`
//! wrote it down.

use std::path::{Path, PathBuf};

use dhow_differential::{Case, Tool, cases};

use crate::rig::Rig;

/// The images that cases build upon.
const BASES: [&str; 4] = ["alpine", "busybox", "mongo", "hello-world"];

/// A test for each folder of cases.
macro_rules! folders {
    ($($name:ident)*) => {
        const FOLDERS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*
    };
}

folders! { add config copy expand from ignore run }

#[test]
fn every_folder_of_cases_has_a_test() {
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .expect("there are cases")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    found.sort();
    assert_eq!(found, FOLDERS);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/build")
}

fn check(name: &str) {
    let Some(rig) = Rig::start() else { return };
    let cases = cases(&folder(), &format!("{name}/")).expect("cases are written well");
    for base in BASES {
        rig.ok(&format!("docker pull -q {base}"));
    }
    let shell = rig.at("");
    let dhow = Tool::new(|| shell.command("dhow"), &BASES, shell.folder()).expect("base images");
    let failures: Vec<String> = cases.iter().filter_map(|case| failure(&dhow, case)).collect();
    println!("{} passed, {} failed", cases.len() - failures.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// In what the outcome of a case is not as it should be.
fn failure(dhow: &Tool<'_>, case: &Case) -> Option<String> {
    let scratch = tempfile::tempdir().expect("a folder for the case");
    let (outcome, said) = dhow.build(case, scratch.path()).expect("the case can be tried");
    let recorded = case.recorded.as_ref().expect("`cargo xtask differential --record` writes an outcome");
    let mut lines = recorded.differences(&outcome);
    lines.extend(case.unsaid(&said).into_iter().map(|piece| format!("it does not say `{piece}`: {said}")));
    (!lines.is_empty()).then(|| format!("{}: {}\n  {}", case.name, case.title, lines.join("\n  ")))
}
