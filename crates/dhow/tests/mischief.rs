//! Registries on a bad day: whatever they do, a pull succeeds or says one thing, and what was there is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dhow_sim::{Answer, Double, Image, Mischief, crooked};

use crate::rig::{Rig, Tar};

/// Stories told at once, each with a store of its own, and how many follow each other.
const THREADS: u64 = 6;
const STORIES: u64 = 3;

/// `DHOW_STORIES` asks for more of them.
fn stories() -> u64 {
    std::env::var("DHOW_STORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(STORIES)
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|n| (n.wrapping_mul(2_654_435_761 + seed) >> 13) as u8).collect()
}

/// Several layers, one of them twice.
fn image(seed: u64) -> Image {
    let layer = |name: &str, bytes| Tar::default().file(name, &noise(seed, bytes)).end();
    let twice = layer("twice", 2000);
    Image::layered(&[layer("a", 300_000), twice.clone(), layer("b", 70_000), twice])
}

fn tell(rig: &Rig, seed: u64) {
    let image = image(seed);
    let mischief = Mischief::new(seed);
    let calm = Arc::new(AtomicBool::new(false));
    let registry = {
        let (image, calm) = (image.clone(), Arc::clone(&calm));
        Double::start(move |asked| match calm.load(Ordering::SeqCst) {
            true => image.answer(asked),
            false => mischief.spoil(asked, image.answer(asked)),
        })
    };
    let pull = format!("dhow pull -q {}/bad:{seed}", registry.address);
    let tried = rig.run(&pull);
    let said: Vec<&str> = tried.stderr.lines().filter(|line| line.starts_with("Error")).collect();
    match tried.status {
        0 => assert_eq!(said, [""; 0], "seed {seed}"),
        1 => assert_eq!(said.len(), 1, "seed {seed}: {}", tried.both()),
        status => panic!("seed {seed} ended with {status}: {}", tried.both()),
    }
    rig.ok("dhow system check");
    calm.store(true, Ordering::SeqCst);
    rig.ok(&pull);
    let id = rig.ok(&format!("dhow image inspect --format {{{{.Id}}}} {}/bad:{seed}", registry.address));
    let config = image.blobs.keys().find(|digest| digest.to_string() == id);
    assert!(config.is_some(), "seed {seed}: {id} is not what the registry has");
}

#[test]
fn a_pull_succeeds_or_says_one_thing_whatever_the_registry_does() {
    let tellers = (0..THREADS).map(|teller| {
        thread::spawn(move || {
            let Some(rig) = Rig::start() else { return };
            (0..stories()).for_each(|story| tell(&rig, 1 + story * THREADS + teller));
        })
    });
    let tellers: Vec<_> = tellers.collect();
    for teller in tellers {
        if let Err(panic) = teller.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Images told by one registry, each under its number.
const CROOKED: u64 = 60;

#[test]
fn an_image_that_lies_is_refused_in_one_sentence_or_harmless() {
    let Some(rig) = Rig::start() else { return };
    let count = CROOKED.max(stories() * 10);
    let images: Vec<Image> = (0..count).map(|seed| crooked(seed, &image(seed))).collect();
    let registry = Double::start(move |asked| {
        let number = asked.path.split('/').nth(2).and_then(|name| name.strip_prefix("lie-")?.parse().ok());
        match number.and_then(|number: usize| images.get(number)) {
            Some(image) => image.answer(asked),
            None => Answer::new(200, "{}"),
        }
    });
    let mut refused = 0;
    for seed in 0..count {
        let tried = rig.run(&format!("dhow pull -q {}/lie-{seed}:x", registry.address));
        let said = tried.stderr.lines().filter(|line| line.starts_with("Error")).count();
        match tried.status {
            0 => assert_eq!(said, 0, "seed {seed}"),
            1 => assert_eq!(said, 1, "seed {seed}: {}", tried.both()),
            status => panic!("seed {seed} ended with {status}: {}", tried.both()),
        }
        refused += u64::from(tried.status == 1);
    }
    assert!(refused > count / 2, "most lies do harm, but {refused} of {count} were refused");
    rig.ok("dhow system check");
}
