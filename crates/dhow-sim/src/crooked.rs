//! Images that lie about themselves.

use dhow_oci::{Descriptor, Digest, media_type};
use serde_json::{Value, json};

use crate::Image;
use crate::dice::Dice;

/// More than a disk holds, and a number that is none.
const SIZES: [i64; 5] = [0, -1, 1, 1 << 60, i64::MAX];

/// What is said of `image` turned into something else; what, the seed says. All of it hangs together by digests, as of a
/// registry that means it.
pub fn crooked(seed: u64, image: &Image) -> Image {
    let mut dice = Dice::new(seed);
    let mut image = image.clone();
    let mut manifest: Value = serde_json::from_slice(&image.manifest).expect("a manifest is JSON");
    let layers = manifest["layers"].as_array().map_or(0, Vec::len) as u64;
    let layer = dice.below(layers) as usize;
    match dice.below(12) {
        0 => manifest["layers"][layer]["size"] = dice.one_of(&SIZES).into(),
        1 => manifest["config"]["size"] = dice.one_of(&SIZES).into(),
        2 => manifest["layers"][layer]["digest"] = dice.one_of(&ODD_DIGESTS).into(),
        3 => manifest["layers"][layer]["mediaType"] = dice.one_of(&ODD_TYPES).into(),
        4 => {
            let more = manifest["layers"][layer].clone();
            manifest["layers"].as_array_mut().expect("a list").push(more);
        }
        5 => manifest["layers"] = json!([]),
        6 => manifest["schemaVersion"] = dice.one_of(&[0, 1, 3, -2]).into(),
        7 => manifest["config"] = Value::Null,
        // A configuration that says something else.
        what => {
            let change = move |config: &mut Value| match what {
                8 => config["rootfs"]["diff_ids"].as_array_mut().expect("a list").reverse(),
                9 => config["rootfs"]["diff_ids"] = json!(vec!["sha256:00"; layers as usize]),
                10 => config["architecture"] = "z80".into(),
                _ => config["config"] = "[".repeat(1000).into(),
            };
            reconfigure(&mut image, &mut manifest, change);
        }
    }
    image.manifest = manifest.to_string().into_bytes();
    image
}

/// Names of content that name none.
const ODD_DIGESTS: [&str; 6] = [
    "sha256:",
    "md5:d41d8cd98f00b204e9800998ecf8427e",
    "sha256:../../../../../../../../etc/passwd",
    "sha256:ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ",
    "sha512:00",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];

/// Kinds of layers that are none, or another one.
const ODD_TYPES: [&str; 5] = [
    media_type::OCI_CONFIG,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.v1.tar+encrypted",
    "",
];

fn reconfigure(image: &mut Image, manifest: &mut Value, change: impl Fn(&mut Value)) {
    let digest: Option<Digest> = manifest["config"]["digest"].as_str().and_then(|text| text.parse().ok());
    let config = digest.and_then(|digest| image.blobs.get(&digest)).expect("the configuration is there");
    let mut config: Value = serde_json::from_slice(config).expect("a configuration is JSON");
    change(&mut config);
    let config = config.to_string().into_bytes();
    let descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
    manifest["config"] = serde_json::to_value(&descriptor).expect("plain data serializes");
    image.blobs.insert(descriptor.digest, config);
}
