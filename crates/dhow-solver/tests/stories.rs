//! Rebuild stories: edit something, build again, and see what ran and why. No kernel, no disk.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::Mutex;

use dhow_oci::Digest;
use dhow_solver::{
    Cache, CacheKey, CachePolicy, Earlier, Event, FactKind, Facts, Graph, Lookup, Past, Site, SolveError,
    Solver, Tree, TreeEntry, Vertex, VertexId, Worker,
};
use expect_test::{Expect, expect};

/// `copy FILE…`, `run TEXT` (reads args), `strip TEXT` (a run whose result does not depend on its input),
/// `fail`.
struct World {
    files: HashMap<String, String>,
    args: Vec<(String, String)>,
    ran: Mutex<usize>,
}

impl World {
    fn tree(&self, instruction: &str) -> Tree {
        let mut tree = Tree::new();
        for path in instruction.split(' ').skip(1) {
            let content = Digest::sha256_of(self.files[path].as_bytes());
            tree.insert(path, TreeEntry { mode: 0o100_644, owner: None, content });
        }
        tree
    }
}

impl Worker for World {
    type Op = String;
    type Step = Digest;
    type Output = Digest;
    type Error = String;

    fn facts(&self, _: VertexId, vertex: &Vertex<String>, inputs: &[Digest]) -> Result<Facts, String> {
        let mut facts = Facts::new();
        facts.text(FactKind::Instruction, "", vertex.op.as_str());
        if vertex.op.starts_with("copy") {
            facts.content(FactKind::Files, "context", self.tree(&vertex.op).digest());
        } else {
            for (name, value) in &self.args {
                match name.starts_with("SECRET") {
                    true => facts.hidden(FactKind::BuildArg, name, value),
                    false => facts.text(FactKind::BuildArg, name, value),
                }
            }
        }
        for (index, input) in inputs.iter().enumerate() {
            facts.content(FactKind::Input, index.to_string(), *input);
        }
        Ok(facts)
    }

    fn join(&self, _: VertexId, _: &Vertex<String>, _: &[Digest], step: Digest) -> Digest {
        step
    }

    fn run(&self, _: VertexId, vertex: &Vertex<String>, inputs: &[Digest]) -> Result<Digest, String> {
        *self.ran.lock().expect("a lock") += 1;
        match vertex.op.split(' ').next() {
            Some("fail") => Err("it was to fail".to_owned()),
            Some("copy") => {
                Ok(Digest::sha256_of(format!("{inputs:?}{}", self.tree(&vertex.op).to_text()).as_bytes()))
            }
            Some("strip") => Ok(Digest::sha256_of(vertex.op.as_bytes())),
            _ => Ok(Digest::sha256_of(format!("{inputs:?}{}{:?}", vertex.op, self.args).as_bytes())),
        }
    }
}

#[derive(Default)]
struct Memory {
    results: Mutex<HashMap<CacheKey, Digest>>,
    pasts: Mutex<Vec<Past>>,
    trees: Mutex<HashMap<Digest, Tree>>,
}

impl Cache<Digest, String> for Memory {
    type Claim = ();

    fn claim(&self, _: &CacheKey) -> Result<(), String> {
        Ok(())
    }

    fn lookup(&self, key: &CacheKey) -> Result<Option<Digest>, String> {
        Ok(self.results.lock().expect("a lock").get(key).copied())
    }

    fn record(&self, past: &Past, output: &Digest) -> Result<(), String> {
        self.results.lock().expect("a lock").insert(past.key, *output);
        self.pasts.lock().expect("a lock").insert(0, past.clone());
        Ok(())
    }

    /// What has the same text, else what begins with the same word.
    fn earlier(&self, _: VertexId, site: &Site) -> Result<Vec<Earlier>, String> {
        let pasts = self.pasts.lock().expect("a lock");
        let word = |text: &str| text.split(' ').next().map(str::to_owned);
        let same: Vec<&Past> = pasts.iter().filter(|past| past.step == site.instruction).collect();
        let near = || pasts.iter().filter(|past| word(&past.step) == word(&site.instruction)).collect();
        let found: Vec<&Past> = if same.is_empty() { near() } else { same };
        Ok(found.into_iter().cloned().map(Earlier::Known).collect())
    }

    fn past(&self, key: &CacheKey) -> Option<Past> {
        self.pasts.lock().expect("a lock").iter().find(|past| past.key == *key).cloned()
    }

    fn tree(&self, digest: &Digest) -> Option<Tree> {
        self.trees.lock().expect("a lock").get(digest).cloned()
    }
}

