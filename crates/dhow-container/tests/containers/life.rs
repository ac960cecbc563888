//! From create to remove, with everything that can come between.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use dhow_container::{
    CommitRequest, CreateError, MountRequest, MountSource, RemoveError, RemoveOptions, State, StopOptions,
    VolumeMount,
};
use dhow_net::PortMapping;

use crate::world::{World, eventually, has_cgroup};

type Test = (&'static str, fn());

pub(crate) const TESTS: &[Test] = &[
    ("a_program_is_run_and_its_end_and_output_are_kept", a_program_is_run_and_its_end_and_output_are_kept),
    ("a_program_that_is_not_there_leaves_the_container", a_program_that_is_not_there_leaves_the_container),
    ("a_name_belongs_to_one_container", a_name_belongs_to_one_container),
    ("of_many_that_want_a_name_at_once_one_gets_it", of_many_that_want_a_name_at_once_one_gets_it),
    ("a_published_port_answers_and_is_given_back", a_published_port_answers_and_is_given_back),
    ("stop_asks_first_and_kills_then", stop_asks_first_and_kills_then),
    ("a_paused_container_can_be_stopped", a_paused_container_can_be_stopped),
    ("a_running_container_is_removed_by_force_only", a_running_container_is_removed_by_force_only),
    (
        "a_container_that_is_to_be_removed_at_its_end_leaves_its_status",
        a_container_that_is_to_be_removed_at_its_end_leaves_its_status,
    ),
    ("nothing_is_left_of_removed_containers", nothing_is_left_of_removed_containers),
    ("what_a_killed_remove_left_is_swept", what_a_killed_remove_left_is_swept),
    ("a_killed_shim_is_told_and_cleaned_up", a_killed_shim_is_told_and_cleaned_up),
    ("a_container_goes_on_after_it_was_committed", a_container_goes_on_after_it_was_committed),
    (
        "a_volume_is_filled_from_the_image_and_outlives_containers",
        a_volume_is_filled_from_the_image_and_outlives_containers,
    ),
    ("rubbish_of_a_killed_create_is_swept", rubbish_of_a_killed_create_is_swept),
];

fn a_program_is_run_and_its_end_and_output_are_kept() {
    let world = World::new();
    let (code, output) =
        world.run(&world.request("hello", "echo to stdout; echo to stderr >&2; hostname; exit 7"));
    let container = world.find("hello");
    assert_eq!(code, 7);
    assert_eq!(output, format!("to stdout\n{}\nto stderr\n", &container.id[..12]));
    assert_eq!(world.log("hello").lines().count(), 3);
    match container.state {
        State::Exited { status, started_at } => assert!(status.exit_code == 7 && started_at.is_some()),
        state => panic!("{state:?}"),
    }
}

fn a_program_that_is_not_there_leaves_the_container() {
    let world = World::new();
    let mut request = world.request("absent", "");
    request.command = vec!["nosuch".into()];
    world.containers.create(&request).unwrap();
    let error = world.containers.start("absent").unwrap_err();
    assert_eq!((error.exit_code(), world.word("absent")), (127, "created"));
    world.remove("absent");
}

fn a_name_belongs_to_one_container() {
    let world = World::new();
    let id = world.containers.create(&world.request("hello", "true")).unwrap().id;
    let error = world.containers.create(&world.request("hello", "true")).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "Conflict. The container name \"/hello\" is already in use by container \"{id}\". \
             You have to remove (or rename) that container to be able to reuse that name."
        )
    );
    world.containers.rename("hello", "other").unwrap();
    world.containers.create(&world.request("hello", "true")).unwrap();
    assert!(world.containers.rename("other", "hello").is_err());
}

fn of_many_that_want_a_name_at_once_one_gets_it() {
    let world = World::new();
    let before = world.traces();
    let made = std::thread::scope(|scope| {
        let create = || world.containers.create(&world.request("one", "true"));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(Result::is_ok).count()
    });
    assert_eq!(made, 1);
    world.remove("one");
    assert_eq!(world.traces(), before, "those that failed left nothing");
}

fn fetch(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.ends_with("hi\n").then_some(text)
}

