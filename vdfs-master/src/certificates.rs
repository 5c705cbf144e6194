//! Certificates that end soon, as far as this master has seen them.
//!
//! Bounded: a cluster has about as many certificates as sessions and volumes.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use vdfs_net::PeerIdentity;
use vdfs_proto::Timestamp;
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::{CERTIFICATE_WARNING_SECS, CertificateEnd};

use crate::limits::CERTIFICATES_MAX;

#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// By the holder's role, as text, and node.
    seen: Mutex<BTreeMap<(&'static str, String), CertificateEnd>>,
}

impl Certificates {
    /// Takes note of the certificate behind a request.
    pub(crate) fn see(&self, peer: &PeerIdentity) {
        if let Some(ends) = peer.certificate_ends {
            self.note(peer.role, &peer.node, ends);
        }
    }

    /// Takes note of a certificate. One that was renewed is forgotten.
    pub(crate) fn note(&self, role: Role, node: &str, ends: SystemTime) {
        let is_soon = ends_soon(ends);
        let mut seen = self.seen.lock();
        if !is_soon && seen.is_empty() {
            return;
        }
        let holder = (role.as_str(), node.to_owned());
        if !is_soon {
            seen.remove(&holder);
        } else if seen.len() < CERTIFICATES_MAX || seen.contains_key(&holder) {
            let end = CertificateEnd {
                role,
                node: node.to_owned(),
                ends: Timestamp::from_system(ends),
            };
            seen.insert(holder, end);
        }
    }

    pub(crate) fn ending(&self) -> Vec<CertificateEnd> {
        self.seen.lock().values().cloned().collect()
    }
}

fn ends_soon(ends: SystemTime) -> bool {
    let warned_from = ends.checked_sub(Duration::from_secs(CERTIFICATE_WARNING_SECS));
    warned_from.is_none_or(|from| from <= SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn certificates_name_those_that_end_within_a_month_until_they_are_renewed() {
        let certificates = Certificates::default();
        let now = SystemTime::now();
        certificates.note(Role::Volume, "v1", now + 29 * DAY);
        certificates.note(Role::Client, "v1", now + 31 * DAY);
        certificates.note(Role::Client, "c", now - DAY);
        let nodes = |ending: Vec<CertificateEnd>| -> Vec<(Role, String)> {
            ending.into_iter().map(|end| (end.role, end.node)).collect()
        };
        let expected = [(Role::Client, "c".into()), (Role::Volume, "v1".into())];
        assert_eq!(nodes(certificates.ending()), expected);
        certificates.note(Role::Client, "c", now + 3650 * DAY);
        assert_eq!(nodes(certificates.ending()), expected[1..]);
    }

    #[test]
    fn certificates_are_bounded() {
        let certificates = Certificates::default();
        for number in 0..CERTIFICATES_MAX + 10 {
            certificates.note(Role::Client, &number.to_string(), SystemTime::now());
        }
        assert_eq!(certificates.ending().len(), CERTIFICATES_MAX);
    }
}
