//! The digests here were recorded from BuildKit itself, which was given the same Dockerfiles.

use dhow_oci::{Descriptor, DiffId, Digest, Platform, chain_ids};

use super::chains::{Chains, Input, UNCOMPRESSED};
use super::config::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult};
use super::content::{self, Files, Header, Kind};
use super::keys::destination;
use super::llb::{self, Dialect};
use crate::chmod::Chmod;
use crate::request::StepNetwork;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn digest(hex: &str) -> Digest {
    format!("sha256:{hex}").parse().expect("a digest")
}

#[track_caller]
fn check(operation: &Digest, recorded: &str) {
    assert_eq!(llb::output(operation, 0), digest(recorded));
}

fn run(args: &str, env: &[&str], cwd: &str, user: &str) -> Digest {
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    let args = ["/bin/sh", "-c", args].map(str::to_owned);
    let env = env.iter().map(|pair| (*pair).to_owned()).collect();
    let network = StepNetwork::Default;
    llb::exec(&llb::Exec { args: &args, env, cwd, user, network, platform: &platform }, Dialect::Current)
}

/// A `COPY` of context files onto something.
fn copy(sources: &[&str], dest: &str, owner: Option<(&str, &str)>, dialect: Dialect) -> Digest {
    let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
    let chmod = owner.map(|(_, mode)| Chmod::parse(mode).expect("a mode"));
    let written = llb::Copy {
        sources: &sources,
        dest,
        chown: owner.map(|(owner, _)| owner),
        chmod: chmod.as_ref(),
        unpack: false,
        base: Some(0),
        from: Some(1),
        inputs: 2,
    };
    llb::copy(&written, dialect)
}

fn header(kind: Kind, mode: u32, size: u64, target: &str) -> dhow_oci::Digester {
    let target = target.as_bytes();
    Header { mode, owner: (0, 0), size, kind, target, device: (0, 0), xattrs: &[] }.digester()
}

fn file(bytes: &str) -> Digest {
    let mut digester = header(Kind::Regular, 0o644, bytes.len() as u64, "");
    digester.update(bytes.as_bytes());
    digester.finish()
}

fn single(bytes: &str) -> Files {
    let mut files = Files::default();
    files.insert(b"", file(bytes), false);
    files
}

#[test]
fn an_image_is_known_by_its_layers() {
    let layer = digest("38b1b710093afa642f126f4d8b81752f8bf008cef752c32e4f6da0cbdf9d22e9");
    let chain = chain_ids(&[DiffId::new(layer)]);
    check(&llb::image(&chain[0]), "cb2fd475632c24bc69ac6e046351bf5e80dcf56ff38859309bd91cc731667b8e");
}

#[test]
fn a_workdir_is_a_directory_to_make() {
    let recorded = "57a5ab45ee83a930675514d2528c657cf1d5e669475f33931afc0e7c848c0e34";
    check(&llb::workdir("/src", "", Some(0), Dialect::Current), recorded);
    let recorded = "288775cb7241203e65aa6c813447407df323cafb9f44d077a737a77757169c60";
    check(&llb::workdir("/work", "1000:1000", Some(0), Dialect::Current), recorded);
}

#[test]
fn a_run_is_its_words_and_its_environment() {
    let env = [PATH, "VERSION=1", "A=x <y> & z", "B=2"];
    let command = "cat /src/sub/one > /out && echo \"a && b\" >> /out";
    let recorded = "47815af2ab0589d2bd592fd0c384f69e0eca26dcd934060d9d2655079526e2e3";
    check(&run(command, &env, "/src", ""), recorded);
    let recorded = "21b739ab5805f29f1c830bdf6c7b1fe698271a6ad5e6d6cee86ed45628f6d849";
    check(&run("echo hi > hi", &[PATH], "/work", "1000:1000"), recorded);
}

#[test]
fn a_copy_is_its_sources_last_names_and_its_options() {
    let recorded = "37606c4bf7b504a547eac007602a1754c813170068b0e52216611cbea6a0accd";
    check(&copy(&["/sub"], "/src/sub", None, Dialect::Current), recorded);
    let recorded = "07a06998cbb6e8399fb7990770bd3a7dbce5717ed7892164f6b073a203681ec6";
    check(&copy(&["/out"], "/bin/", None, Dialect::Current), recorded);
    let recorded = "873f0e8062cb6584831e963153b93720eaa97d6bce94295cad1ebd7dd063e3ee";
    check(&copy(&["/one.txt", "/two.txt"], "/data/", None, Dialect::Current), recorded);
    let recorded = "b8d2698e8825e262d82b7fc97b84f8382e0c9ec9188274404bb86a69e5322901";
    check(&copy(&["/*.txt"], "/glob/", None, Dialect::Current), recorded);
    let recorded = "4d7c36ba24eea4984d145362a5a8a679c7ed3d8162a25feb308c0fbc5606d8fd";
    check(
        &copy(&["/one.txt"], &destination("/work", "."), Some(("7:8", "0640")), Dialect::Current),
        recorded,
    );
}

