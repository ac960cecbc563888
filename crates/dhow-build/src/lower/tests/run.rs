//! What a `RUN` depends on, and what it is refused, without a kernel.

use std::net::{IpAddr, Ipv4Addr};

use dhow_runtime::Rlimit;
use dhow_solver::{FactValue, Facts};

use super::*;
use crate::request::StepNetwork;
use crate::run::run_facts;
use crate::run_options::Entitlements;

/// The options and variables that the last step of `text` depends on, one a line.
fn facts(text: &str, change: impl FnOnce(&mut BuildRequest)) -> String {
    let (dockerfile, diagnostics) = Dockerfile::parse(text);
    assert!(!diagnostics.iter().any(|found| found.is_error()), "{diagnostics:?}");
    let mut request = BuildRequest::new(PathBuf::new());
    change(&mut request);
    let source = Source { name: "Dockerfile", text, dockerfile: &dockerfile, identity: "test" };
    let plan = match lower(&source, &request, Reach::Target, &Images::default()) {
        Ok(plan) => plan,
        Err(error) => return format!("error {error}\n"),
    };
    let vertex = plan.graph.vertex(plan.vertex);
    let Op::Run(run) = &vertex.op else { panic!("the last step is no RUN") };
    let mut facts = Facts::new();
    run_facts(run, &mut facts);
    let shown = facts.iter().filter_map(|fact| match &fact.value {
        FactValue::Text(text) if fact.name != "host name" || text != "buildkitsandbox" => {
            Some(format!("{} {text}\n", fact.name))
        }
        _ => None,
    });
    let inputs: Vec<usize> = vertex.inputs.iter().map(|input| input.index()).collect();
    format!("inputs {inputs:?}\n{}", shown.collect::<String>())
}

fn key(text: &str, change: impl FnOnce(&mut BuildRequest)) -> String {
    facts(text, change).replace(" RUN ", "")
}

