//! Which images there are and what they are made of: data only.
//!
//! The names are those the tutorials use. Where an image is not what its name says, `stand_in` says what it is instead, and
//! so does the label `org.dhow.stand-in` of the image.

/// Suite of the Debian that still has both Python 3.9 and 2.7.
pub(crate) const DEBIAN_SUITE: &str = "bullseye";

/// Time of every file and image that is newer: 2026-09-01T00:00:00Z.
pub(crate) const EPOCH_SECONDS: u64 = 1_788_220_800;
/// The same in the words of image-spec.
pub(crate) const EPOCH_TEXT: &str = "2026-09-01T00:00:00Z";

/// Label that tells what a stand-in really is.
pub(crate) const STAND_IN_LABEL: &str = "org.dhow.stand-in";

/// How to make a layer.
#[derive(Debug)]
pub(crate) enum Make {
    /// A minimal Debian, with the CA bundle of this machine.
    Debian,
    /// Busybox with users and the CA bundle of this machine.
    Busybox,
    /// What a shell script changes when run on the parent.
    Script(&'static str),
    /// Files laid over the parent.
    Files(&'static [File]),
    /// What a shell script, run on another layer, leaves in /mnt, laid over the parent in the folder `into`.
    Payload { on: &'static str, script: &'static str, into: &'static str },
    /// One static program, compiled from C.
    Program { source: &'static str, name: &'static str },
}

/// A file laid into an image. Its folders are made.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: &'static str,
    pub(crate) mode: u32,
    pub(crate) text: &'static str,
}

/// A layer, by name, on its parent.
#[derive(Debug)]
pub(crate) struct LayerRecipe {
    pub(crate) name: &'static str,
    pub(crate) parent: Option<&'static str>,
    pub(crate) make: Make,
    /// Its line in the image's history.
    pub(crate) created_by: &'static str,
}

/// In whose words an image is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Docker's image manifest, version 2, schema 2.
    Docker,
    /// The OCI image-spec.
    Oci,
}

/// An image with its names.
#[derive(Debug)]
pub(crate) struct ImageRecipe {
    /// `repository:tag` on the Hub, without `docker.io/`.
    pub(crate) names: &'static [&'static str],
    /// The last of its layers; parents come by themselves.
    pub(crate) layer: &'static str,
    pub(crate) dialect: Dialect,
    /// Behind an index, together with an image of this layer for a platform that no test machine has.
    pub(crate) decoy: Option<&'static str>,
    pub(crate) stand_in: Option<&'static str>,
    pub(crate) env: &'static [&'static str],
    pub(crate) entrypoint: &'static [&'static str],
    pub(crate) cmd: &'static [&'static str],
    pub(crate) working_dir: &'static str,
    pub(crate) exposed_ports: &'static [&'static str],
    pub(crate) volumes: &'static [&'static str],
}

/// Architecture of the decoys.
pub(crate) const DECOY_ARCHITECTURE: &str = "s390x";

