//! Volumes: made, listed, filled, mounted, removed.

use serde_json::Value;

use crate::rig::Rig;

fn volume(rig: &Rig, name: &str) -> Value {
    let text = rig.ok(&format!("docker volume inspect {name}"));
    serde_json::from_str::<Value>(&text).expect("JSON")[0].clone()
}

#[test]
fn volumes_are_made_listed_and_removed_in_dockers_words() {
    let Some(rig) = Rig::start() else { return };
    assert_eq!(rig.ok("docker volume ls"), "DRIVER    VOLUME NAME");
    assert_eq!(rig.ok("docker volume create --label tier=db --label bare data"), "data");
    assert_eq!(rig.ok("docker volume create data"), "data", "it is there already");
    let anonymous = rig.ok("docker volume create");
    assert_eq!(anonymous.len(), 64);
    let mut expected = vec!["DRIVER    VOLUME NAME".to_owned(), "local     data".into()];
    expected.insert(if *anonymous < *"data" { 1 } else { 2 }, format!("local     {anonymous}"));
    assert_eq!(rig.ok("docker volume ls"), expected.join("\n"));
    for (filter, names) in [
        ("label=tier", "data"),
        ("label=tier=web", ""),
        ("name=at", "data"),
        ("driver=other", ""),
        ("label=com.docker.volume.anonymous", anonymous.as_str()),
    ] {
        assert_eq!(rig.ok(&format!("docker volume ls -q --filter {filter}")), names, "{filter}");
    }
    let format = "{{.Name}} {{.Driver}} {{.Scope}} {{.Label \"tier\"}} {{.Links}} {{.Size}}";
    assert_eq!(
        rig.ok(&format!("docker volume ls -f name=data --format '{format}'")),
        "data local local db N/A N/A"
    );
    let data = volume(&rig, "data");
    assert_eq!(data["Labels"], serde_json::json!({ "tier": "db", "bare": "" }));
    assert_eq!((&data["Options"], &data["Scope"]), (&Value::Null, &"local".into()));
    assert!(data["Mountpoint"].as_str().expect("a path").ends_with("/volumes/data/_data"), "{data}");
    assert_eq!(rig.ok("docker inspect --type volume --format '{{.Name}}' data"), "data");
    assert_eq!(rig.ok("docker volume rm data"), "data");
    let complaint = rig.fails("docker volume rm data", 1);
    assert!(complaint.contains("get data: no such volume"), "{complaint}");
    rig.ok("docker volume rm -f data");
    assert!(
        rig.ok("docker events --since 1h --until 0s --filter type=volume").contains("volume destroy data")
    );
}

#[test]
fn what_makes_no_volume_is_told() {
    let Some(rig) = Rig::start() else { return };
    for (line, reason) in [
        ("create a", "volume name is too short, names should be at least two alphanumeric characters"),
        ("create a/b", "create a/b: \"a/b\" includes invalid characters for a local volume name"),
        ("create -d nfs x1", "error looking up volume plugin nfs: plugin \"nfs\" not found"),
        ("create -o colour=red x1", "create x1: invalid option: \"colour\""),
        ("create -o type=tmpfs x1", "create x1: missing required option: \"device\""),
        ("create -o size=1g x1", "create x1: quota size requested but no quota support"),
        ("inspect nothing", "get nothing: no such volume"),
    ] {
        let complaint = rig.fails(&format!("docker volume {line}"), 1);
        assert!(complaint.contains(reason), "{line}: {complaint}");
    }
    assert_eq!(rig.ok("docker volume ls -q"), "");
}

#[test]
fn a_volume_in_use_stays_and_prune_takes_the_others() {
    let Some(rig) = Rig::start() else { return };
    let id = rig.ok("docker create -v kept:/kept busybox true");
    let complaint = rig.fails("docker volume rm kept", 1);
    assert!(complaint.contains(&format!("remove kept: volume is in use - [{id}]")), "{complaint}");
    rig.ok("docker volume create named");
    rig.ok("docker volume create --label keep other");
    let anonymous = rig.ok("docker volume create");
    let pruned = rig.ok("docker volume prune -f");
    assert_eq!(pruned, format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 0B"));
    let pruned = rig.ok("docker volume prune -f -a --filter label!=keep");
    assert_eq!(pruned, "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B");
    assert_eq!(rig.ok("docker volume ls -q"), "kept\nother");
    assert_eq!(rig.ok("docker volume ls -q -f dangling=true"), "other");
    rig.fails("docker volume prune -f -a --filter all=1", 1);
    assert_eq!(
        rig.ok("docker container prune -f --filter until=1h"),
        "Total reclaimed space: 0B",
        "it is younger"
    );
    assert!(rig.ok("docker container prune -f").starts_with(&format!("Deleted Containers:\n{id}\n")));
}

#[test]
fn a_volume_may_be_a_folder_of_the_host_or_a_file_system_that_containers_share() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    rig.at("").write("there/file", "of the host\n");
    let there = rig.path("work/there");
    rig.ok(&format!("docker volume create -o type=none -o o=bind -o device={} host", there.display()));
    assert_eq!(rig.ok("docker run --rm -v host:/mnt busybox cat /mnt/file"), "of the host");
    rig.ok("docker volume create -o type=none -o o=bind -o device=/no/such/folder gone");
    let complaint = rig.fails("docker run --rm -v gone:/mnt busybox true", 125);
    assert!(
        complaint.contains("error while mounting volume")
            && complaint.contains("failed to mount local volume"),
        "{complaint}"
    );
    rig.ok("docker volume create -o type=tmpfs -o device=tmpfs -o o=size=1m,mode=700 memory");
    rig.ok("docker run -d --name one -v memory:/mnt busybox sh -c 'echo shared >/mnt/a; sleep 600'");
    rig.eventually("it is written", || rig.run("docker exec one cat /mnt/a").stdout == "shared\n");
    assert_eq!(rig.ok("docker run --rm -v memory:/mnt busybox cat /mnt/a"), "shared");
    assert_eq!(rig.ok("docker exec one cat /mnt/a"), "shared", "the other's end did not unmount it");
    rig.ok("docker rm -f one");
    let data = volume(&rig, "memory")["Mountpoint"].as_str().expect("a path").to_owned();
    rig.eventually("it is unmounted", || std::fs::read_dir(&data).expect("a folder").next().is_none());
    assert_eq!(rig.ok("docker volume rm memory host gone"), "memory\nhost\ngone");
    assert!(there.join("file").exists(), "what a volume only shows is not removed with it");
}
