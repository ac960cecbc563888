//! The digests BuildKit gives to operations.
//!
//! BuildKit keys an operation by the SHA-256 of a JSON text of it, which it has kept stable over the years so
//! that old caches stay useful. The texts here are those of Go's `encoding/json`: fields in the order of the
//! protocol buffers, empty ones left out, `<`, `>` and `&` escaped.
//!
//! A record of a cache names the *output* of an operation: the digest of the text `<operation>@<output>`.

use dhow_oci::{ChainId, Digest, Platform};
use serde::Serialize;

use crate::chmod::Chmod;
use crate::request::StepNetwork;

/// How an operation is written. What BuildKit changed over the years, it gave another digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// As BuildKit 0.9 and later do.
    Current,
    /// As BuildKit 0.8 does, which is in Docker 20.10.
    Docker20,
}

/// All of them; what is written now comes first.
pub(super) const DIALECTS: [Dialect; 2] = [Dialect::Current, Dialect::Docker20];

/// The mode of a `WORKDIR`.
const WORKDIR_MODE: i32 = 0o755;
/// What "not said" is in numbers.
const UNSET: i64 = -1;

/// What a program is run with.
pub(super) struct Exec<'a> {
    pub args: &'a [String],
    /// `NAME=value`, in BuildKit's order.
    pub env: Vec<String>,
    pub cwd: &'a str,
    pub user: &'a str,
    pub network: StepNetwork,
    pub platform: &'a Platform,
}

/// A `COPY` or `ADD` of local files.
pub(super) struct Copy<'a> {
    /// Clean absolute paths.
    pub sources: &'a [String],
    /// As BuildKit joins it to the working directory.
    pub dest: &'a str,
    pub chown: Option<&'a str>,
    pub chmod: Option<&'a Chmod>,
    pub unpack: bool,
    /// The place of the file system copied into among the inputs; `None` if it is empty.
    pub base: Option<i64>,
    /// The place of the tree copied from; `None` if it is empty.
    pub from: Option<i64>,
    /// How many inputs there are.
    pub inputs: i64,
}

/// The record that names output `index` of the operation with this digest.
pub(super) fn output(operation: &Digest, index: i32) -> Digest {
    Digest::sha256_of(format!("{operation}@{index}").as_bytes())
}

/// The record that names content by its hash.
pub(super) fn content_output(content: &Digest) -> Digest {
    output(content, -1)
}

/// What a dependency on certain paths of an input is marked with.
pub(super) fn selector(paths: &[String]) -> Digest {
    let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    paths.sort_unstable();
    paths.reverse();
    Digest::sha256_of(paths.join("\0").as_bytes())
}

/// An image, known by its layers alone.
pub(super) fn image(chain: &ChainId) -> Digest {
    Digest::sha256_of(format!("buildkit.source.v0:{}", chain.digest()).as_bytes())
}

/// A step of ours that BuildKit has no word for, or that is not worth one: nobody else hits it.
pub(super) fn private(facts: &Digest) -> Digest {
    Digest::sha256_of(format!("dhow.step.v0:{facts}").as_bytes())
}

pub(super) fn exec(exec: &Exec<'_>, dialect: Dialect) -> Digest {
    digest_of(&ExecText {
        kind: "buildkit.exec.v0",
        exec: ExecOp {
            meta: Meta {
                args: exec.args,
                env: &exec.env,
                cwd: exec.cwd,
                user: exec.user,
                remove_mount_stubs_recursive: dialect == Dialect::Current,
            },
            network: match exec.network {
                StepNetwork::Default => 0,
                StepNetwork::Host => 1,
                StepNetwork::None => 2,
            },
        },
        os: &exec.platform.os,
        arch: &exec.platform.architecture,
        variant: exec.platform.variant.as_deref().unwrap_or_default(),
    })
}

/// Which paths of its root file system a program depends on: all, and newer versions say so.
pub(super) fn exec_selector(dialect: Dialect) -> Option<Digest> {
    (dialect == Dialect::Current).then(|| selector(&["/".to_owned()]))
}

/// A `WORKDIR`; `base` as in [`Copy`].
pub(super) fn workdir(path: &str, user: &str, base: Option<i64>, dialect: Dialect) -> Digest {
    let action = Mkdir {
        path,
        mode: WORKDIR_MODE,
        make_parents: true,
        owner: Some(user).filter(|user| !user.is_empty()).map(|user| owner(user, base, dialect)),
        timestamp: UNSET,
    };
    file(vec![json(&action)], vec![[base.unwrap_or(UNSET), UNSET, 0]])
}

pub(super) fn copy(copy: &Copy<'_>, dialect: Dialect) -> Digest {
    let last = copy.sources.len().saturating_sub(1);
    let mut indexes = Vec::new();
    let mut actions = Vec::new();
    for (number, source) in copy.sources.iter().enumerate() {
        let src = if copy.from.is_some() { base_name(source) } else { source };
        actions.push(json(&CopyAction {
            src,
            dest: copy.dest,
            owner: copy.chown.map(|text| owner(text, copy.base, dialect)),
            mode: match copy.chmod {
                Some(Chmod::Octal(bits)) => i64::from(*bits),
                Some(Chmod::Symbolic(_)) => 0,
                None => UNSET,
            },
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack_docker_compatibility: copy.unpack,
            create_dest_path: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            timestamp: UNSET,
            mode_str: match copy.chmod {
                Some(chmod @ Chmod::Symbolic(_)) => chmod.to_string(),
                _ => String::new(),
            },
        }));
        // Each goes on from where the one before it ended.
        let before = match number {
            0 => copy.base.unwrap_or(UNSET),
            number => copy.inputs + number as i64 - 1,
        };
        indexes.push([before, copy.from.unwrap_or(UNSET), if number == last { 0 } else { UNSET }]);
    }
    file(actions, indexes)
}

