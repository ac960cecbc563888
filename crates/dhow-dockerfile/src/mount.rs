//! `RUN --mount`.
use std::collections::BTreeSet;

use crate::csv;
use crate::expand::{ExpandError, expand};
use crate::suggest::did_you_mean;

/// A `--mount` as written. Its values may hold variables, so it is resolved when they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// The text behind `--mount=`.
    pub text: String,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountType {
    /// A folder of the build context, a stage or an image.
    #[default]
    Bind,
    /// A folder kept from build to build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file or variable that leaves no trace in the image.
    Secret,
    /// The socket of an ssh agent.
    Ssh,
}

/// Who may use a cache at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Everyone.
    Shared,
    /// Each step has its own.
    Private,
    /// One after the other.
    Locked,
}

/// A mount with its values known. What is `None` takes the default of its type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// `type`
    pub mount_type: MountType,
    /// `from`: a stage, an image or a named context.
    pub from: Option<String>,
    /// `source`
    pub source: Option<String>,
    /// `target`
    pub target: Option<String>,
    /// `readonly`; bind, secret and ssh mounts are unless told otherwise.
    pub readonly: bool,
    /// `size` of a tmpfs.
    pub size_bytes: Option<u64>,
    /// `id` of a cache, secret or agent.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Option<Sharing>,
    /// `required`: the step fails if there is no such secret or agent.
    pub required: bool,
    /// `env`: the variable a secret is put into.
    pub env: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// Why a `--mount` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Its text is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A value cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];
const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("tmpfs", MountType::Tmpfs),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
];
const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

impl MountType {
    /// The name in `type=`.
    pub fn name(self) -> &'static str {
        TYPES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

impl MountSpec {
    /// What Docker refuses before it builds anything.
    pub(crate) fn check(&self) -> Result<(), MountError> {
        for field in csv::fields(&self.text).map_err(unreadable)? {
            let (key, value) = field.split_once('=').unwrap_or((&field, ""));
            if key.eq_ignore_ascii_case("from") && value.trim_end_matches('$').contains('$') {
                let message =
                    format!("'{key}' doesn't support variable expansion, define alias stage instead");
                return Err(MountError::Invalid(message));
            }
        }
        Ok(())
    }

    /// What else is wrong with the text, if no variable can change it. Docker says so only when it
    /// builds the step, and other builders know more options.
    pub(crate) fn problem(&self) -> Option<MountError> {
        if self.text.contains('$') { None } else { self.resolve('\\', |_| None).err() }
    }

    /// The stage, image or context named by `from`, which holds no variables.
    pub fn from(&self) -> Option<String> {
        let fields = csv::fields(&self.text).ok()?;
        let pairs = fields.iter().filter_map(|field| field.split_once('='));
        pairs
            .filter(|(key, _)| key.eq_ignore_ascii_case("from"))
            .map(|(_, value)| value.to_owned())
            .next_back()
    }

    /// The mount, with variables replaced.
    pub fn resolve(
        &self,
        escape: char,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Mount, MountError> {
        let mut mount = Mount::default();
        let mut given = BTreeSet::new();
        for field in csv::fields(&self.text).map_err(unreadable)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(expand(value, escape, &lookup)?.text)),
                None => (field.as_str(), None),
            };
            let key = key.to_lowercase();
            mount.set(&key, value.as_deref(), &field).map_err(MountError::Invalid)?;
            given.insert(key);
        }
        if !["readonly", "ro", "readwrite", "rw"].iter().any(|key| given.contains(*key)) {
            mount.readonly = !matches!(mount.mount_type, MountType::Cache | MountType::Tmpfs);
        }
        mount.check().map_err(MountError::Invalid)?;
        Ok(mount)
    }
}

fn unreadable(error: String) -> MountError {
    MountError::Invalid(format!("failed to parse csv mounts: {error}"))
}

impl Mount {
    fn set(&mut self, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
        if !KEYS.contains(&key) && value.is_some() {
            return Err(format!("unexpected key '{key}' in '{field}'{}", did_you_mean(key, &KEYS)));
        }
        match (key, value) {
            ("readonly" | "ro", value) => self.readonly = boolean(key, value)?,
            ("readwrite" | "rw", value) => self.readonly = !boolean(key, value)?,
            ("required", value) => {
                self.only(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = boolean(key, value)?;
            }
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
            (key, Some(value)) => self.set_value(key, value)?,
        }
        Ok(())
    }

    fn set_value(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "type" => self.mount_type = named(value, &TYPES, "mount type")?,
            "from" => self.from = text(),
            "source" | "src" => self.source = text(),
            "target" | "dst" | "destination" => self.target = text(),
            "size" => {
                self.only(key, &[MountType::Tmpfs])?;
                let size = size_bytes(value).ok_or_else(|| format!("invalid value for size: {value}"))?;
                self.size_bytes = Some(size);
            }
            "id" => self.id = text(),
            "sharing" => self.sharing = Some(named(value, &SHARINGS, "sharing value")?),
            "mode" => self.mode = Some(number(key, value, 8)?),
            "uid" => self.uid = Some(number(key, value, 10)?),
            "gid" => self.gid = Some(number(key, value, 10)?),
            _ => self.env = Some(value.to_owned()),
        }
        Ok(())
    }

    fn only(&self, key: &str, types: &[MountType]) -> Result<(), String> {
        if types.contains(&self.mount_type) {
            return Ok(());
        }
        Err(format!("unexpected key '{key}' for mount type '{}'", self.mount_type.name()))
    }

