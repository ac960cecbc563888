//! Docker's `config.json` and its helpers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use dhow_registry::{Credential, Keychain, Secret, server_key};
use expect_test::expect;
use tempfile::TempDir;

struct Home {
    folder: TempDir,
}

impl Home {
    fn with(config: &str) -> Home {
        let home = Home { folder: tempfile::tempdir().expect("a folder") };
        if !config.is_empty() {
            fs::write(home.path(), config).expect("written");
        }
        home
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).expect("a file")
    }

    fn keychain(&self) -> Keychain {
        Keychain::new(self.path(), vec![self.folder.path().to_owned()])
    }

    /// Installs a helper that keeps one secret in a file next to it.
    fn helper(&self, suffix: &str) {
        let path = self.folder.path().join(format!("docker-credential-{suffix}"));
        let kept = self.folder.path().join("kept");
        let script = format!(
            "#!/bin/sh\nread -r input\ncase $1 in\nstore) echo \"$input\" > {kept};;\n\
             get) cat {kept} 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }};;\n\
             erase) rm {kept};;\nlist) echo '{{\"https://index.docker.io/v1/\":\"me\"}}';;\nesac\n",
            kept = kept.display()
        );
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.into(), password: Secret::new(password) }
}

#[test]
fn credentials_are_found_however_docker_wrote_them() {
    let home = Home::with(
        r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"bWU6cDp3"},
            "https://quay.io/v1/":{"username":"u","password":"p"},
            "a:5000":{"auth":"bWU6","identitytoken":"t"},
            "b":{"registrytoken":"r"}, "c":{}, "d":{"auth":"?"}
        }}"#,
    );
    let keychain = home.keychain();
    let get = |registry: &str| keychain.get(registry).expect("read");
    assert_eq!(get("docker.io"), Some(basic("me", "p:w")));
    assert_eq!(get("quay.io"), Some(basic("u", "p")));
    let token = Credential::IdentityToken { username: Some("me".into()), token: Secret::new("t") };
    assert_eq!(get("a:5000"), Some(token));
    assert_eq!(get("b"), Some(Credential::RegistryToken(Secret::new("r"))));
    assert_eq!((get("a"), get("c"), get("ghcr.io")), (None, None, None));
    let error = keychain.get("d").expect_err("an error").to_string();
    assert!(error.ends_with(r#"config.json: auths."d".auth is not base64 of user:password"#), "{error}");
}

#[test]
fn what_dhow_does_not_know_survives() {
    let home = Home::with(r#"{"psFormat":"x","auths":{"z":{"auth":"YTpi"}},"plugins":{"k":{"v":"1"}}}"#);
    assert!(!home.keychain().store("docker.io", &basic("me", "pw")).expect("stored"));
    expect![[r#"
        {
        	"psFormat": "x",
        	"auths": {
        		"z": {
        			"auth": "YTpi"
        		},
        		"https://index.docker.io/v1/": {
        			"auth": "bWU6cHc="
        		}
        	},
        	"plugins": {
        		"k": {
        			"v": "1"
        		}
        	}
        }"#]]
    .assert_eq(&home.text());
    assert!(home.keychain().erase("docker.io").expect("erased"));
    assert!(!home.keychain().erase("docker.io").expect("erased"));
    assert_eq!(home.keychain().list().expect("listed").into_keys().collect::<Vec<_>>(), ["z"]);
}

#[test]
fn the_file_is_for_its_owner_and_a_link_stays_a_link() {
    let home = Home::with("");
    let real = home.folder.path().join("dotfiles.json");
    fs::write(&real, "{}").expect("written");
    symlink(&real, home.path()).expect("linked");
    home.keychain().store("a", &basic("me", "pw")).expect("stored");
    assert_eq!(fs::metadata(&real).expect("a file").permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(home.path()).expect("a link").is_symlink());
    assert_eq!(fs::read_dir(home.folder.path()).expect("a folder").count(), 2);
}

#[test]
fn a_file_that_cannot_be_understood_is_left_alone() {
    let home = Home::with("{\"auths\":{\"a\":{\"auth\":\"hunter2\"}}");
    let error = home.keychain().store("a", &basic("me", "pw")).expect_err("an error").to_string();
    assert!(error.ends_with("config.json: not a JSON object (line 1, column 33)"), "{error}");
    assert!(home.text().contains("hunter2"));
}

#[test]
fn helpers_keep_what_the_file_does_not() {
    let home = Home::with(r#"{"credsStore":"test"}"#);
    home.helper("test");
    let keychain = home.keychain();
    assert_eq!(keychain.get("docker.io").expect("asked"), None);
    assert!(keychain.store("docker.io", &basic("me", "pw")).expect("stored"));
    assert!(!home.text().contains("cHc"), "{}", home.text());
    assert_eq!(keychain.get("docker.io").expect("asked"), Some(basic("me", "pw")));
    assert_eq!(keychain.list().expect("listed").len(), 1);
    assert!(keychain.erase("docker.io").expect("erased"));
    assert_eq!(keychain.get("docker.io").expect("asked"), None);
}

#[test]
fn a_helper_for_one_registry_comes_before_the_store() {
    let home = Home::with(r#"{"credsStore":"missing","credHelpers":{"gcr.io":"test"}}"#);
    home.helper("test");
    home.keychain().store("gcr.io", &basic("<token>", "t")).expect("stored");
    let token = Credential::IdentityToken { username: None, token: Secret::new("t") };
    assert_eq!(home.keychain().get("gcr.io").expect("asked"), Some(token));
    let error = home.keychain().get("docker.io").expect_err("an error").to_string();
    assert_eq!(error, "docker-credential-missing is not installed in any of the folders of PATH");
}

#[test]
fn docker_hub_is_known_by_its_old_name() {
    assert_eq!(server_key("docker.io"), "https://index.docker.io/v1/");
    assert_eq!(server_key("quay.io"), "quay.io");
}
