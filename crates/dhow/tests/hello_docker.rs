//! The first tutorial: a page with the container's host name and a visit counter that misses its Redis.

use std::time::{Duration, Instant};

use crate::rig::{Rig, host_address};
use crate::shown::{cells, executed, inspect, is_id, layers, published};

/// A look-up of a name that does not exist has to fail at once; Redis' own time-out is two seconds.
const LOOK_UP_SECONDS_MAX: u64 = 4;
/// "This takes no time at all", says the tutorial.
const REBUILD_SECONDS_MAX: u64 = 5;

#[test]
fn a07_a12_a13_b01_b17_hello_docker_is_built_run_and_visited() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.fixture("hello-docker");
    app.ok("docker build -t hello-docker .");
    assert_eq!(
        cells(rig.ok("docker images hello-docker").lines().nth(1).expect("it is listed"))[..2],
        ["hello-docker", "latest"]
    );

    let built = layers(&rig, "hello-docker");
    let again = app.run("docker build -t hello-docker .");
    assert!(again.took < Duration::from_secs(REBUILD_SECONDS_MAX), "the rebuild took {:?}", again.took);
    assert_eq!(executed(&again), Vec::<String>::new());
    assert_eq!(again.stderr.matches(" CACHED").count(), 7, "all instructions:\n{}", again.stderr);
    assert_eq!(layers(&rig, "hello-docker"), built);

    let id = rig.ok("docker container run --name hello -d -P hello-docker");
    assert!(is_id(&id, 64), "{id}");
    let port = published(&rig, "hello", 80);
    assert!(rig.ok("docker ps").contains(&format!("0.0.0.0:{port}->80/tcp")));
    let page = format!(
        "<h3>Hello World!</h3><b>Hostname:</b> {}<br/><b>Visits:</b> <i>cannot connect to Redis, counter disabled</i>",
        &id[..12]
    );
    assert_eq!(rig.page(&format!("http://localhost:{port}")), page);
    let asked = Instant::now();
    assert_eq!(rig.page(&format!("http://127.0.0.1:{port}")), page);
    assert_eq!(rig.page(&format!("http://{}:{port}", host_address())), page);
    assert!(
        asked.elapsed() < Duration::from_secs(2 * LOOK_UP_SECONDS_MAX),
        "two pages took {:?}",
        asked.elapsed()
    );

    let complaint = rig.fails("docker run --name hello -d hello-docker", 125);
    let conflict = format!("Conflict. The container name \"/hello\" is already in use by container \"{id}\"");
    assert!(complaint.contains(&conflict), "{complaint}");
    assert_eq!(inspect(&rig, "hello")["Id"], id.as_str());
}
