use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn authority() -> Authority {
    Authority::create(ClusterId(0xabc)).expect("made")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn identity_saved_is_loaded_again() {
    let scratch = scratch();
    let dir = scratch.path().join("identity");
    let issued = authority().issue(Role::Volume, "v-1").expect("issued");
    issued.save(&dir).expect("saved");
    let loaded = Identity::load(&dir).expect("loaded");
    assert_eq!(loaded.cluster(), ClusterId(0xabc));
    assert_eq!(loaded.role(), Role::Volume);
    assert_eq!(loaded.node(), "v-1");
    assert_eq!(loaded.not_after(), issued.not_after());
    assert!(loaded.not_after() > SystemTime::now() + 3600 * DAY);
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("key.pem")), 0o600);
}

#[test]
fn authority_saved_is_loaded_again_and_issues() {
    let scratch = scratch();
    authority().save(scratch.path()).expect("saved");
    assert_eq!(mode(&scratch.path().join("ca-key.pem")), 0o600);
    let loaded = Authority::load(scratch.path()).expect("loaded");
    assert_eq!(loaded.cluster(), ClusterId(0xabc));
    let identity = loaded.issue(Role::Client, "mount").expect("issued");
    assert_eq!(identity.cluster(), ClusterId(0xabc));
}

#[test]
fn authority_with_another_key_is_refused() {
    let scratch = scratch();
    authority().save(scratch.path()).expect("saved");
    let other = scratch.path().join("other");
    authority().save(&other).expect("saved");
    fs::copy(other.join("ca-key.pem"), scratch.path().join("ca-key.pem")).expect("copied");
    let error = Authority::load(scratch.path()).expect_err("two halves");
    assert!(
        error
            .to_string()
            .ends_with("ca.pem: the certificate is of another key"),
        "{error}"
    );
}

#[test]
fn issue_for_a_node_that_is_no_label_is_refused() {
    let error = authority()
        .issue(Role::Client, "My Host")
        .expect_err("no label");
    assert!(error.to_string().contains("cannot name a node"), "{error}");
}

#[test]
fn load_names_the_file_and_the_way_out() {
    let scratch = scratch();
    let dir = scratch.path().join("identity");
    let load = || Identity::load(&dir).expect_err("flawed").to_string();
    let issue = || {
        authority()
            .issue(Role::Client, "a")
            .expect("issued")
            .save(&dir)
            .expect("saved")
    };

    assert!(load().contains("key.pem: cannot read"), "{}", load());
    assert!(load().contains("--identity"), "{}", load());

    issue();
    fs::set_permissions(dir.join("key.pem"), PermissionsExt::from_mode(0o640)).expect("changed");
    assert!(load().contains("key.pem: mode 0640"), "{}", load());
    assert!(load().contains("chmod 600"), "{}", load());

    issue();
    fs::write(dir.join("key.pem"), "nonsense").expect("written");
    assert!(load().ends_with("key.pem: not a private key"), "{}", load());

    issue();
    fs::write(dir.join("cert.pem"), "nonsense").expect("written");
    assert!(
        load().ends_with("cert.pem: not a certificate"),
        "{}",
        load()
    );

    issue();
    fs::copy(dir.join("ca.pem"), dir.join("cert.pem")).expect("copied");
    assert!(
        load().ends_with("cert.pem: the certificate is of another key"),
        "{}",
        load()
    );
}

#[test]
fn load_of_an_expired_certificate_is_refused() {
    let scratch = scratch();
    let authority = authority();
    let name = PeerName {
        cluster: authority.cluster(),
        role: Role::Client,
        node: "a".parse().expect("a"),
    };
    let now = SystemTime::now();
    let validity = Validity {
        not_before: now - 2 * DAY,
        not_after: now - DAY,
    };
    let expired = authority.issue_for(&name, validity).expect("issued");
    expired.save(scratch.path()).expect("saved");
    let error = Identity::load(scratch.path()).expect_err("expired");
    let line = error.to_string();
    assert!(
        line.contains("cert.pem: the certificate of client a has expired; "),
        "{line}"
    );
    assert!(line.contains("--renew --ca MASTER_STATE --role client --name a "));
}

#[test]
fn identity_debug_keeps_the_key() {
    let identity = authority().issue(Role::Client, "a").expect("issued");
    let text = format!("{identity:?}");
    assert!(text.contains("spiffe://"), "{text}");
    assert!(!text.contains("KEY"), "{text}");
}
