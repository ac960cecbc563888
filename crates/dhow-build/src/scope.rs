//! The variables an instruction can see.

use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{ExpandError, expand, expand_words};
use dhow_oci::{ImageConfig, Platform};

use crate::plan::EnvVar;

/// Build arguments that every `RUN` sees without declaring them, for machines behind a proxy.
const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Begins the names of build arguments that the builder itself reads.
const BUILDER_ARGS_PREFIX: &str = "BUILDKIT_";
/// The build argument that dates the image.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Values the user gave and values the platform gives.
pub(crate) struct Arguments {
    given: BTreeMap<String, String>,
    automatic: BTreeMap<String, String>,
}

impl Arguments {
    /// `stage` is the one that was asked for by name.
    pub(crate) fn new(
        given: BTreeMap<String, String>,
        build: &Platform,
        target: &Platform,
        stage: Option<&str>,
    ) -> Arguments {
        let mut automatic = BTreeMap::new();
        automatic.insert("TARGETSTAGE".to_owned(), stage.unwrap_or("default").to_owned());
        for (prefix, platform) in [("BUILD", build), ("TARGET", target)] {
            automatic.insert(format!("{prefix}PLATFORM"), platform.to_string());
            automatic.insert(format!("{prefix}OS"), platform.os.clone());
            automatic.insert(format!("{prefix}OSVERSION"), platform.os_version.clone().unwrap_or_default());
            automatic.insert(format!("{prefix}ARCH"), platform.architecture.clone());
            automatic.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
        }
        Arguments { given, automatic }
    }

    /// The value of `ARG name` before the first `FROM`: what the user gave wins.
    pub(crate) fn global(&self, name: &str) -> Option<&String> {
        self.given.get(name).or_else(|| self.automatic.get(name))
    }

    fn given(&self, name: &str) -> Option<&String> {
        self.given.get(name)
    }

    pub(crate) fn proxies(&self) -> Vec<String> {
        let pair = |name: &&str| self.given.get(*name).map(|value| format!("{name}={value}"));
        PROXY_ARGS.iter().filter_map(pair).collect()
    }

    /// Names the user gave that no `ARG` asked for.
    pub(crate) fn unused(&self, declared: &BTreeSet<String>) -> Vec<String> {
        let is_for_builder = |name: &str| {
            PROXY_ARGS.contains(&name) || name.starts_with(BUILDER_ARGS_PREFIX) || name == SOURCE_DATE_EPOCH
        };
        let is_unused = |name: &&String| !declared.contains(*name) && !is_for_builder(name);
        self.given.keys().filter(is_unused).cloned().collect()
    }
}

/// The build arguments declared so far in a stage, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared(Vec<(String, Option<String>)>);

impl Declared {
    /// `ARG name` or `ARG name=default` in a stage.
    pub(crate) fn declare(
        &mut self,
        name: &str,
        default: Option<String>,
        arguments: &Arguments,
        globals: &BTreeMap<String, String>,
    ) {
        let inherited = || globals.get(name).or_else(|| arguments.automatic.get(name)).cloned();
        let value = arguments.given(name).cloned().or(default).or_else(inherited);
        // A bare `ARG name` does not take back the value it has from before, in this stage or the one below.
        let value = value.or_else(|| self.value(name).cloned());
        self.0.retain(|(held, _)| held != name);
        self.0.push((name.to_owned(), value));
    }

    fn value(&self, name: &str) -> Option<&String> {
        self.0.iter().find(|(held, _)| held == name).and_then(|(_, value)| value.as_ref())
    }

    /// Arguments with a value that no variable of the image hides.
    pub(crate) fn visible<'a>(&'a self, config: &'a ImageConfig) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)));
        pairs.filter(|(name, _)| config.config.env_value(name).is_none())
    }
}

/// Environment of the image and declared arguments, the environment winning.
pub(crate) struct Scope<'a> {
    pub config: &'a ImageConfig,
    pub declared: &'a Declared,
    pub escape: char,
}

impl Scope<'_> {
    /// The value of a variable.
    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        self.config.config.env_value(name).map(str::to_owned).or_else(|| self.declared.value(name).cloned())
    }

    pub(crate) fn expand(&self, word: &str) -> Result<String, ExpandError> {
        Ok(expand(word, self.escape, |name| self.lookup(name))?.text)
    }

    pub(crate) fn expand_words(&self, text: &str) -> Result<Vec<String>, ExpandError> {
        expand_words(text, self.escape, |name| self.lookup(name))
    }

    pub(crate) fn expand_heredoc(&self, text: &str) -> Result<String, ExpandError> {
        Ok(dhow_dockerfile::expand_heredoc(text, |name| self.lookup(name))?.text)
    }

    /// What a program run now sees.
    pub(crate) fn environment(&self) -> Vec<EnvVar> {
        let pair = |entry: &String| {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            EnvVar { name: name.to_owned(), value: value.to_owned(), is_arg: false }
        };
        let env = self.config.config.env.iter().map(pair);
        let args = self.declared.visible(self.config).map(|(name, value)| EnvVar {
            name: name.to_owned(),
            value: value.to_owned(),
            is_arg: true,
        });
        env.chain(args).collect()
    }
}
