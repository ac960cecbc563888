//! The variables an instruction can see.

use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{ExpandError, Expanded, expand, expand_words};
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

/// Arguments that speak to the builder and are no variables of a `RUN`.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

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
        for (name, value) in &mut automatic {
            if let Some(given) = given.get(name) {
                value.clone_from(given);
            }
        }
        Arguments { given, automatic }
    }

    /// The value of an argument that nobody needs to declare before the first `FROM`.
    pub(crate) fn automatic(&self, name: &str) -> Option<&String> {
        self.automatic.get(name)
    }

    /// Names of the arguments that nobody needs to declare before the first `FROM`.
    pub(crate) fn automatic_names(&self) -> impl Iterator<Item = &str> {
        self.automatic.keys().map(String::as_str)
    }

    /// What the user gave.
    pub(crate) fn given(&self, name: &str) -> Option<&String> {
        self.given.get(name)
    }

    /// Settings of proxies, each in both spellings whichever was given. An empty one is none.
    pub(crate) fn proxies(&self) -> Vec<String> {
        let pair = |spellings: &[&str]| {
            let value =
                spellings.iter().find_map(|name| self.given.get(*name).filter(|value| !value.is_empty()));
            let both =
                |value| spellings.iter().map(move |name| format!("{name}={value}")).collect::<Vec<_>>();
            value.map(both).unwrap_or_default()
        };
        PROXY_ARGS.chunks(2).flat_map(pair).collect()
    }

    /// Names the user gave that no `ARG` asked for.
    pub(crate) fn unused(&self, declared: &BTreeSet<String>) -> Vec<String> {
        let is_known = |name: &str| {
            PROXY_ARGS.contains(&name)
                || self.automatic.contains_key(name)
                || name.starts_with(BUILDER_ARGS_PREFIX)
                || name == SOURCE_DATE_EPOCH
        };
        let is_unused = |name: &&String| !declared.contains(*name) && !is_known(name);
        self.given.keys().filter(is_unused).cloned().collect()
    }
}

/// The build arguments declared so far in a stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    /// Each name once, in order, with the value of its last `ARG`.
    all: Vec<(String, Option<String>)>,
    /// Those with a value that no later `ENV` set.
    variables: Vec<(String, String)>,
    /// Names of variables and arguments in the order in which they were last set: programs see them in it.
    order: Vec<String>,
}

impl Declared {
    /// `ARG name` or `ARG name=default` in a stage. Returns the value, if this gives one.
    pub(crate) fn declare(
        &mut self,
        name: &str,
        default: Option<String>,
        arguments: &Arguments,
        globals: &BTreeMap<String, String>,
    ) -> Option<String> {
        let inherited = || globals.get(name).or_else(|| arguments.automatic.get(name)).cloned();
        let value = arguments.given(name).cloned().or(default).or_else(inherited);
        match self.all.iter_mut().find(|(held, _)| held == name) {
            Some((_, held)) => held.clone_from(&value),
            None => self.all.push((name.to_owned(), value.clone())),
        }
        // A bare `ARG name` does not take back the value it has from before, in this stage or the one below.
        if let Some(value) = &value
            && !NO_VARIABLES.contains(&name)
        {
            self.hide(name);
            self.variables.push((name.to_owned(), value.clone()));
        }
        value
    }

    /// The image has a variable of this name from here on.
    pub(crate) fn hide(&mut self, name: &str) {
        self.variables.retain(|(held, _)| held != name);
        self.set(name);
    }

    fn set(&mut self, name: &str) {
        self.order.retain(|held| held != name);
        self.order.push(name.to_owned());
    }

    /// Begins a stage upon this one: what the image sets is no longer hidden by arguments, and set anew.
    pub(crate) fn begin_stage(&mut self, config: &ImageConfig) {
        self.variables.retain(|(held, _)| config.config.env_value(held).is_none());
        let names = config.config.env.iter().map(|entry| entry.split('=').next().unwrap_or(entry));
        names.for_each(|name| self.set(name));
    }

    /// Whether `ARG name` was there, with a value or not.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.all.iter().any(|(held, _)| held == name)
    }

    /// The value an argument has now, if no later `ENV` set the variable.
    pub(crate) fn value(&self, name: &str) -> Option<&String> {
        self.variables.iter().find(|(held, _)| held == name).map(|(_, value)| value)
    }
}

/// Environment of the image and declared arguments. Of two values for one name the later one counts.
pub(crate) struct Scope<'a> {
    pub config: &'a ImageConfig,
    pub declared: &'a Declared,
    pub escape: char,
}

impl Scope<'_> {
    /// The value of a variable.
    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        let argument = self.declared.value(name).map(String::as_str);
        argument.or_else(|| self.config.config.env_value(name)).map(str::to_owned)
    }

    /// All declared arguments as the history shows them, `name=value`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let shown = |(name, own): &(String, Option<String>)| {
            let value = self.lookup(name).or_else(|| own.clone()).unwrap_or_default();
            format!("{name}={value}")
        };
        self.declared.all.iter().map(shown).collect()
    }

    /// The names that have a value, the environment's first.
    pub(crate) fn names(&self) -> Vec<&str> {
        let env = self.config.config.env.iter().map(|entry| entry.split('=').next().unwrap_or(entry));
        let is_own = |name: &&str| self.config.config.env_value(name).is_none();
        let args = self.declared.variables.iter().map(|(name, _)| name.as_str()).filter(is_own);
        env.chain(args).collect()
    }

    pub(crate) fn expand(&self, word: &str) -> Result<String, ExpandError> {
        Ok(self.expanded(word)?.text)
    }

    /// The word and the names it asks for.
    pub(crate) fn expanded(&self, word: &str) -> Result<Expanded, ExpandError> {
        expand(word, self.escape, |name| self.lookup(name))
    }

    pub(crate) fn expand_words(&self, text: &str) -> Result<Vec<String>, ExpandError> {
        expand_words(text, self.escape, |name| self.lookup(name))
    }

    pub(crate) fn expand_heredoc(&self, text: &str) -> Result<String, ExpandError> {
        Ok(self.expanded_heredoc(text)?.text)
    }

    /// The body of a heredoc and the names it asks for.
    pub(crate) fn expanded_heredoc(&self, text: &str) -> Result<Expanded, ExpandError> {
        dhow_dockerfile::expand_heredoc(text, |name| self.lookup(name))
    }

    /// What a program run now sees.
    pub(crate) fn environment(&self) -> Vec<EnvVar> {
        let pair = |entry: &String| {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            EnvVar { name: name.to_owned(), value: value.to_owned(), is_arg: false }
        };
        let env = self.config.config.env.iter().map(pair);
        let env = env.filter(|var| self.declared.value(&var.name).is_none());
        let args = self.declared.variables.iter().map(|(name, value)| EnvVar {
            name: name.clone(),
            value: value.clone(),
            is_arg: true,
        });
        let mut all: Vec<EnvVar> = env.chain(args).collect();
        all.sort_by_key(|var| self.declared.order.iter().position(|name| *name == var.name));
        all
    }
}
