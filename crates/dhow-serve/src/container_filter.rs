//! Which containers a list shows.

use dhow_engine::Engine;
use dhow_engine::containers::{Container, ContainerPort, MountKind, State};

/// What is said of a container's health.
const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// The conditions of a list: labels must all fit; of the other conditions one of each kind.
pub struct ContainerFilter(Vec<Condition>);

impl ContainerFilter {
    /// Reads conditions such as `status=exited`. The error is for people.
    pub fn parse(texts: &[String], engine: &Engine) -> Result<ContainerFilter, String> {
        texts.iter().map(|text| Condition::parse(text, engine)).collect::<Result<_, _>>().map(ContainerFilter)
    }

    /// Whether containers that do not run are meant as well.
    pub fn asks_for_state(&self) -> bool {
        self.0.iter().any(Condition::asks_for_state)
    }

    /// Whether a container is one of those that are meant.
    pub fn fits(&self, container: &Container) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Label(..) => condition.fits(container),
            _ => self.0.iter().any(|other| other.kind() == condition.kind() && other.fits(container)),
        })
    }
}

/// The word for a container's health.
pub fn health(container: &Container) -> &'static str {
    container.health.as_ref().map_or("none", |health| health.status.word())
}

/// One condition of `--filter`.
enum Condition {
    Id(String),
    Name(String),
    Label(String, Option<String>),
    Status(String),
    Exited(i32),
    /// By name as written, and by id.
    Ancestor(String, Option<dhow_oci::Digest>),
    Before(String),
    Since(String),
    Volume(String),
    Network(String),
    Publish(ContainerPort),
    Expose(ContainerPort),
    /// `none`: nobody asks.
    Health(String),
    /// Of a swarm, which there is none of.
    IsTask(bool),
    /// `default` is all there is outside of Windows.
    Isolation(String),
}

impl Condition {
    fn parse(text: &str, engine: &Engine) -> Result<Condition, String> {
        let invalid = |what: &str| format!("invalid filter '{text}'{what}");
        let (name, value) = text.split_once('=').ok_or_else(|| invalid(": expected name=value"))?;
        let created = |value: &str| -> Result<String, String> {
            let found = engine.containers().find(value).map_err(|error| error.to_string())?;
            Ok(found.record.created)
        };
        let port = |value: &str| value.parse().map_err(|error| invalid(&format!(": {error}")));
        Ok(match name {
            "id" => Condition::Id(value.into()),
            "name" => Condition::Name(value.strip_prefix('/').unwrap_or(value).into()),
            "label" => match value.split_once('=') {
                Some((name, value)) => Condition::Label(name.into(), Some(value.into())),
                None => Condition::Label(value.into(), None),
            },
            "status" => {
                let known = ["created", "restarting", "running", "removing", "paused", "exited", "dead"]
                    .contains(&value);
                if !known {
                    return Err(invalid(": no such status"));
                }
                Condition::Status(value.into())
            }
            "exited" => Condition::Exited(value.parse().map_err(|_| invalid(": expected an exit code"))?),
            "ancestor" => {
                Condition::Ancestor(value.into(), engine.find_image(value).ok().map(|image| image.record.id))
            }
            "before" => Condition::Before(created(value)?),
            "since" => Condition::Since(created(value)?),
            "volume" => Condition::Volume(value.into()),
            "network" => Condition::Network(value.into()),
            "publish" => Condition::Publish(port(value)?),
            "expose" => Condition::Expose(port(value)?),
            "health" if HEALTH.contains(&value) => Condition::Health(value.into()),
            "health" => return Err(invalid(": expected none, starting, healthy or unhealthy")),
            "is-task" => match value {
                "true" | "1" => Condition::IsTask(true),
                "false" | "0" => Condition::IsTask(false),
                _ => return Err(invalid(": expected true or false")),
            },
            "isolation" => Condition::Isolation(value.into()),
            _ => return Err(invalid("")),
        })
    }

    /// Whether containers that do not run are meant as well.
    fn asks_for_state(&self) -> bool {
        matches!(self, Condition::Status(_) | Condition::Exited(_))
    }

    /// Conditions with one of these names in common are alternatives.
    fn kind(&self) -> std::mem::Discriminant<Condition> {
        std::mem::discriminant(self)
    }

    fn fits(&self, container: &Container) -> bool {
        let record = &container.record;
        match self {
            Condition::Id(text) => container.id.starts_with(text.as_str()),
            // Docker takes a regular expression; what people write is a part of the name, perhaps anchored.
            Condition::Name(text) => name_fits(&container.name, text),
            Condition::Label(name, value) => record
                .config
                .labels
                .get(name)
                .is_some_and(|held| value.as_ref().is_none_or(|value| value == held)),
            Condition::Status(word) => container.state.word() == word,
            Condition::Exited(code) => {
                matches!(&container.state, State::Exited { status, .. } if status.exit_code == *code)
            }
            Condition::Ancestor(name, id) => {
                record.image_name == *name || id.is_some_and(|id| id == record.image)
            }
            Condition::Before(time) => record.created < *time,
            Condition::Since(time) => record.created > *time,
            Condition::Volume(text) => {
                let has = |mount: &dhow_engine::containers::Mount| match &mount.kind {
                    MountKind::Volume { name, .. } => name == text || mount.target == *text,
                    MountKind::Bind { source, .. } => source.to_str() == Some(text) || mount.target == *text,
                    MountKind::Image { name, .. } => name == text || mount.target == *text,
                    MountKind::Tmpfs { .. } => false,
                };
                record.mounts.iter().any(has)
            }
            Condition::Network(text) => record.networks.iter().any(|(name, endpoint)| {
                name == text || !text.is_empty() && endpoint.network_id.starts_with(text.as_str())
            }),
            Condition::Publish(port) => {
                record.port_mappings().iter().any(|mapping| mapping.container_port == *port)
            }
            Condition::Expose(port) => record.exposed().contains(port),
            Condition::Health(word) => health(container) == word,
            Condition::IsTask(is_task) => !is_task,
            Condition::Isolation(name) => name.is_empty() || name == "default",
        }
    }
}

fn name_fits(name: &str, text: &str) -> bool {
    let (text, from_start) = text.strip_prefix('^').map_or((text, false), |text| (text, true));
    let text = if from_start { text.strip_prefix('/').unwrap_or(text) } else { text };
    let (text, to_end) = text.strip_suffix('$').map_or((text, false), |text| (text, true));
    match (from_start, to_end) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_filter_may_be_anchored() {
        for (text, expected) in
            [("we", true), ("^web$", true), ("^/web", true), ("^eb", false), ("eb$", true), ("x", false)]
        {
            assert_eq!(name_fits("web", text), expected, "{text}");
        }
    }
}