fn a_published_port_answers_and_is_given_back() {
    let world = World::new();
    let mut request = world.request("web", "echo hi > /page; exec httpd -f -p 80 -h /");
    request.host.publish = PortMapping::parse("5000:80").unwrap();
    world.containers.create(&request).unwrap();
    world.containers.start("web").unwrap();
    eventually("an answer", || fetch(5000).is_some());

    request.name = Some("web2".into());
    world.containers.create(&request).unwrap();
    let error = world.containers.start("web2").unwrap_err();
    let id = world.find("web2").id;
    assert_eq!(
        error.to_string(),
        format!(
            "driver failed programming external connectivity on endpoint web2 ({id}): \
             Bind for 0.0.0.0:5000 failed: port is already allocated"
        )
    );
    assert_eq!((error.exit_code(), world.word("web2")), (125, "created"));
    world.containers.kill("web", "KILL").unwrap();
    world.containers.start("web2").unwrap();
    world.remove("web");
    world.remove("web2");
}

fn stop_asks_first_and_kills_then() {
    let world = World::new();
    world.start("polite", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done");
    eventually("the trap is set", || world.log("polite") == "up\n");
    world.containers.stop("polite", &StopOptions::default()).unwrap();
    assert_eq!((world.containers.wait("polite").unwrap(), world.log("polite").as_str()), (3, "up\nbye\n"));

    world.start("deaf", "sleep 1000; true");
    let start = Instant::now();
    world.containers.stop("deaf", &StopOptions { timeout_s: Some(1), ..StopOptions::default() }).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "it was given its second");
    assert_eq!(world.containers.wait("deaf").unwrap(), 137);
}

fn a_paused_container_can_be_stopped() {
    let world = World::new();
    world.start("still", "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done");
    eventually("the trap is set", || world.log("still") == "up\n");
    world.containers.pause("still").unwrap();
    assert_eq!(world.word("still"), "paused");
    world.containers.stop("still", &StopOptions::default()).unwrap();
    assert_eq!(world.containers.wait("still").unwrap(), 4);
}

fn a_running_container_is_removed_by_force_only() {
    let world = World::new();
    world.start("busy", "sleep 1000");
    match world.containers.remove("busy", RemoveOptions::default()) {
        Err(error @ RemoveError::Running { .. }) => assert_eq!(
            error.to_string(),
            "cannot remove container \"busy\": container is running: stop the container before removing or force remove"
        ),
        result => panic!("{result:?}"),
    }
    world.remove("busy");
    assert!(world.containers.list().unwrap().is_empty());
}

fn a_container_that_is_to_be_removed_at_its_end_leaves_its_status() {
    let world = World::new();
    let mut request = world.request("brief", "sleep 0.3; exit 5");
    request.host.auto_remove = true;
    world.containers.create(&request).unwrap();
    world.containers.start("brief").unwrap();
    assert_eq!(world.containers.wait("brief").unwrap(), 5);
    assert!(world.containers.find("brief").is_err());
}

fn nothing_is_left_of_removed_containers() {
    let world = World::new();
    // The network itself stays, as Docker's does.
    world.run(&world.request("first", "true"));
    world.remove("first");
    let before = world.traces();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let world = &world;
            scope.spawn(move || {
                let name = format!("c{number}");
                world.start(&name, "sleep 1000");
                let id = world.find(&name).id;
                world.remove(&name);
                assert!(!has_cgroup(&id));
            });
        }
    });
    assert_eq!(world.traces(), before);
}

fn a_killed_shim_is_told_and_cleaned_up() {
    let world = World::new();
    let mut request = world.request("orphan", "sleep 1000");
    request.host.publish = PortMapping::parse("5001:80").unwrap();
    world.containers.create(&request).unwrap();
    let before = world.traces();
    world.containers.start("orphan").unwrap();
    let State::Running { pid, .. } = world.find("orphan").state else { panic!("it runs") };
    let shim = dhow_sys::process::open_pidfd(world.shim("orphan")).unwrap();
    dhow_sys::process::send_signal(std::os::fd::AsFd::as_fd(&shim), 9).unwrap();
    eventually("the shim is gone", || world.word("orphan") == "exited");
    match world.find("orphan").state {
        State::Exited { status, .. } => assert!(status.exit_code == 137 && status.error.is_some()),
        state => panic!("{state:?}"),
    }
    eventually("the program is gone", || !fs::exists(format!("/proc/{pid}")).unwrap());
    assert!(!has_cgroup(&world.find("orphan").id));
    world.containers.start("orphan").unwrap();
    assert_eq!(world.word("orphan"), "running");
    world.containers.kill("orphan", "KILL").unwrap();
    world.remove("orphan");
    let after = world.traces();
    assert_eq!(after.host(), before.host());
}