    /// What cannot go together.
    fn check(&self) -> Result<(), String> {
        let has_owner = matches!(self.mount_type, MountType::Secret | MountType::Ssh | MountType::Cache);
        let owner = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
        if let Some((key, _)) = owner.iter().find(|(_, value)| value.is_some() && !has_owner) {
            return Err(format!("{key} not allowed for {:?} type mounts", self.mount_type.name()));
        }
        if self.mount_type == MountType::Secret {
            self.check_secret()?;
        }
        if self.sharing.is_some() && self.mount_type != MountType::Cache {
            return Err(format!("invalid cache sharing set for {} mount", self.mount_type.name()));
        }
        Ok(())
    }

    fn check_secret(&self) -> Result<(), String> {
        let problem = if self.from.is_some() {
            "secret mount should not have a from"
        } else if self.sharing.is_some() {
            "secret mount should not define sharing"
        } else if self.source.is_none() && self.target.is_none() && self.id.is_none() {
            "invalid secret mount. one of source, target required"
        } else if self.source.is_some() && self.id.is_some() {
            "both source and id can't be set"
        } else {
            return Ok(());
        };
        Err(problem.to_owned())
    }
}

fn named<T: Copy>(value: &str, known: &[(&str, T)], what: &str) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        format!("unsupported {what} {value:?}{}", did_you_mean(value, &names))
    })
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(format!("invalid value for {key}: {value}")),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, String> {
    let digits = value.starts_with(|c: char| c.is_ascii_digit());
    u32::from_str_radix(value, radix)
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("invalid value {value} for {key}"))
}

/// `64m`, `1.5GiB`, `4096`: units are powers of 1024.
fn size_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|name| *name == unit)?;
    let scale = 1u64 << (10 * power);
    let number: f64 = number.parse().ok()?;
    let bytes = number * scale as f64;
    (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// Prints each mount with what it resolves to.
    #[track_caller]
    fn check(specs: &str, expected: Expect) {
        let mut out = String::new();
        for text in specs.lines() {
            let spec = MountSpec { text: text.to_owned() };
            let lookup = |name: &str| (name == "DIR").then(|| "/d".to_owned());
            let result = match spec.check().and_then(|()| spec.resolve('\\', lookup)) {
                Ok(mount) => brief(&mount),
                Err(error) => format!("error: {error}"),
            };
            out.push_str(&format!("{text}\n    {result}\n"));
        }
        expected.assert_eq(&out);
    }

    fn brief(mount: &Mount) -> String {
        let text = format!("{mount:?}").replace("Some(", "(");
        let parts = text.trim_start_matches("Mount { ").trim_end_matches(" }").split(", ");
        let told = parts.filter(|part| !part.ends_with(": None") && !part.ends_with(": false"));
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn mounts_of_every_type_are_understood() {
        check(
            "target=/x\ntype=cache,target=$DIR/y,sharing=locked,mode=0755,uid=1\ntype=tmpfs,dst=/t,size=1.5k\nTYPE=Secret,id=a,required,env=TOKEN\ntype=ssh\nfrom=base,source=/a,target=/b,rw\n\"type=bind\",\"target=/a,b\",ro=false",
            expect![[r#"
                target=/x
                    mount_type: Bind target: ("/x") readonly: true
                type=cache,target=$DIR/y,sharing=locked,mode=0755,uid=1
                    mount_type: Cache target: ("/d/y") sharing: (Locked) mode: (493) uid: (1)
                type=tmpfs,dst=/t,size=1.5k
                    mount_type: Tmpfs target: ("/t") size_bytes: (1536)
                TYPE=Secret,id=a,required,env=TOKEN
                    mount_type: Secret readonly: true id: ("a") required: true env: ("TOKEN")
                type=ssh
                    mount_type: Ssh readonly: true
                from=base,source=/a,target=/b,rw
                    mount_type: Bind from: ("base") source: ("/a") target: ("/b")
                "type=bind","target=/a,b",ro=false
                    mount_type: Bind target: ("/a,b")
            "#]],
        );
    }

    #[test]
    fn wrong_mounts_are_named() {
        check(
            "type=cahce,target=/x\ntype=cache,sharing=free\ntarget\ntargt=/x\nfrom=$BASE,target=/x\ntype=bind,mode=1\ntype=secret\ntype=secret,id=a,source=b\ntype=tmpfs,size=big\ntype=bind,size=1\nuid=-1,type=cache\na\"b\ntype=tmpfs,sharing=shared\ntype=cache,ro=maybe",
            expect![[r#"
                type=cahce,target=/x
                    error: unsupported mount type "cahce" (did you mean cache?)
                type=cache,sharing=free
                    error: unsupported sharing value "free"
                target
                    error: invalid field 'target' must be a key=value pair
                targt=/x
                    error: unexpected key 'targt' in 'targt=/x' (did you mean target?)
                from=$BASE,target=/x
                    error: 'from' doesn't support variable expansion, define alias stage instead
                type=bind,mode=1
                    error: mode not allowed for "bind" type mounts
                type=secret
                    error: invalid secret mount. one of source, target required
                type=secret,id=a,source=b
                    error: both source and id can't be set
                type=tmpfs,size=big
                    error: invalid value for size: big
                type=bind,size=1
                    error: unexpected key 'size' for mount type 'bind'
                uid=-1,type=cache
                    error: invalid value -1 for uid
                a"b
                    error: failed to parse csv mounts: bare " in non-quoted field "a\"b"
                type=tmpfs,sharing=shared
                    error: invalid cache sharing set for tmpfs mount
                type=cache,ro=maybe
                    error: invalid value for ro: maybe
            "#]],
        );
    }
}
