//! What `--mount` takes: `type=bind,source=/a,target=/b,readonly`.

use std::path::Path;

use crate::mount::{
    BindOptions, BindPropagation, BindRecursion, MountError, MountRequest, MountSource, VolumeMount,
    absolute, check_target, volume_name,
};

/// Reads the fields of a `--mount`, which were `text`. A relative source is below `folder`.
pub fn parse_mount(text: &str, fields: &[String], folder: &Path) -> Result<MountRequest, MountError> {
    let mut mount = Fields { text, ..Fields::default() };
    for field in fields {
        let (key, value) =
            field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        mount.set(&key.to_ascii_lowercase(), value)?;
    }
    mount.finish(folder)
}

#[derive(Default)]
struct Fields<'a> {
    text: &'a str,
    kind: Option<&'a str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    readonly: bool,
    create: bool,
    bind: BindOptions,
    volume: VolumeMount,
    image_subpath: &'a str,
    tmpfs: Vec<String>,
    /// The kinds of mounts that options were given for.
    families: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    fn wrong(&self, reason: impl Into<String>) -> MountError {
        MountError::Mount { text: self.text.into(), reason: reason.into() }
    }

    fn set(&mut self, key: &str, value: Option<&'a str>) -> Result<(), MountError> {
        for family in ["bind", "volume", "tmpfs", "image"] {
            if key.strip_prefix(family).is_some_and(|rest| rest.starts_with('-')) {
                self.families.push(family);
            }
        }
        match key {
            "readonly" | "ro" => self.readonly = self.truth(key, value)?,
            "volume-nocopy" => self.volume.no_copy = self.truth(key, value)?,
            "bind-create-src" => self.create = self.truth(key, value)?,
            "bind-nonrecursive" if self.truth(key, value)? => self.bind.recursion = BindRecursion::Disabled,
            "bind-nonrecursive" => {}
            _ => {
                let missing = || self.wrong(format!("invalid field '{key}' must be a key=value pair"));
                let value = value.ok_or_else(missing)?;
                self.set_value(key, value)?;
            }
        }
        Ok(())
    }

    fn truth(&self, key: &str, value: Option<&str>) -> Result<bool, MountError> {
        match value {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(self.wrong(format!("invalid value for {key}: {value}"))),
        }
    }

    fn set_value(&mut self, key: &str, value: &'a str) -> Result<(), MountError> {
        let pair = |value: &str| {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            (name.to_owned(), value.to_owned())
        };
        match key {
            "type" => self.kind = Some(value),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            // A hint for Docker Desktop.
            "consistency" => {}
            "bind-propagation" => {
                let known = BindPropagation::of_word(value);
                self.bind.propagation =
                    known.ok_or_else(|| self.wrong(format!("invalid propagation mode: {value}")))?;
            }
            "bind-recursive" => self.bind.recursion = self.recursion(value)?,
            "volume-subpath" => self.volume.subpath = value.into(),
            "volume-driver" => self.volume.driver = value.into(),
            "volume-label" => self.volume.labels.extend([pair(value)]),
            "volume-opt" => self.volume.options.extend([pair(value)]),
            "image-subpath" => self.image_subpath = value,
            "tmpfs-size" => {
                let bytes =
                    size(value).ok_or_else(|| self.wrong(format!("invalid value for {key}: {value}")))?;
                self.tmpfs.push(format!("size={bytes}"));
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                let mode = mode.ok_or_else(|| self.wrong(format!("invalid value for {key}: {value}")))?;
                self.tmpfs.push(format!("mode={mode:o}"));
            }
            _ => {
                let (text, key, value) = (self.text.into(), key.into(), value.into());
                return Err(MountError::Key { text, key, value });
            }
        }
        Ok(())
    }

    fn recursion(&self, value: &str) -> Result<BindRecursion, MountError> {
        match value {
            "enabled" => Ok(BindRecursion::Enabled),
            "disabled" => Ok(BindRecursion::Disabled),
            "writable" => Ok(BindRecursion::Writable),
            "readonly" => Ok(BindRecursion::Readonly),
            _ => Err(self.wrong(format!(
                "invalid value for bind-recursive: {value} \
                 (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
            ))),
        }
    }

    fn finish(self, folder: &Path) -> Result<MountRequest, MountError> {
        let kind = self.kind.unwrap_or("volume");
        let target = self.target.ok_or_else(|| self.wrong("target is required"))?;
        if let Some(family) = self.families.iter().find(|family| **family != kind) {
            return Err(self.wrong(format!("cannot mix '{family}-*' options with mount type '{kind}'")));
        }
        self.check_recursion()?;
        for (kind, subpath) in [("volume", self.volume.subpath.as_str()), ("image", self.image_subpath)] {
            let leaves = Path::new(subpath)
                .components()
                .any(|part| matches!(part, std::path::Component::ParentDir | std::path::Component::RootDir));
            if leaves {
                return Err(MountError::Subpath(kind));
            }
        }
        let source = match (kind, self.source) {
            ("bind" | "image", None | Some("")) => {
                return Err(self.wrong(format!("source is required for a mount of type {kind}")));
            }
            ("bind", Some(source)) => {
                MountSource::Bind { path: absolute(source, folder), create: self.create, how: self.bind }
            }
            ("image", Some(image)) => {
                MountSource::Image { image: image.into(), subpath: self.image_subpath.into() }
            }
            ("volume", source) => {
                let name = source.filter(|name| !name.is_empty()).map(volume_name).transpose()?;
                MountSource::Volume(VolumeMount { name: name.map(String::from), ..self.volume })
            }
            ("tmpfs", Some(_)) => return Err(self.wrong("a tmpfs has no source")),
            ("tmpfs", None) => MountSource::Tmpfs { options: self.tmpfs },
            ("npipe" | "cluster", _) => return Err(MountError::Foreign(kind.into())),
            _ => return Err(self.wrong(format!("invalid mount type: {kind}"))),
        };
        Ok(MountRequest { target: check_target(target)?, readonly: self.readonly, source })
    }

    fn check_recursion(&self) -> Result<(), MountError> {
        let word = match self.bind.recursion {
            BindRecursion::Writable => "writable",
            BindRecursion::Readonly => "readonly",
            BindRecursion::Enabled | BindRecursion::Disabled => return Ok(()),
        };
        let requires = |what: &str| {
            self.wrong(format!(
                "option 'bind-recursive={word}' requires '{what}' to be specified in conjunction"
            ))
        };
        if !self.readonly {
            return Err(requires("readonly"));
        }
        match (self.bind.recursion, self.bind.propagation) {
            (BindRecursion::Readonly, propagation) if propagation != BindPropagation::Rprivate => {
                Err(requires("bind-propagation=rprivate"))
            }
            _ => Ok(()),
        }
    }
}