fn a_container_goes_on_after_it_was_committed() {
    let world = World::new();
    world.start("source", "echo changed > /file; rm /bin/nc; echo up; sleep 1000");
    eventually("the change is made", || world.log("source") == "up\n");
    let request = CommitRequest { reference: "copy:latest".parse().ok(), ..CommitRequest::default() };
    world.containers.commit("source", &request).unwrap();
    assert_eq!(world.word("source"), "running");
    let mut check = world.request("check", "cat /file; ls /bin/nc /etc 2>&1");
    check.image = "copy".into();
    let (_, output) = world.run(&check);
    assert!(output.starts_with("changed\n") && output.contains("/bin/nc: No such file"), "{output}");
    world.remove("source");
}

fn a_volume_is_filled_from_the_image_and_outlives_containers() {
    let world = World::new();
    let volume = MountRequest {
        target: "/data".into(),
        readonly: false,
        source: MountSource::Volume(VolumeMount { name: Some("kept".into()), ..VolumeMount::default() }),
    };
    let with_volume = |name: &str, script: &str| {
        let mut request = world.request(name, script);
        request.mounts.push(volume.clone());
        request
    };
    let (_, output) = world.run(&with_volume("writer", "cat /data/seed; echo more > /data/new"));
    assert_eq!(output, "from the image\n");
    world.remove("writer");
    let (_, output) = world.run(&with_volume("reader", "cat /data/new"));
    assert_eq!(output, "more\n");

    let (_, output) = world.run(&world.request("anonymous", "cat /data/seed"));
    assert_eq!(output, "from the image\n");
    let (name, _) =
        world.find("anonymous").record.volumes().map(|(name, _)| (name.to_owned(), ())).next().unwrap();
    assert!(world.containers.volume_path(&name).exists());
    world.containers.sweep().unwrap();
    assert!(world.containers.volume_path(&name).exists(), "its container is there");
    world.remove("anonymous");
    assert!(!world.containers.volume_path(&name).exists());
    assert!(world.containers.volume_path("kept").exists());

    // Without being asked to, a removal leaves even anonymous volumes.
    world.run(&world.request("careful", "true"));
    let name = world.find("careful").record.volumes().map(|(name, _)| name.to_owned()).next().unwrap();
    world.containers.remove("careful", RemoveOptions::default()).unwrap();
    world.containers.sweep().unwrap();
    assert!(world.containers.volume_path(&name).exists());
}

fn what_a_killed_remove_left_is_swept() {
    let world = World::new();
    // The bridge stays when it was once made.
    world.run(&world.request("first", "true"));
    world.remove("first");
    let before = world.traces();
    world.run(&world.request("gone", "true"));
    let id = world.find("gone").id;
    dhow_runtime::wait(&world.containers.run_dir(&id), &world.containers.bundle(&id)).unwrap();
    world.forget(&id);
    assert!(world.containers.run_dir(&id).dir().exists());
    world.containers.sweep().unwrap();
    assert_eq!(world.traces(), before);
}

fn rubbish_of_a_killed_create_is_swept() {
    let world = World::new();
    let before = world.traces();
    let id = "0".repeat(64);
    let folder = world.containers.bundle(&id);
    let unnamed = folder.dir().with_file_name(format!(".new-{id}"));
    fs::create_dir_all(&unnamed).unwrap();
    let lock = fs::File::create(unnamed.join("lock")).unwrap();
    lock.lock().unwrap();
    world.containers.sweep().unwrap();
    fs::rename(&unnamed, folder.dir()).expect("a young folder may be somebody's work");
    world.containers.sweep().unwrap();
    assert!(folder.dir().exists(), "what is locked is somebody's work");
    drop(lock);
    fs::create_dir_all(&unnamed).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(&unnamed).unwrap().set_modified(long_ago).unwrap();
    let made = world.containers.create(&world.request("kept", "true")).unwrap();
    world.containers.sweep().unwrap();
    assert!(!folder.dir().exists() && !unnamed.exists());
    assert!(world.containers.bundle(&made.id).dir().exists());
    world.remove("kept");
    assert_eq!(world.traces(), before);
    assert!(matches!(world.containers.create(&world.request("a/b", "true")), Err(CreateError::Name(_))));
}