/// Builds a chain of `steps`, one a line, and tells what happened to each.
fn build(memory: &Memory, steps: &str, files: &str, args: &str, policy: CachePolicy) -> String {
    let pairs = |text: &str| {
        text.split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect::<Vec<_>>()
    };
    let world = World { files: pairs(files).into_iter().collect(), args: pairs(args), ran: Mutex::new(0) };
    let mut graph = Graph::new();
    let mut last = None;
    for (index, step) in steps.lines().map(str::trim).filter(|step| !step.is_empty()).enumerate() {
        if step.starts_with("copy") {
            let tree = world.tree(step);
            memory.trees.lock().expect("a lock").insert(tree.digest(), tree);
        }
        let site = Site { position: format!("step {index}"), instruction: step.to_owned() };
        last = Some(graph.add(Vertex {
            op: step.to_owned(),
            inputs: last.into_iter().collect(),
            site,
            cache: policy,
        }));
    }
    let story = Mutex::new(String::new());
    let tell = |event: Event| {
        let mut story = story.lock().expect("a lock");
        let line = |id: VertexId| graph.vertex(id).op.clone();
        match event {
            Event::LookedUp(id, Lookup::Hit) => writeln!(story, "hit   {}", line(id)),
            Event::LookedUp(id, Lookup::Miss(reason)) => writeln!(story, "miss  {:<12}  {reason}", line(id)),
            Event::Failed(id) => writeln!(story, "fail  {}", line(id)),
            _ => Ok(()),
        }
        .expect("a String takes all text");
    };
    let one = NonZeroUsize::MIN;
    let outcome = Solver::new(&world, memory, one, &tell).solve(&graph, last.expect("a step"));
    if let Err(SolveError { error, .. }) = outcome {
        writeln!(story.lock().expect("a lock"), "error {error}").expect("a String takes all text");
    }
    story.into_inner().expect("a lock")
}

fn check(first: (&str, &str, &str), then: (&str, &str, &str), expected: Expect) {
    let memory = Memory::default();
    build(&memory, first.0, first.1, first.2, CachePolicy::Use);
    expected.assert_eq(&build(&memory, then.0, then.1, then.2, CachePolicy::Use));
}

const APP: &str = "copy req\n run pip\n copy app";

#[test]
fn an_unchanged_build_runs_nothing() {
    check(
        (APP, "req=1 app=1", "A=1"),
        (APP, "req=1 app=1", "A=1"),
        expect![[r#"
        hit   copy req
        hit   run pip
        hit   copy app
    "#]],
    );
}

#[test]
fn a_changed_file_is_named() {
    check(
        (APP, "req=1 app=1", ""),
        (APP, "req=1 app=2", ""),
        expect![[r#"
        hit   copy req
        hit   run pip
        miss  copy app      app changed
    "#]],
    );
}

#[test]
fn what_follows_a_change_says_so() {
    check(
        (APP, "req=1 app=1", ""),
        (APP, "req=2 app=1", ""),
        expect![[r#"
        miss  copy req      req changed
        miss  run pip       what it builds upon changed: copy req
        miss  copy app      what it builds upon changed: copy req
    "#]],
    );
}

#[test]
fn arguments_are_shown_and_secrets_are_not() {
    check(
        ("run make", "", "V=1 SECRET=a"),
        ("run make", "", "V=2 SECRET=b"),
        expect![[r#"
        miss  run make      ARG V 1 -> 2, ARG SECRET changed
    "#]],
    );
    check(
        ("run make", "", "V=1"),
        ("run make", "", "W=1"),
        expect![[r#"
        miss  run make      ARG W=1 is new, ARG V is gone
    "#]],
    );
}

#[test]
fn a_changed_instruction_hides_the_rest() {
    check(
        ("run make", "", "V=1"),
        ("run make all", "", "V=2"),
        expect![[r#"
        miss  run make all  instruction was `run make`
    "#]],
    );
}

#[test]
fn a_step_that_yields_the_same_stops_the_cascade() {
    let steps = "copy app\n strip docs\n run test";
    check(
        (steps, "app=1", ""),
        (steps, "app=2", ""),
        expect![[r#"
        miss  copy app      app changed
        miss  strip docs    what it builds upon changed: copy app
        hit   run test
    "#]],
    );
}

#[test]
fn a_result_that_is_gone_is_told_from_a_change() {
    let memory = Memory::default();
    build(&memory, "run make", "", "", CachePolicy::Use);
    memory.results.lock().expect("a lock").clear();
    expect![[r#"
        miss  run make      removed by gc
    "#]]
    .assert_eq(&build(&memory, "run make", "", "", CachePolicy::Use));
}

#[test]
fn no_cache_runs_everything_and_remembers_it() {
    let memory = Memory::default();
    build(&memory, "run make", "", "", CachePolicy::Use);
    expect![[r#"
        miss  run make      not looked up (--no-cache)
    "#]]
    .assert_eq(&build(&memory, "run make", "", "", CachePolicy::Refresh));
    assert_eq!(build(&memory, "run make", "", "", CachePolicy::Use), "hit   run make\n");
}

#[test]
fn a_failure_stops_what_needs_it_and_is_not_remembered() {
    for _ in 0..2 {
        check(
            ("run a", "", ""),
            ("run a\n fail\n run b", "", ""),
            expect![[r#"
            hit   run a
            miss  fail          no earlier build of this step
            fail  fail
            error it was to fail
        "#]],
        );
    }
}

#[test]
fn only_what_the_target_needs_runs_and_a_diamond_runs_once() {
    let world = World { files: HashMap::new(), args: Vec::new(), ran: Mutex::new(0) };
    let memory = Memory::default();
    let mut graph = Graph::new();
    let mut add = |name: &str, inputs: Vec<VertexId>| {
        let site = Site { position: name.to_owned(), instruction: name.to_owned() };
        graph.add(Vertex { op: name.to_owned(), inputs, site, cache: CachePolicy::Use })
    };
    let base = add("run base", vec![]);
    let left = add("run left", vec![base]);
    let right = add("run right", vec![base]);
    add("fail", vec![base]);
    let top = add("run top", vec![left, right]);
    let jobs = NonZeroUsize::new(4).expect("four");
    Solver::new(&world, &memory, jobs, &|_| {}).solve(&graph, top).expect("nothing needed fails");
    assert_eq!(*world.ran.lock().expect("a lock"), 4);
}
