//! The fourth tutorial: one line of text in the background, `.dockerignore`, and comments at the ends of lines.

use std::process::Command;

use crate::rig::{Rig, free_port, has_tool};
use crate::shown::{cells, executed, layers};

#[test]
fn a11_a16_a17_b13_b14_b15_my_python_app_is_built_and_run_in_the_background() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.fixture("my-python-app");
    for ignored in ["debug.log", "__pycache__/app.pyc", ".git/HEAD"] {
        app.write(ignored, "not for the image");
    }
    app.write("sub/__pycache__/kept.pyc", "only the root's is ignored");
    app.ok("docker build -t my-python-app .");
    let list = rig.ok("docker run --rm my-python-app find . -type f");
    let mut files: Vec<_> = list.lines().filter(|file| !file.starts_with("./Dockerfile")).collect();
    files.sort_unstable();
    assert_eq!(files, ["./.dockerignore", "./app.py", "./requirements.txt", "./sub/__pycache__/kept.pyc"]);
    let before = layers(&rig, "my-python-app");
    app.write("debug.log", "more of what is not for the image");
    assert_eq!(executed(&app.run("docker build -t my-python-app .")), Vec::<String>::new());
    assert_eq!(layers(&rig, "my-python-app"), before);

    let port = free_port();
    let id = rig.ok(&format!("docker run -d -p {port}:5000 my-python-app"));
    assert_eq!(rig.page(&format!("http://localhost:{port}")), "Hello, Docker!");
    listed(&rig, &id, port);
    // The same image again, beside it.
    let second = free_port();
    rig.ok(&format!("docker run -d -p {second}:5000 --name second my-python-app"));
    assert_eq!(rig.page(&format!("http://localhost:{second}")), "Hello, Docker!");
    assert_eq!(rig.page(&format!("http://localhost:{port}")), "Hello, Docker!");
    assert_eq!(rig.ok("docker ps -q").lines().count(), 2);
    as_a_person_sees_it(&rig, port);
}

fn listed(rig: &Rig, id: &str, port: u16) {
    let table = rig.ok("docker ps");
    let mut lines = table.lines();
    let header = cells(lines.next().unwrap_or_default());
    assert_eq!(header, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let row = cells(lines.next().expect("the container runs"));
    assert_eq!(row[..3], [&id[..12], "my-python-app", "\"python app.py\""]);
    assert!(row[3].ends_with(" ago"), "{row:?}");
    assert!(row[4].starts_with("Up "), "{row:?}");
    assert!(row[5].starts_with(&format!("0.0.0.0:{port}->5000/tcp")), "{row:?}");
    let words: Vec<_> = row[6].split('_').collect();
    assert!(
        words.len() == 2 && words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase())),
        "{row:?}"
    );
}

/// The page in a browser.
fn as_a_person_sees_it(rig: &Rig, port: u16) {
    if !has_tool("chromium") {
        return;
    }
    let mut chromium = Command::new("timeout");
    chromium.args([
        "60",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
    ]);
    chromium.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--dump-dom",
    ]);
    chromium.arg(format!("--user-data-dir={}", rig.path("chromium").display()));
    chromium.arg(format!("http://localhost:{port}/"));
    let output = chromium.output().expect("timeout starts");
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(dom.contains("<body>Hello, Docker!</body>"), "{dom}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn trap_1_comments_at_the_ends_of_lines_are_understood_with_a_warning() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.fixture("my-python-app");
    let build = app.run("docker build -t layered -f Dockerfile.layering .");
    assert_eq!(build.status, 0);
    for line in [3, 5, 7] {
        assert!(
            build.stderr.contains(&format!("Dockerfile.layering:{line}")),
            "line {line}:\n{}",
            build.stderr
        );
    }
    assert_eq!(rig.ok("docker inspect --format '{{json .Config.Cmd}}' layered"), r#"["python","app.py"]"#);
    assert_eq!(rig.ok("docker run --rm layered cat /app/app.py"), rig.ok("cat my-python-app/app.py"));
    // As the tutorial prints it, pip looks for its list in the wrong folder.
    let verbatim = app.fails("docker build -f Dockerfile.layering-verbatim .", 1);
    assert!(
        verbatim.contains("requirements.txt") && verbatim.contains("Dockerfile.layering-verbatim:3"),
        "{verbatim}"
    );
}