/// Bytes, as `64m` or `1GiB` says.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountRequest, String> {
        let fields: Vec<String> = text.split(',').map(String::from).collect();
        parse_mount(text, &fields, Path::new("/work")).map_err(|error| error.to_string())
    }

    fn reason(text: &str) -> String {
        let error = parse(text).expect_err(text);
        let prefix = format!("invalid argument \"{text}\" for \"--mount\" flag: ");
        error.strip_prefix(&prefix).map_or(error.clone(), String::from)
    }

    #[test]
    fn a_mount_is_read_field_by_field() {
        let bind =
            parse("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave,bind-recursive=writable").unwrap();
        let how = BindOptions {
            propagation: BindPropagation::Rslave,
            recursion: BindRecursion::Writable,
            relabel: None,
        };
        assert_eq!(bind.source, MountSource::Bind { path: "/a".into(), create: false, how });
        assert!(bind.readonly && bind.target == "/b");
        let volume = parse(
            "source=data,target=/b,volume-subpath=x/y,volume-label=a=b,volume-opt=type=tmpfs,volume-opt=device=t",
        );
        let expected = VolumeMount {
            name: Some("data".into()),
            subpath: "x/y".into(),
            labels: [("a".into(), "b".into())].into(),
            options: [("type".into(), "tmpfs".into()), ("device".into(), "t".into())].into(),
            ..VolumeMount::default()
        };
        assert_eq!(volume.unwrap().source, MountSource::Volume(expected));
        let tmpfs = parse("type=tmpfs,target=/t,tmpfs-size=1mb,tmpfs-mode=0700").unwrap();
        let options = vec!["size=1048576".into(), "mode=700".into()];
        assert_eq!(tmpfs.source, MountSource::Tmpfs { options });
        let image = parse("type=image,source=busybox,target=/i,image-subpath=etc").unwrap();
        assert_eq!(image.source, MountSource::Image { image: "busybox".into(), subpath: "etc".into() });
        assert_eq!(
            parse("type=bind,src=src,dst=/b").unwrap().source,
            MountSource::Bind { path: "/work/src".into(), create: false, how: BindOptions::default() }
        );
    }

    #[test]
    fn what_is_wrong_with_a_mount_is_said_in_dockers_words() {
        for (text, expected) in [
            ("type=bind,target=/b,colour=red", "unexpected key 'colour' in 'colour=red'"),
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/a", "source is required for a mount of type bind"),
            ("type=bind,src=/a,dst=/b,readonly=no", "invalid value for readonly: no"),
            ("type=bind,src=/a,dst=/b,source", "invalid field 'source' must be a key=value pair"),
            ("type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("dst=/b,bind-propagation=rslave", "cannot mix 'bind-*' options with mount type 'volume'"),
            ("type=bind,src=/a,dst=/b,bind-propagation=up", "invalid propagation mode: up"),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=readonly",
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
            ),
            (
                "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly,bind-propagation=slave",
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
            ),
            ("type=tmpfs,dst=/b,tmpfs-size=much", "invalid value for tmpfs-size: much"),
            ("type=tmpfs,dst=/b,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
            (
                "src=a1,dst=/b,volume-subpath=../x",
                "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
            ),
            ("type=disk,dst=/b", "invalid mount type: disk"),
            ("type=npipe,src=a,dst=/b", "a mount of type npipe is not for Linux containers of a single host"),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }
}
