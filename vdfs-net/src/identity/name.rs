//! Who the holder of a certificate is: `spiffe://<cluster>/<role>/<node>`.

use std::fmt;
use std::str::FromStr;

use vdfs_proto::ClusterId;
use vdfs_proto::handshake::Role;

/// The longest DNS label (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;
/// All names of VDFS are below it; no resolver knows them.
const DOMAIN: &str = "vdfs.internal";
const SCHEME: &str = "spiffe://";

/// The name of a node, unique within its role: a DNS label in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeName(String);

/// A name that is no DNS label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a node: use 1 to 63 of a-z, 0-9 and '-', neither beginning nor ending with '-'"
)]
pub struct InvalidNodeName(pub String);

impl NodeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_label = (1..=LABEL_BYTES_MAX).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with('-')
            && !text.ends_with('-');
        match is_label {
            true => Ok(NodeName(text.to_owned())),
            false => Err(InvalidNodeName(text.to_owned())),
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the URI of a certificate says. `Display` and `FromStr` are inverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    pub cluster: ClusterId,
    pub role: Role,
    pub node: NodeName,
}

/// A URI that is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not spiffe://CLUSTER/ROLE/NODE")]
pub struct InvalidPeerName(pub String);

impl PeerName {
    /// The name that a dialler asks for, and that the certificate carries beside the URI.
    pub(crate) fn dns_name(&self) -> String {
        dns_name(self.role, Some(self.node.as_str()))
    }
}

/// The server name of a TLS handshake; without a node it only says the role.
pub(crate) fn dns_name(role: Role, node: Option<&str>) -> String {
    let role = role.as_str();
    match node {
        Some(node) => format!("{node}.{role}.{DOMAIN}"),
        None => format!("{role}.{DOMAIN}"),
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCHEME}{}/{}/{}",
            self.cluster,
            self.role.as_str(),
            self.node
        )
    }
}

impl FromStr for PeerName {
    type Err = InvalidPeerName;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        parse(uri).ok_or_else(|| InvalidPeerName(uri.to_owned()))
    }
}

fn parse(uri: &str) -> Option<PeerName> {
    let mut parts = uri.strip_prefix(SCHEME)?.split('/');
    let name = PeerName {
        cluster: parts.next()?.parse().ok()?,
        role: Role::parse(parts.next()?).ok()?,
        node: parts.next()?.parse().ok()?,
    };
    // One spelling a name: a URI that would be printed otherwise is refused.
    (parts.next().is_none() && name.to_string() == uri).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn peer_name_parse_inverts_display(
            cluster in any::<u128>(),
            node in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        ) {
            let name = PeerName {
                cluster: ClusterId(cluster),
                role: Role::Volume,
                node: node.parse().expect("a label"),
            };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn peer_name_of_another_form_is_refused() {
        let cluster = ClusterId(7);
        for uri in [
            "".to_owned(),
            "spiffe://".to_owned(),
            format!("http://{cluster}/client/a"),
            format!("spiffe://{cluster}/client"),
            format!("spiffe://{cluster}/client/a/b"),
            format!("spiffe://{cluster}/root/a"),
            format!("spiffe://{cluster}/client/"),
            format!("spiffe://{cluster}/client/A"),
            "spiffe://7/client/a".to_owned(),
            format!("spiffe://+{}/client/a", &cluster.to_string()[1..]),
        ] {
            assert!(uri.parse::<PeerName>().is_err(), "{uri}");
        }
    }

    #[test]
    fn node_name_that_is_no_label_is_refused_with_the_rule() {
        for text in ["", "-a", "a-", "a.b", "A", "a b", "\u{e4}", &"a".repeat(64)] {
            let error = text.parse::<NodeName>().expect_err("no label");
            assert!(error.to_string().contains("1 to 63 of a-z"), "{error}");
        }
    }
}