/// Every layer, parents before children.
pub(crate) const LAYERS: &[LayerRecipe] = &[
    LayerRecipe {
        name: "debian",
        parent: None,
        make: Make::Debian,
        created_by: "mmdebstrap --variant=minbase --include=ca-certificates bullseye",
    },
    LayerRecipe {
        name: "python3.9",
        parent: Some("debian"),
        make: Make::Script(include_str!("../../images/python3.9.sh")),
        created_by: "apt-get install python3 && pip install pip==23.0.1",
    },
    LayerRecipe {
        name: "python2.7",
        parent: Some("debian"),
        make: Make::Script(include_str!("../../images/python2.7.sh")),
        created_by: "apt-get install python2.7 && pip install pip==20.3.4",
    },
    LayerRecipe {
        name: "redis",
        parent: Some("debian"),
        make: Make::Script(include_str!("../../images/redis.sh")),
        created_by: "apt-get install redis-server",
    },
    LayerRecipe {
        name: "ubuntu",
        parent: Some("debian"),
        make: Make::Files(&[File {
            path: "etc/lsb-release",
            mode: 0o644,
            text: "DISTRIB_ID=Stand-in\nDISTRIB_RELEASE=20.04\nDISTRIB_DESCRIPTION=\"stand-in for Ubuntu 20.04\"\n",
        }]),
        created_by: "COPY lsb-release /etc/",
    },
    LayerRecipe {
        name: "ubuntu14.04",
        parent: Some("debian"),
        make: Make::Files(&[File {
            path: "etc/lsb-release",
            mode: 0o644,
            text: "DISTRIB_ID=Stand-in\nDISTRIB_RELEASE=14.04\nDISTRIB_DESCRIPTION=\"stand-in for Ubuntu 14.04\"\n",
        }]),
        created_by: "COPY lsb-release /etc/",
    },
    LayerRecipe { name: "busybox", parent: None, make: Make::Busybox, created_by: "COPY busybox /bin/" },
    LayerRecipe {
        name: "alpine",
        parent: Some("busybox"),
        make: Make::Files(&[
            File { path: "sbin/apk", mode: 0o755, text: include_str!("../../images/apk") },
            File { path: "etc/alpine-release", mode: 0o644, text: "3.5.3\n" },
            File {
                path: "etc/os-release",
                mode: 0o644,
                text: "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.5.3\nPRETTY_NAME=\"stand-in for Alpine Linux v3.5\"\n",
            },
        ]),
        created_by: "COPY apk /sbin/",
    },
    LayerRecipe {
        name: "py2-pip",
        parent: Some("alpine"),
        make: Make::Payload {
            on: "python2.7",
            script: include_str!("../../images/py2-pip.sh"),
            into: "usr/share/dhow-stand-in",
        },
        created_by: "COPY py2-pip.tar.gz /usr/share/dhow-stand-in/",
    },
    LayerRecipe {
        name: "mongo",
        parent: Some("busybox"),
        make: Make::Files(&[File {
            path: "usr/local/bin/mongod",
            mode: 0o755,
            text: include_str!("../../images/mongod"),
        }]),
        created_by: "COPY mongod /usr/local/bin/",
    },
    LayerRecipe {
        name: "hello",
        parent: None,
        make: Make::Program { source: include_str!("../../images/hello.c"), name: "hello" },
        created_by: "COPY hello /",
    },
    LayerRecipe {
        name: "decoy",
        parent: None,
        make: Make::Files(&[File {
            path: "hello",
            mode: 0o755,
            text: "This image is for another platform: whoever reads this has pulled the wrong one.\n",
        }]),
        created_by: "COPY hello /",
    },
];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PYTHON_PATH: &str = "PATH=/usr/local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LANG: &str = "LANG=C.UTF-8";
/// Requests brings its own bundle of CAs and would not trust this machine's; ssl and pip need no variable.
const REQUESTS_TRUST: &str = "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt";
const PYTHON_3_ENV: &[&str] = &[PYTHON_PATH, LANG, "PYTHON_VERSION=3.9.2", REQUESTS_TRUST];
const PYTHON_2_ENV: &[&str] = &[PYTHON_PATH, LANG, "PYTHON_VERSION=2.7.18", REQUESTS_TRUST];

/// What an image has that says nothing else.
const PLAIN: ImageRecipe = ImageRecipe {
    names: &[],
    layer: "",
    dialect: Dialect::Oci,
    decoy: None,
    stand_in: None,
    env: &[PATH],
    entrypoint: &[],
    cmd: &[],
    working_dir: "",
    exposed_ports: &[],
    volumes: &[],
};

const PYTHON_3: ImageRecipe = ImageRecipe {
    layer: "python3.9",
    dialect: Dialect::Docker,
    env: PYTHON_3_ENV,
    cmd: &["python3"],
    ..PLAIN
};

