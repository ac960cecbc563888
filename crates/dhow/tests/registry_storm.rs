//! Many clients on two servers that share a registry, of which one is killed again and again.

use std::io::{self, Read};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use dhow_oci::{Descriptor, Digest, Document, Reference, media_type};
use dhow_registry::{Client, Config, Keychain, RegistryError, Retry, VerifyingReader};

use crate::rig::{Rig, Served, places};
use crate::storm::Random;

const CLIENTS: u64 = 16;
const STORM_SECONDS: u64 = 12;
/// Layers that several images have.
const SHARED_LAYERS: u64 = 8;
/// How often a push is repeated that a collector without grace has disturbed.
const REPEATS_MAX: usize = 20;
/// Nobody takes longer to notice that a server was killed.
const LIFE_MS_MIN: u64 = 500;

/// An image that a server has accepted.
#[derive(Clone)]
struct Image {
    repository: String,
    tag: String,
    digest: Digest,
}

struct Storm {
    /// The first is never killed.
    servers: [String; 2],
    images: Mutex<Vec<Image>>,
}

#[test]
fn nothing_is_lost_when_one_of_two_servers_on_a_folder_is_killed() {
    storm("folder");
}

#[test]
fn nothing_is_lost_when_one_of_two_servers_on_a_bucket_is_killed() {
    storm("bucket");
}

fn storm(kind: &str) {
    let Some(rig) = Rig::start() else { return };
    let Some((_, flags)) = places(&rig).into_iter().find(|(name, _)| *name == kind) else { return };
    let seconds = std::env::var("DHOW_TEST_STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(STORM_SECONDS));
    let mut random = Random::seeded();
    let (steady, mortal) = (Served::start(&rig, &flags), Served::start(&rig, &flags));
    let storm = Storm { servers: [steady.address.clone(), mortal.address.clone()], images: Mutex::default() };
    let mut kills = 0;
    let mortal = thread::scope(|scope| {
        let mut mortal = mortal;
        for number in 0..CLIENTS {
            let (storm, mut random) = (&storm, Random(random.next()));
            scope.spawn(move || {
                let client = Storm::client();
                for count in 0.. {
                    if Instant::now() > end {
                        break;
                    }
                    storm.push(&client, &mut random, &format!("{number}-{count}"));
                    storm.pull_any(&client, &mut random);
                }
            });
        }
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(LIFE_MS_MIN + random.below(2000)));
            let address = mortal.address.clone();
            mortal.kill();
            kills += 1;
            // No grace at all: what pushes lean on may go at any moment, unless they see to it that it does not.
            rig.ok(&format!("dhow registry gc {flags} --grace 0"));
            mortal = Served::listen(&rig, &address, &flags);
        }
        mortal
    });
    let images = storm.images.lock().expect("no client panics").clone();
    println!("{kind}: {} images were accepted, {kills} kills", images.len());
    assert!(!images.is_empty() && kills > 0, "that was no storm");
    rig.ok(&format!("dhow registry gc {flags} --grace 0"));
    let client = Storm::client();
    for server in &storm.servers {
        for image in &images {
            storm.pull(&client, server, image).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    for server in [steady, mortal] {
        assert!(!server.said().contains("ERROR"), "{}", server.said());
    }
}

impl Storm {
    fn client() -> Client {
        let retry = Retry { attempts_max: 2, delay: Duration::from_millis(50), ..Retry::default() };
        Client::new(Config { retry, ..Config::default() }, Keychain::anonymous())
    }

    /// Pushes a new image, by a server that may be killed or, then, by the one that is not.
    fn push(&self, client: &Client, random: &mut Random, tag: &str) {
        let repository = format!("storm/{}", random.below(4));
        let mut layers = vec![content(random.next(), 1 + random.below(2_000_000))];
        layers.extend((0..random.below(3)).map(|_| content(random.below(SHARED_LAYERS), 100_000)));
        let first = random.below(2) as usize;
        for repeat in 0..REPEATS_MAX {
            let server = &self.servers[if repeat == 0 { first } else { 0 }];
            match push(client, server, &repository, tag, &layers) {
                Ok(digest) => {
                    let image = Image { repository, tag: tag.to_owned(), digest };
                    self.images.lock().expect("no client panics").push(image);
                    return;
                }
                Err(error) => {
                    let text = chain(&error);
                    let is_killed = *server == self.servers[1];
                    // A collector without grace has taken a blob before its manifest came, and said so.
                    assert!(is_killed || text.contains("not in this repository"), "{text}");
                }
            }
        }
        panic!("{repository}:{tag} was disturbed {REPEATS_MAX} times");
    }

    /// Pulls an image that somebody has pushed.
    fn pull_any(&self, client: &Client, random: &mut Random) {
        let image = {
            let images = self.images.lock().expect("no client panics");
            images[random.below(images.len() as u64) as usize].clone()
        };
        if random.below(2) == 0
            && let Err(error) = self.pull(client, &self.servers[1], &image)
        {
            let text = chain(&error);
            let is_wrong = ["MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "not found", "content is"];
            assert!(!is_wrong.iter().any(|word| text.contains(word)), "{text}");
        }
        self.pull(client, &self.servers[0], &image).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    /// Reads all of an image. What comes must be what its digests say.
    fn pull(&self, client: &Client, server: &str, image: &Image) -> Result<(), RegistryError> {
        let name: Reference =
            format!("{server}/{}:{}", image.repository, image.tag).parse().expect("a reference");
        let resolved = client.resolve(&name)?;
        assert_eq!(resolved.descriptor.digest, image.digest, "{name}");
        let document = Document::parse(None, &resolved.bytes).expect("a manifest");
        let Document::Manifest(manifest) = document else { panic!("{name} is no image") };
        for layer in std::iter::once(&manifest.config).chain(&manifest.layers) {
            let mut reader = VerifyingReader::new(client.fetch_blob(&name, layer, 0)?, layer);
            if let Err(error) = io::copy(&mut reader, &mut io::sink()) {
                let own = error.downcast::<RegistryError>();
                return Err(own.unwrap_or_else(|error| panic!("{name} {}: {error}", layer.digest)));
            }
        }
        Ok(())
    }
}

fn push(
    client: &Client,
    server: &str,
    repository: &str,
    tag: &str,
    layers: &[Vec<u8>],
) -> Result<Digest, RegistryError> {
    let name: Reference = format!("{server}/{repository}:{tag}").parse().expect("a reference");
    let config = format!("{{\"tag\":\"{tag}\"}}").into_bytes();
    let send = |media_type: &str, bytes: &Vec<u8>| {
        let descriptor = Descriptor::of(media_type, bytes);
        let open = || Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
        client.push_blob(&name, &descriptor, Some("storm/0"), &open)?;
        Ok::<_, RegistryError>(descriptor)
    };
    let config = send(media_type::OCI_CONFIG, &config)?;
    let layers = layers.iter().map(|layer| send(media_type::OCI_LAYER, layer)).collect::<Result<_, _>>()?;
    let manifest = dhow_oci::Manifest::new(media_type::OCI_MANIFEST, config, layers);
    let bytes = serde_json::to_vec(&manifest).expect("a manifest is JSON");
    client.push_manifest(&name, media_type::OCI_MANIFEST, &bytes)
}

/// Bytes that follow from a number.
fn content(seed: u64, bytes: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
    words.take(bytes as usize).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