#[test]
fn every_kind_of_mount_counts_with_its_options() {
    let text = "FROM base AS one\nFROM base\nWORKDIR /w\nARG D=/dir\n\
        RUN --mount=target=in --mount=from=one,source=/a,target=$D/b,rw --mount=type=tmpfs,target=/t,size=1k \
        --mount=type=cache,target=/c/../d,mode=700,uid=7 --mount=type=secret,id=s,env=S \
        --mount=type=secret,target=/x/key,required,mode=0444 --mount=type=ssh --mount=type=ssh,id=k,gid=3 x\n";
    expect![[r#"
        inputs [2, 0]
         RUN /bin/sh -c x
        working directory /w
        user 
        network default
        --mount at /w/in type=bind
        --mount at /dir/b type=bind,rw
        --mount at /t type=tmpfs,size=1024
        --mount at /d type=cache,mode=0700,uid=7
        --mount of secret s type=secret,id=s,env=S
        --mount at /x/key type=secret,id=key,required,mode=0444
        --mount at /run/buildkit/ssh_agent.0 type=ssh,id=default
        --mount at /run/buildkit/ssh_agent.1 type=ssh,id=k,gid=3
        PATH /bin
        D /dir
    "#]]
    .assert_eq(&facts(text, |_| {}));
}

#[test]
fn which_cache_and_how_it_is_shared_does_not_count() {
    let run = |mount: &str| key(&format!("FROM base\nRUN --mount=type=cache,target=/c{mount} x\n"), |_| {});
    let plain = run("");
    assert_eq!(run(",id=other"), plain);
    assert_eq!(run(",sharing=locked"), plain);
    assert_ne!(run(",ro"), plain);
    assert_ne!(run(",mode=0700"), plain);
    let in_namespace = key("FROM base\nRUN --mount=type=cache,target=/c x\n", |request| {
        request.build_args.insert("BUILDKIT_CACHE_MOUNT_NS".to_owned(), "ns".to_owned());
    });
    assert_eq!(in_namespace, plain);
}

#[test]
fn limits_of_processes_and_names_of_hosts_count_and_resources_and_proxies_do_not() {
    let text = "FROM base\nRUN x\n";
    let plain = key(text, |_| {});
    let host = |name: &str, address| (name.to_owned(), address);
    let localhost = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let with_host = key(text, |request| request.run.hosts = vec![host("db", localhost)]);
    assert_ne!(with_host, plain);
    assert_eq!(key(text, |request| request.run.hosts = vec![host("db", None)]), with_host);
    assert_ne!(key(text, |request| request.run.shm_bytes = Some(1)), plain);
    assert_ne!(key(text, |request| request.run.cgroup_parent = "/x".to_owned()), plain);
    let limit = Rlimit { name: "nofile".to_owned(), soft: 1, hard: 2 };
    assert_ne!(key(text, |request| request.run.rlimits = vec![limit]), plain);
    assert_eq!(key(text, |request| request.run.resources.memory_bytes = Some(1 << 30)), plain);
    let with_arg =
        |name: &str| key(text, |request| drop(request.build_args.insert(name.to_owned(), "v".to_owned())));
    assert_eq!(with_arg("HTTP_PROXY"), plain);
    assert_ne!(with_arg("BUILDKIT_SANDBOX_HOSTNAME"), plain);
}

#[test]
fn what_reaches_beyond_the_container_has_to_be_allowed() {
    let host = "FROM base\nRUN --network=host x\n";
    let insecure = "FROM base\nRUN --security=insecure x\n";
    assert_eq!(facts(host, |_| {}), "error RUN --network=host needs the entitlement network.host\n");
    assert_eq!(
        facts(insecure, |_| {}),
        "error RUN --security=insecure needs the entitlement security.insecure\n"
    );
    let all = Entitlements { network_host: true, security_insecure: true };
    assert!(facts(host, |request| request.run.entitlements = all).contains("network host"));
    assert!(facts(host, |request| request.network = StepNetwork::Host).contains("network host"));
    assert!(facts(insecure, |request| request.run.entitlements = all).contains("security insecure"));
    assert_eq!(
        facts("FROM base\nRUN --device=vendor/x=y z\n", |_| {}),
        "error RUN --device is not supported yet\n"
    );
}

#[test]
fn a_script_given_in_place_is_a_file_for_the_shell() {
    let run = |text: &str| facts(text, |_| {}).lines().nth(1).unwrap_or_default().to_owned();
    assert_eq!(run("FROM base\nRUN <<EOF\necho 1\nEOF\n"), " RUN /bin/sh -c echo 1");
    assert_eq!(
        run("FROM base\nRUN <<EOF\n#!/usr/bin/env python\nprint(1)\nEOF\n"),
        " RUN /bin/sh -c /dev/pipes/EOF"
    );
}

#[test]
fn mounts_that_make_no_sense_say_why() {
    let error = |mount: &str| facts(&format!("FROM base\nRUN --mount={mount} x\n"), |_| {});
    for (mount, why) in [
        ("target=/", "error invalid mount target \"/\""),
        ("type=bind,source=a", "error invalid mount target \"/\""),
        ("type=cache", "error a cache mount needs a target"),
        ("type=cache,target=/c,source=/s", "error a cache mount with a source needs a from"),
        ("type=ssh,source=/s", "error an ssh mount takes neither from nor source"),
        ("from=1,target=/x", "error invalid stage index 1"),
        ("type=tmpfs,target=/x,mode=1", "error mode not allowed for \"tmpfs\" type mounts"),
    ] {
        let told = error(mount);
        assert!(told.starts_with(why), "{mount}: {told}");
    }
}

#[test]
fn a_filter_names_the_stages_whose_steps_run_again() {
    let text = "FROM base AS one\nRUN a\nFROM one AS two\nRUN b\n";
    let policies = |names: &[&str]| {
        let (dockerfile, _) = Dockerfile::parse(text);
        let mut request = BuildRequest::new(PathBuf::new());
        request.no_cache_filter = names.iter().map(|name| name.to_string()).collect();
        let source = Source { name: "Dockerfile", text, dockerfile: &dockerfile, identity: "test" };
        let plan = lower(&source, &request, Reach::Target, &Images::default()).expect("a plan");
        // A stage begins with the last vertex of the one it builds on.
        let vertices: BTreeSet<VertexId> = plan.steps.iter().filter_map(|step| step.vertex).collect();
        let runs = vertices.into_iter().map(|vertex| plan.graph.vertex(vertex));
        let runs = runs.filter(|vertex| matches!(vertex.op, Op::Run(_)));
        runs.map(|vertex| vertex.cache == CachePolicy::Refresh).collect::<Vec<_>>()
    };
    assert_eq!(policies(&[]), [false, false]);
    assert_eq!(policies(&["ONE"]), [true, false]);
    assert_eq!(policies(&["1"]), [false, true]);
}