/// Every image.
pub(crate) const IMAGES: &[ImageRecipe] = &[
    ImageRecipe {
        names: &["library/python:3.9-slim"],
        stand_in: Some("Python 3.9.2 of Debian 11, in place of docker's own build of Python 3.9"),
        ..PYTHON_3
    },
    ImageRecipe {
        names: &["library/python:latest"],
        stand_in: Some("Python 3.9.2 of Debian 11, in place of docker's newest Python"),
        ..PYTHON_3
    },
    ImageRecipe {
        names: &["library/python:3.9-alpine"],
        stand_in: Some(
            "Python 3.9.2 of Debian 11, in place of Python 3.9 on Alpine: there is no apk, and libc is glibc",
        ),
        ..PYTHON_3
    },
    ImageRecipe {
        names: &["library/python:3.6.1-alpine"],
        stand_in: Some(
            "Python 3.9.2 of Debian 11, in place of Python 3.6.1 on Alpine: there is no apk, and libc is glibc",
        ),
        ..PYTHON_3
    },
    ImageRecipe {
        names: &["library/python:2.7-slim"],
        layer: "python2.7",
        dialect: Dialect::Docker,
        stand_in: Some("Python 2.7.18 of Debian 11, in place of docker's own build of Python 2.7"),
        env: PYTHON_2_ENV,
        cmd: &["python2"],
        ..PLAIN
    },
    ImageRecipe {
        names: &["library/alpine:3.5"],
        layer: "py2-pip",
        stand_in: Some(
            "busybox of Debian, in place of Alpine 3.5: its apk only knows py2-pip and py-pip, and installs Debian's",
        ),
        cmd: &["/bin/sh"],
        ..PLAIN
    },
    ImageRecipe {
        names: &["library/alpine:latest"],
        layer: "alpine",
        stand_in: Some("busybox of Debian, in place of Alpine: its apk knows no package"),
        cmd: &["/bin/sh"],
        ..PLAIN
    },
    ImageRecipe {
        names: &["library/busybox:latest"],
        layer: "busybox",
        decoy: Some("decoy"),
        stand_in: Some("busybox of Debian, in place of docker's own build"),
        cmd: &["sh"],
        ..PLAIN
    },
    ImageRecipe {
        names: &["library/hello-world:latest"],
        layer: "hello",
        decoy: Some("decoy"),
        stand_in: Some("a program with the purpose of docker's hello-world and words of its own"),
        cmd: &["/hello"],
        ..PLAIN
    },
    ImageRecipe {
        names: &["library/ubuntu:20.04", "library/ubuntu:latest"],
        layer: "ubuntu",
        dialect: Dialect::Docker,
        decoy: Some("decoy"),
        stand_in: Some("Debian 11, in place of Ubuntu 20.04"),
        cmd: &["/bin/bash"],
        ..PLAIN
    },
    ImageRecipe {
        names: &["library/ubuntu:14.04"],
        layer: "ubuntu14.04",
        dialect: Dialect::Docker,
        stand_in: Some("Debian 11, in place of Ubuntu 14.04"),
        cmd: &["/bin/bash"],
        ..PLAIN
    },
    ImageRecipe {
        names: &["library/mongo:latest"],
        layer: "mongo",
        stand_in: Some("a script that keeps port 27017 open, in place of MongoDB"),
        entrypoint: &["mongod"],
        exposed_ports: &["27017/tcp"],
        volumes: &["/data/configdb", "/data/db"],
        ..PLAIN
    },
    ImageRecipe {
        names: &["library/redis:latest"],
        layer: "redis",
        stand_in: Some("Redis of Debian 11, in place of docker's own build"),
        cmd: &["redis-server", "--protected-mode", "no"],
        working_dir: "/data",
        exposed_ports: &["6379/tcp"],
        volumes: &["/data"],
        ..PLAIN
    },
];

/// The recipe of the layer called `name`.
pub(crate) fn layer(name: &str) -> &'static LayerRecipe {
    LAYERS.iter().find(|layer| layer.name == name).expect("recipes name layers that exist; a test sees to it")
}

/// The layers from the root to the one called `name`.
pub(crate) fn chain(name: &str) -> Vec<&'static LayerRecipe> {
    let mut chain: Vec<_> =
        std::iter::successors(Some(layer(name)), |layer| layer.parent.map(self::layer)).collect();
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn layers_come_after_what_they_are_made_from() {
        let mut known = BTreeSet::new();
        for layer in LAYERS {
            let payload = match layer.make {
                Make::Payload { on, .. } => Some(on),
                _ => None,
            };
            for name in layer.parent.into_iter().chain(payload) {
                assert!(known.contains(name), "{} needs {name} first", layer.name);
            }
            assert!(known.insert(layer.name), "{} is there twice", layer.name);
        }
    }

    #[test]
    fn images_name_layers_that_exist_and_every_layer_is_used() {
        let used: BTreeSet<_> = IMAGES
            .iter()
            .flat_map(|image| std::iter::once(image.layer).chain(image.decoy))
            .flat_map(chain)
            .map(|l| l.name)
            .collect();
        let known: BTreeSet<_> = LAYERS.iter().map(|layer| layer.name).collect();
        assert_eq!(used, known);
    }

    #[test]
    fn every_name_of_the_tutorials_is_served_once() {
        let mut names: Vec<_> = IMAGES.iter().flat_map(|image| image.names).copied().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        let wanted = [
            "alpine:3.5",
            "alpine:latest",
            "hello-world:latest",
            "mongo:latest",
            "python:2.7-slim",
            "python:3.6.1-alpine",
            "python:3.9-alpine",
            "python:3.9-slim",
            "python:latest",
            "ubuntu:14.04",
            "ubuntu:20.04",
            "ubuntu:latest",
        ];
        for name in wanted {
            assert!(names.contains(&format!("library/{name}").as_str()), "{name} is missing");
        }
    }
}