/// The last part of a clean path; that of the root is the root.
fn base_name(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((_, "")) | None => path,
        Some((_, name)) => name,
    }
}

fn file(actions: Vec<Vec<u8>>, indexes: Vec<[i64; 3]>) -> Digest {
    let actions = actions.iter().map(|action| base64(action)).collect();
    let indexes = if is_usual(&indexes) { Vec::new() } else { indexes };
    digest_of(&FileText { kind: "buildkit.file.v0", actions, indexes })
}

/// Whether the operation copies from its second input into its first, or makes something there. The first
/// versions knew nothing else and did not write the indexes down.
fn is_usual(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len() as i64;
    indexes.iter().zip(0..).all(|([input, secondary, output], number)| {
        let before = if number == 0 { 0 } else { count + number - 1 };
        *input == before
            && matches!(*secondary, UNSET | 1)
            && *output == if number + 1 == count { 0 } else { UNSET }
    })
}

/// `user[:group]`, by number if they are numbers. Names are looked up in the input at `base`.
fn owner(text: &str, base: Option<i64>, dialect: Dialect) -> Owner<'_> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let who = |name| Who { user: identity(name, base, dialect) };
    Owner { user: who(user), group: group.map(who) }
}

fn identity(name: &str, base: Option<i64>, dialect: Dialect) -> Identity<'_> {
    let by_id = |id: u32| match dialect {
        Dialect::Current => Identity { by_name: None, by_id: id, by_id_20: 0 },
        Dialect::Docker20 => Identity { by_name: None, by_id: 0, by_id_20: id },
    };
    match name.parse::<i32>() {
        Ok(number) => by_id(number as u32),
        // No user at all is as good as root.
        Err(_) if name.is_empty() || name == "root" => by_id(0),
        Err(_) => Identity { by_name: Some(Named { name, input: base.unwrap_or(UNSET) }), ..by_id(0) },
    }
}

fn digest_of(value: &impl Serialize) -> Digest {
    Digest::sha256_of(&json(value))
}

/// As Go writes it: no characters in it that mean something in HTML.
fn json(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string(value).expect("keys are texts");
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        // They occur only within texts.
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            c => escaped.push(c),
        }
    }
    escaped.into_bytes()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base 64 with padding, as Go writes bytes.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Reads base 64 with padding.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let letters = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - letters.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3 + 2);
    for chunk in letters.chunks(4) {
        let mut bits = 0_u32;
        for (at, letter) in chunk.iter().enumerate() {
            let value = ALPHABET.iter().position(|held| held == letter)?;
            bits |= (value as u32) << (18 - 6 * at);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[derive(Serialize)]
struct ExecText<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Exec")]
    exec: ExecOp<'a>,
    #[serde(rename = "OS")]
    os: &'a str,
    #[serde(rename = "Arch")]
    arch: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

#[derive(Serialize)]
struct ExecOp<'a> {
    meta: Meta<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    network: i64,
}

#[derive(Serialize)]
struct Meta<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    args: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    env: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    cwd: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(rename = "removeMountStubsRecursive", skip_serializing_if = "is_false")]
    remove_mount_stubs_recursive: bool,
}

#[derive(Serialize)]
struct FileText {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Actions")]
    actions: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    indexes: Vec<[i64; 3]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mkdir<'a> {
    path: &'a str,
    mode: i32,
    make_parents: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
    timestamp: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CopyAction<'a> {
    src: &'a str,
    dest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    mode: i64,
    follow_symlink: bool,
    dir_copy_contents: bool,
    #[serde(skip_serializing_if = "is_false")]
    attempt_unpack_docker_compatibility: bool,
    create_dest_path: bool,
    allow_wildcard: bool,
    allow_empty_wildcard: bool,
    timestamp: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    mode_str: String,
}

#[derive(Serialize)]
struct Owner<'a> {
    user: Who<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Who<'a>>,
}

#[derive(Serialize)]
struct Who<'a> {
    #[serde(rename = "User")]
    user: Identity<'a>,
}

#[derive(Serialize)]
struct Identity<'a> {
    #[serde(rename = "byName", skip_serializing_if = "Option::is_none")]
    by_name: Option<Named<'a>>,
    #[serde(rename = "byId", skip_serializing_if = "is_zero_id")]
    by_id: u32,
    /// The same as Docker 20.10 spells it.
    #[serde(rename = "byID", skip_serializing_if = "is_zero_id")]
    by_id_20: u32,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    input: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_zero_id(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The layers of a second input on top of those of the first.
pub(super) fn merge() -> Digest {
    Digest::sha256_of(br#"{"Type":"buildkit.merge.v0","Merge":{"inputs":[{},{"input":1}]}}"#)
}
