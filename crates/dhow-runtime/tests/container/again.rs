//! Shims that start their container again, and that ask how it is.

use std::fs;
use std::time::Duration;

use dhow_runtime::shim::Told;
use dhow_runtime::{
    HealthCheck, HealthStatus, RestartPolicy, RuntimeState, StopMeaning, health, note_stop, restart_count,
    set_restart_policy, signal, spawn_shim, wait,
};
use serde_json::json;

use crate::world::{World, eventually};

pub(crate) const TESTS: &[crate::Test] = &[
    ("a_program_that_fails_is_started_again_so_often", a_program_that_fails_is_started_again_so_often),
    ("a_wait_for_the_next_start_can_be_broken_off", a_wait_for_the_next_start_can_be_broken_off),
    ("what_its_user_stopped_is_not_started_again", what_its_user_stopped_is_not_started_again),
    ("another_policy_holds_from_the_next_end_on", another_policy_holds_from_the_next_end_on),
    ("a_container_that_cannot_be_started_again_says_why", a_container_that_cannot_be_started_again_says_why),
    ("health_is_what_the_probes_say", health_is_what_the_probes_say),
    ("a_probe_that_takes_too_long_is_ended", a_probe_that_takes_too_long_is_ended),
];

/// Appends what was told to the file that the test says.
pub(crate) fn mark_told(request: &serde_json::Value, told: &Told) {
    use std::io::Write;
    let Some(path) = request["told"].as_str() else { return };
    let text = match told {
        Told::Ended(status) => format!("ended {}\n", status.exit_code),
        Told::Started(_) => "started\n".to_owned(),
        Told::Health(status) => format!("{}\n", status.word()),
    };
    let mut file = fs::File::options().append(true).create(true).open(path).expect("the tests can write");
    file.write_all(text.as_bytes()).expect("the tests can write");
}

fn told(world: &World) -> String {
    fs::read_to_string(world.path("told")).unwrap_or_default()
}

fn start(world: &World, policy: RestartPolicy, check: Option<HealthCheck>) -> i32 {
    let mut request = world.request();
    request.restart = policy;
    request.health = check;
    request.on_exit = Some(json!({ "told": world.path("told"), "mark": world.path("mark") }));
    spawn_shim(&request, None).unwrap().pid
}

fn a_program_that_fails_is_started_again_so_often() {
    let world = World::shell("echo run; exit 3");
    start(&world, RestartPolicy::OnFailure { retries_max: 2 }, None);
    let status = wait(&world.run_dir(), &world.bundle()).unwrap().unwrap();
    assert_eq!(status.exit_code, 3);
    assert_eq!(world.state(), RuntimeState::Exited(status));
    assert_eq!(world.log(), "run\nrun\nrun\n");
    assert_eq!(restart_count(&world.bundle()).unwrap(), 2);
    assert_eq!(told(&world), "ended 3\nstarted\nended 3\nstarted\n");
    assert_eq!(fs::read_to_string(world.path("mark")).unwrap(), "3", "the last end is told once");
    assert!(world.cgroups().is_empty());
}

fn a_wait_for_the_next_start_can_be_broken_off() {
    let world = World::shell("exit 4");
    start(&world, RestartPolicy::Always, None);
    eventually("it waits", || matches!(world.state(), RuntimeState::Restarting(_)));
    note_stop(&world.run_dir(), &world.bundle(), StopMeaning::ForGood).unwrap();
    let status = wait(&world.run_dir(), &world.bundle()).unwrap().unwrap();
    assert_eq!(world.state(), RuntimeState::Exited(status.clone()));
    assert_eq!(status.exit_code, 4);
    assert_eq!(fs::read_to_string(world.path("mark")).unwrap(), "4");
}

fn what_its_user_stopped_is_not_started_again() {
    for (policy, meaning) in [
        (RestartPolicy::Always, StopMeaning::ForGood),
        (RestartPolicy::Always, StopMeaning::ForNow),
        (RestartPolicy::UnlessStopped, StopMeaning::ByUser),
    ] {
        let world = World::shell("sleep 1000");
        start(&world, policy, None);
        note_stop(&world.run_dir(), &world.bundle(), meaning).unwrap();
        assert!(signal(&world.run_dir(), 9).unwrap());
        assert_eq!(wait(&world.run_dir(), &world.bundle()).unwrap().unwrap().exit_code, 137);
        assert_eq!(restart_count(&world.bundle()).unwrap(), 0, "{policy}");
    }
}

fn another_policy_holds_from_the_next_end_on() {
    let world = World::shell("sleep 1000");
    let first = start(&world, RestartPolicy::No, None);
    set_restart_policy(&world.run_dir(), &world.bundle(), RestartPolicy::Always).unwrap();
    signal(&world.run_dir(), 9).unwrap();
    let again = || matches!(world.state(), RuntimeState::Running { pid, .. } if pid != first);
    eventually("it runs again", again);
    set_restart_policy(&world.run_dir(), &world.bundle(), RestartPolicy::No).unwrap();
    signal(&world.run_dir(), 9).unwrap();
    assert_eq!(wait(&world.run_dir(), &world.bundle()).unwrap().unwrap().exit_code, 137);
}

fn a_container_that_cannot_be_started_again_says_why() {
    let world = World::shell("rm /bin/sh; exit 5");
    start(&world, RestartPolicy::Always, None);
    let status = wait(&world.run_dir(), &world.bundle()).unwrap().unwrap();
    assert_eq!(status.exit_code, 128);
    let error = status.error.unwrap();
    assert!(error.contains("\"sh\": executable file not found"), "{error}");
    assert!(world.cgroups().is_empty());
}

fn check(script: &str) -> HealthCheck {
    HealthCheck {
        args: ["sh", "-c", script].map(String::from).to_vec(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(30),
        start_period: Duration::ZERO,
        start_interval: Duration::from_millis(20),
        retries: 2,
    }
}

fn health_is_what_the_probes_say() {
    let world = World::shell("trap 'touch /well' USR1; while :; do sleep 0.05; done");
    let script = "echo out; echo err >&2; test -e /well";
    start(&world, RestartPolicy::No, Some(check(script)));
    let now = || health(&world.bundle()).unwrap().unwrap();
    eventually("it is found ill", || now().status == HealthStatus::Unhealthy);
    let log = now().log;
    assert_eq!((log[0].exit_code, log[0].output.as_str()), (1, "out\nerr\n"));
    signal(&world.run_dir(), rustix::process::Signal::USR1.as_raw()).unwrap();
    eventually("it is well again", || now().status == HealthStatus::Healthy && now().log.len() == 5);
    assert_eq!(now().failing_streak, 0);
    eventually("both are told", || told(&world) == "unhealthy\nhealthy\n");
    signal(&world.run_dir(), 9).unwrap();
    wait(&world.run_dir(), &world.bundle()).unwrap();
}

fn a_probe_that_takes_too_long_is_ended() {
    let world = World::shell("sleep 1000");
    let slow = HealthCheck { timeout: Duration::from_millis(100), ..check("exec sleep 777") };
    start(&world, RestartPolicy::No, Some(slow));
    let now = || health(&world.bundle()).unwrap().unwrap();
    eventually("it is found ill", || now().status == HealthStatus::Unhealthy);
    let probe = &now().log[0];
    assert_eq!((probe.exit_code, probe.output.as_str()), (-1, "Health check exceeded timeout (100ms)"));
    signal(&world.run_dir(), 9).unwrap();
    wait(&world.run_dir(), &world.bundle()).unwrap();
    assert!(world.cgroups().is_empty(), "no probe is left in the group");
}