#[test]
fn destinations_keep_the_ends_that_buildkit_keeps() {
    for (dest, joined) in [
        ("/data/", "/data/"),
        (".", "/work/"),
        ("./", "/work/"),
        ("sub/.", "/work/sub/."),
        ("..", "/"),
        ("/", "/"),
        ("a//b", "/work/a/b"),
    ] {
        assert_eq!(destination("/work", dest), joined, "{dest}");
    }
}

#[test]
fn dependencies_on_paths_are_marked() {
    let of = |paths: &[&str]| llb::selector(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
    assert_eq!(of(&["/"]), digest("8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1"));
    assert_eq!(of(&["/out"]), digest("a5bcd92e5ab3b071d95f7c842563c82ee88ccfdda4536ae94d6da4e6d4bece5d"));
}

#[test]
fn files_are_hashed_as_in_tar_sums() {
    let content = |digests: &[Digest]| llb::content_output(&content::join(digests));
    let one = digest("2dd6855676eaaa90374b6e78b081806de890c1ead0f2e5507ed37c0dfb42b2f4");
    assert_eq!(content(&[file("1\n")]), one);
    let both = digest("c13d88371b7b94fd6d3296e5f265c7c809e21f864db5bd7b3be85e58883b0564");
    assert_eq!(content(&[file("1\n"), file("2\n")]), both);
    let wildcard = digest("35c7cb657afd35457b70b89f3135c7253029ee4cdba5efb58781bb28cede109a");
    let found = [(b"one.txt".to_vec(), single("1\n")), (b"two.txt".to_vec(), single("2\n"))];
    assert_eq!(content(&[content::list(&found)]), wildcard);
    let made = digest("88e4479a3e7247873aaefa2818ba15ffb326b00e7045cea9c182f2d9802c7fee");
    assert_eq!(content(&[file("s1\na && b\n")]), made);
}

#[test]
fn directories_are_hashed_with_the_names_in_them() {
    let mut files = Files::default();
    files.insert(b"", header(Kind::Directory, 0o755, 0, "").finish(), true);
    files.insert(b"one", file("s1\n"), false);
    files.insert(b"deep", header(Kind::Directory, 0o755, 0, "").finish(), true);
    files.insert(b"deep/f", file("deep\n"), false);
    files.insert(b"link", header(Kind::Symlink, 0o777, 0, "one").finish(), false);
    let hash = content::join(&[files.digest().expect("a directory")]);
    let recorded = digest("c47004fbf7ac8041613d1e3c50b5f7145cc033cbf9bba2d3667accaea0d3a478");
    assert_eq!(llb::content_output(&hash), recorded);
}

#[test]
fn docker_20_10_writes_some_of_it_in_another_way() {
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    let args = ["/bin/sh", "-c", "echo hi > hi"].map(str::to_owned);
    let exec = llb::Exec {
        args: &args,
        env: vec![PATH.to_owned()],
        cwd: "/work",
        user: "1000:1000",
        network: StepNetwork::Host,
        platform: &platform,
    };
    let recorded = "9297037f5439cf1ca2fc9cbcf939469bb6a7266841163aa1ae5469097f37b019";
    check(&llb::exec(&exec, Dialect::Docker20), recorded);
    assert_eq!(llb::exec_selector(Dialect::Docker20), None);
    let recorded = "8b972c0036d339efc3e2bb0642e776cf2bc5e8649f015daaba57d49a66df977a";
    check(&llb::workdir("/work", "1000:1000", Some(0), Dialect::Docker20), recorded);
    let recorded = "d81117877386756bc537cdff1d0636e17eafb0a1f4cabdeb480a21799ef6cd69";
    check(&copy(&["/one.txt"], "/work/", Some(("7:8", "0640")), Dialect::Docker20), recorded);
    let found = [(b"one.txt".to_vec(), single("1\n")), (b"two.txt".to_vec(), single("2\n"))];
    let recorded = digest("b621684860e73be6a2b4218ebe34a5de83fc987d83d28e3ba2c35c35d8c2a12f");
    assert_eq!(llb::content_output(&content::join(&[content::list_20(&found)])), recorded);
}

#[test]
fn base_64_comes_back() {
    for length in 0..20_u8 {
        let bytes: Vec<u8> = (0..length).map(|at| at.wrapping_mul(67)).collect();
        assert_eq!(llb::from_base64(&llb::base64(&bytes)), Some(bytes));
    }
    assert_eq!(llb::base64(b"ab"), "YWI=");
    for wrong in ["YWI", "Y===", "Y?I=", "=YWI"] {
        assert_eq!(llb::from_base64(wrong), None, "{wrong}");
    }
}

/// A cache of one step on one image.
fn config() -> CacheConfig {
    let input = |link| CacheInput { selector: None, link };
    CacheConfig {
        layers: vec![CacheLayer::new(Digest::sha256_of(b"blob"), None)],
        records: vec![
            CacheRecord {
                results: vec![CacheResult { layer: 0, created_at: "2026-01-01T00:00:00Z".to_owned() }],
                chains: Vec::new(),
                digest: Digest::sha256_of(b"step"),
                inputs: vec![vec![input(1)]],
            },
            CacheRecord {
                results: Vec::new(),
                chains: Vec::new(),
                digest: Digest::sha256_of(b"image"),
                inputs: Vec::new(),
            },
        ],
    }
}

fn layer() -> Descriptor {
    let mut layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar", b"blob");
    layer.annotations.insert(UNCOMPRESSED.to_owned(), Digest::sha256_of(b"tar").to_string());
    layer
}

#[test]
fn a_step_is_found_by_what_it_is_and_what_it_stands_on() {
    let chains = Chains::new(config(), &[layer()]).expect("a cache");
    let image = chains.find(&Digest::sha256_of(b"image"), &[]);
    let on = |records: &[usize]| {
        let input = Input { records, selector: None, content: &[] };
        chains.find(&Digest::sha256_of(b"step"), &[input])
    };
    assert_eq!(on(&image), [0]);
    assert!(on(&[]).is_empty());
    assert!(chains.find(&Digest::sha256_of(b"step"), &[]).is_empty());
    let found = chains.result(&[0]).expect("a result");
    assert_eq!(found.layers[0].diff_id, DiffId::new(Digest::sha256_of(b"tar")));
}

#[test]
fn a_layer_that_cannot_be_checked_is_not_there() {
    let unnamed = Descriptor::of("application/vnd.oci.image.layer.v1.tar", b"blob");
    for described in [&[unnamed][..], &[]] {
        assert_eq!(Chains::new(config(), described).expect("a cache").result(&[0]), None);
    }
}

#[test]
fn a_configuration_that_points_nowhere_is_refused() {
    let blob = Digest::sha256_of(b"blob");
    let layers = |text: &str| format!(r#"{{"layers":[{text}]}}"#);
    let record = |text: &str| format!(r#"{{"records":[{{"digest":"{blob}",{text}}}]}}"#);
    let layer = |parent: &str| layers(&format!(r#"{{"blob":"{blob}","parent":{parent}}}"#));
    // The first stands on itself: the text leaves a 0 out.
    for wrong in [
        layers(&format!(r#"{{"blob":"{blob}"}}"#)),
        layer("7"),
        record(r#""layers":[{"layer":0}]"#),
        record(r#""inputs":[[{"link":1}]]"#),
        record(r#""chains":[{"layers":[3]}]"#),
        "{\"layers\":7}".to_owned(),
        String::new(),
    ] {
        assert!(CacheConfig::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
    for fine in [layer("-1"), record(r#""inputs":null"#), "{}".to_owned()] {
        assert!(CacheConfig::parse(fine.as_bytes()).is_ok(), "{fine}");
    }
}

#[test]
fn equal_caches_are_equal_bytes() {
    let CacheConfig { layers, mut records } = config();
    records.reverse();
    records[1].inputs[0][0].link = 0;
    let turned = CacheConfig { layers: layers.clone(), records };
    assert_eq!(turned.sorted(), config().sorted());
    let sorted = config().sorted();
    let text = serde_json::to_vec(&sorted).expect("JSON");
    assert_eq!(CacheConfig::parse(&text).expect("a cache"), sorted);
}
