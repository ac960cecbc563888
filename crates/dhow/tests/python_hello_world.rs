//! The third tutorial: one line of text, with the source in the last layer.

use crate::rig::{Rig, free_port};
use crate::shown::{cells, executed, inspect, is_size, layers};

#[test]
fn a10_a15_b04_b06_b16_python_hello_world_is_built_run_and_changed() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.fixture("python-hello-world");
    app.ok("docker image build -t python-hello-world .");
    let before = layers(&rig, "python-hello-world");
    let base = layers(&rig, "python:3.6.1-alpine").len();
    assert_eq!(before.len(), base + 2, "RUN and COPY make layers, CMD does not");

    let port = free_port();
    let id = rig.ok(&format!("docker run -p {port}:5000 -d python-hello-world"));
    assert_eq!(rig.page(&format!("http://localhost:{port}")), "hello world!");
    history(&rig);

    // Deleting the container leaves the image.
    assert_eq!(rig.ok(&format!("docker rm -f {id}")), id);
    assert!(rig.ok("docker images").contains("python-hello-world"));

    app.edit("app.py", "hello world!", "hello dhow!");
    let rebuild = app.run("docker image build -t python-hello-world .");
    assert_eq!(executed(&rebuild), ["COPY app.py /app.py"]);
    let after = layers(&rig, "python-hello-world");
    assert_eq!(after[..base + 1], before[..base + 1]);
    assert_ne!(after[base + 1], before[base + 1]);
    rig.ok(&format!("docker run -p {port}:5000 -d python-hello-world"));
    assert_eq!(rig.page(&format!("http://localhost:{port}")), "hello dhow!");
}

fn history(rig: &Rig) {
    let table = rig.ok("docker history python-hello-world");
    let mut lines = table.lines();
    assert!(cells(lines.next().unwrap_or_default()).starts_with(&["IMAGE", "CREATED", "CREATED BY", "SIZE"]));
    let rows: Vec<_> = lines.map(cells).collect();
    let image = inspect(rig, "python-hello-world")["Id"].as_str().unwrap_or_default()[7..19].to_owned();
    assert_eq!(rows[0][0], image);
    let by = |index: usize| rows[index][2];
    assert!(by(0).contains("COPY app.py /app.py"), "{table}");
    assert!(by(1).contains("CMD [\"python\""), "{table}");
    assert!(by(2).contains("pip install flask"), "{table}");
    let sizes: Vec<_> = rows.iter().take(3).map(|row| row[3]).collect();
    assert!(is_size(sizes[0]) && sizes[0] != "0B", "{table}");
    assert_eq!(sizes[1], "0B", "{table}");
    assert!(sizes[2].ends_with("MB"), "{table}");
}

#[test]
fn a10_build_without_a_folder_says_what_is_missing() {
    let Some(rig) = Rig::start() else { return };
    for line in ["docker image build", "docker build"] {
        let complaint = rig.fails(line, 1);
        assert!(complaint.contains("requires 1 argument"), "{complaint}");
    }
}
