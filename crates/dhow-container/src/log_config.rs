//! Where a container's output goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::ContainerRecord;

/// Where a container's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogConfig {
    /// A file of JSON objects.
    JsonFile(JsonFileConfig),
    /// Nowhere but to attached clients.
    None,
}

/// How the file of JSON objects is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonFileConfig {
    /// Rotate before a file grows beyond this.
    pub bytes_max: Option<u64>,
    /// Files kept.
    pub files_max: u32,
    /// The user asked for the driver `local`, whose form nobody reads but docker.
    pub local: bool,
    /// What the user said, as written.
    pub options: BTreeMap<String, String>,
}

impl Default for JsonFileConfig {
    fn default() -> Self {
        JsonFileConfig { bytes_max: None, files_max: 1, local: false, options: BTreeMap::new() }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig::JsonFile(JsonFileConfig::default())
    }
}

impl JsonFileConfig {
    /// What is said with each line: the labels and variables that the options `labels` and `env` name.
    pub(crate) fn attributes(&self, record: &ContainerRecord) -> BTreeMap<String, String> {
        let names = |option: &str| {
            let names = self.options.get(option).map_or("", String::as_str).split(',');
            names.filter(|name| !name.is_empty()).map(String::from).collect::<Vec<_>>()
        };
        let label = |name: &String| Some((name.clone(), record.config.labels.get(name)?.clone()));
        let mut attributes: BTreeMap<String, String> = names("labels").iter().filter_map(label).collect();
        for variable in &record.config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            if names("env").iter().any(|wanted| wanted == name) {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        }
        attributes
    }
}
