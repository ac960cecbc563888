//! The second tutorial: a page with a random cat, on an image of Alpine.

use rustix::process::Signal;

use crate::rig::{Rig, free_port};
use crate::shown::{inspect, is_id};

/// What the application says when it listens.
const READY: &str = " * Running on http://0.0.0.0:5000/ (Press CTRL+C to quit)";

#[test]
fn a09_a14_a18_a19_a22_flask_app_is_built_run_stopped_and_removed() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.fixture("flask-app");
    let build = app.run("docker build --progress=classic -t you/myfirstapp .");
    assert_eq!(build.status, 0);
    let cached = app.ok("docker build --progress=classic -t you/myfirstapp .");

    // In the foreground, until somebody stops it from another terminal.
    let port = free_port();
    let line = format!("docker run -p {port}:5000 --name myfirstapp you/myfirstapp");
    let mut foreground = app.spawn(&line);
    foreground.wait_for(READY);
    for _ in 0..2 {
        assert!(rig.page(&format!("http://localhost:{port}")).contains("Cat Gif of the day"));
    }
    let id = rig.ok("docker ps -q --no-trunc");
    assert_eq!(inspect(&rig, &id)["Config"]["ExposedPorts"], serde_json::json!({ "5000/tcp": {} }));
    assert_eq!(
        inspect(&rig, "you/myfirstapp")["Config"]["ExposedPorts"],
        serde_json::json!({ "5000/tcp": {} })
    );
    assert_eq!(rig.ok("docker stop myfirstapp"), "myfirstapp");
    let ended = foreground.finish();
    assert!([0, 137, 143].contains(&ended.status), "run ended with {}", ended.status);
    assert_eq!(rig.ok("docker rm myfirstapp"), "myfirstapp");
    assert_eq!(rig.ok("docker ps -aq"), "");

    // Until Ctrl-C, which is for the application.
    let mut foreground = app.spawn(&line);
    foreground.wait_for(READY);
    foreground.signal(Signal::INT);
    assert_ne!(foreground.finish().status, 125);
    assert_eq!(rig.ok("docker ps -q"), "");
    assert_eq!(rig.ok("docker rm myfirstapp"), "myfirstapp");

    let mut foreground = app.spawn(&line);
    foreground.wait_for(READY);
    assert_eq!(rig.ok("docker rm -f myfirstapp"), "myfirstapp");
    assert_eq!(foreground.finish().status, 137);
    assert_eq!(rig.ok("docker ps -aq"), "");
    classic_output(&build.stdout);
    assert_eq!(cached.matches("\n ---> Using cache\n").count(), 7, "all steps but FROM");
}

fn classic_output(said: &str) {
    assert!(said.starts_with("Sending build context to Docker daemon "), "{said}");
    for line in [
        "Step 1/8 : FROM alpine:3.5",
        "Step 2/8 : RUN apk add --update py2-pip",
        "Step 3/8 : COPY requirements.txt /usr/src/app/",
        "Step 8/8 : CMD [\"python\", \"/usr/src/app/app.py\"]",
        "OK: stand-in for alpine",
        "Successfully tagged you/myfirstapp:latest",
    ] {
        assert!(said.lines().any(|said| said == line), "`{line}` is missing in:\n{said}");
    }
    assert_eq!(said.matches("\n ---> Running in ").count(), 2, "both RUNs:\n{said}");
    let built = said
        .lines()
        .filter_map(|line| line.strip_prefix("Successfully built "))
        // pip says so too, of what it builds.
        .next_back()
        .expect("it says what it built");
    assert!(is_id(built, 12), "{built}");
    let after_cmd = said.split("Step 8/8").nth(1).and_then(|rest| rest.lines().nth(1)).unwrap_or_default();
    assert_eq!(after_cmd, format!(" ---> {built}"), "the last step's image is the result");
}
