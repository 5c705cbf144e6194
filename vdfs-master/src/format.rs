//! What a new filesystem is made with, and whether the one that is there is the one that was meant.

use vdfs_program::Size;
use vdfs_proto::{ChunkSize, ClusterId};

use crate::core::FsConfig;

/// Inodes there can be: what slots can number, less one bit. The budget of RAM ends long before.
const FILES_MAX: u64 = 1 << 31;

/// Why a filesystem is not the one that was meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The log may have been put there from elsewhere.
    #[error("the log is of another cluster")]
    OtherCluster,
    #[error("the filesystem was made with chunks of {}", Size(u64::from(found.bytes())))]
    ChunkSize { found: ChunkSize },
    #[error("the filesystem keeps {found} copies of everything")]
    Replicas { found: u32 },
    #[error("the filesystem keeps one copy on one host, and two on more")]
    ReplicasByHosts,
}

impl FsConfig {
    /// A filesystem whose root belongs to who runs this process.
    pub fn new(cluster: ClusterId, chunk_size: ChunkSize) -> FsConfig {
        FsConfig {
            cluster,
            chunk_size,
            replicas: None,
            hash_key: rand::random(),
            root_uid: rustix::process::geteuid().as_raw(),
            root_gid: rustix::process::getegid().as_raw(),
            files_max: FILES_MAX,
        }
    }

    /// Whether this is the filesystem of `cluster`, with chunks of `chunk_size` if one is asked
    /// for.
    pub fn check(
        &self,
        cluster: ClusterId,
        chunk_size: Option<ChunkSize>,
    ) -> Result<(), FormatError> {
        if self.cluster != cluster {
            return Err(FormatError::OtherCluster);
        }
        match chunk_size {
            Some(asked) if asked != self.chunk_size => Err(FormatError::ChunkSize {
                found: self.chunk_size,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether it keeps so many copies as are asked for, if it is asked.
    pub fn check_replicas(&self, asked: Option<u32>) -> Result<(), FormatError> {
        match asked {
            Some(asked) if Some(asked) != self.replicas => Err(match self.replicas {
                Some(found) => FormatError::Replicas { found },
                None => FormatError::ReplicasByHosts,
            }),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_refuses_another_cluster_and_other_chunks() {
        let made = FsConfig::new(ClusterId(1), ChunkSize::MIN);
        assert_eq!(made.check(ClusterId(1), None), Ok(()));
        assert_eq!(made.check(ClusterId(1), Some(ChunkSize::MIN)), Ok(()));
        assert_eq!(
            made.check(ClusterId(2), None),
            Err(FormatError::OtherCluster)
        );
        let found = ChunkSize::MIN;
        let refused = made.check(ClusterId(1), Some(ChunkSize::MAX));
        assert_eq!(refused, Err(FormatError::ChunkSize { found }));
        assert_eq!(made.check_replicas(None), Ok(()));
        let refused = made.check_replicas(Some(2));
        assert_eq!(refused, Err(FormatError::ReplicasByHosts));
        let two = FsConfig {
            replicas: Some(2),
            ..made
        };
        assert_eq!(two.check_replicas(Some(2)), Ok(()));
        let refused = two.check_replicas(Some(1));
        assert_eq!(refused, Err(FormatError::Replicas { found: 2 }));
    }
}
