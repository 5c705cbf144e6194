//! Identities. Each is a type of its own, so that a chunk index is never taken for an offset.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub u128);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            /// Parses the 32 hexadecimal digits that `Display` prints.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(text, 16).map(Self)
            }
        }
    };
}

number_id!(
    /// The identity of a file's bytes. Truncation to zero gives the file a new one; the old one is
    /// reaped. Never reused.
    DataId, u64, "d"
);
number_id!(
    /// Version of one chain's membership; only the master raises it.
    Epoch, u64, "e"
);
number_id!(
    /// An ordered list of volumes that hold the same chunks.
    ChainId, u32, "c"
);
number_id!(
    /// A volume, as the master numbers it. Never reused.
    VolumeId, u32, "v"
);
number_id!(
    /// One client's life at the master. Never reused.
    SessionId, u64, "s"
);

impl SessionId {
    /// Whose ops the master's own are at volumes: no client's.
    pub const MASTER: SessionId = SessionId(0);
    /// From here on: no client's either.
    const VOLUMES: u64 = 1 << 63;

    /// Whose ops the changes are that a volume makes itself. It never ends.
    pub fn of_volume(volume: VolumeId) -> Self {
        SessionId(Self::VOLUMES | u64::from(volume.0))
    }

    /// Whether the master may have given it to a client.
    pub fn is_client(self) -> bool {
        self != Self::MASTER && self.0 < Self::VOLUMES
    }
}

number_id!(
    /// One open file of one session, chosen by the client, unique within the session.
    HandleId, u64, "h"
);
random_id!(
    /// One VDFS cluster: the trust domain of its certificates.
    ClusterId
);
random_id!(
    /// Made with an empty store: another store id under the same volume proves that its chunks are
    /// gone.
    StoreId
);

/// An inode: 24 bits of generation above 40 bits of slot. Never reused with the same generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
    /// Number of bits of the slot.
    pub const SLOT_BITS: u32 = 40;
    /// The last generation of a slot; a slot that has used it is retired.
    pub const GENERATION_MAX: u32 = (1 << 24) - 1;

    /// Panics unless `slot` fits 40 bits and `generation` 24 bits.
    pub fn new(slot: u64, generation: u32) -> Self {
        assert!(slot < 1 << Self::SLOT_BITS, "slot {slot} exceeds 40 bits");
        assert!(
            generation <= Self::GENERATION_MAX,
            "generation {generation} exceeds 24 bits"
        );
        Ino(slot | u64::from(generation) << Self::SLOT_BITS)
    }

    pub fn slot(self) -> u64 {
        self.0 & ((1 << Self::SLOT_BITS) - 1)
    }

    pub fn generation(self) -> u32 {
        (self.0 >> Self::SLOT_BITS) as u32
    }
}

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}.{}", self.slot(), self.generation())
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `chunk-size` bytes of a file; the last chunk is as short as its data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId {
    pub data: DataId,
    pub index: u32,
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.data, self.index)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names one mutation for ever, so that a retry is recognised. A slot has one request in flight;
/// its `seq` goes up by one with each new request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    pub session: SessionId,
    pub slot: u16,
    pub seq: u64,
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}#{}", self.session, self.slot, self.seq)
    }
}

/// Version of one chunk's bytes: ordered first by the epoch under which it was given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    pub epoch: Epoch,
    pub counter: u64,
}

impl Version {
    /// The version that a write under `epoch` on top of `self` gets.
    pub fn next(self, epoch: Epoch) -> Self {
        assert!(
            epoch >= self.epoch,
            "a version never goes back to an older epoch"
        );
        Version {
            epoch,
            counter: self.counter + 1,
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ino_new_splits_into_the_parts_it_was_made_of() {
        let ino = Ino::new((1 << 40) - 1, Ino::GENERATION_MAX);
        assert_eq!(
            (ino.slot(), ino.generation()),
            ((1 << 40) - 1, Ino::GENERATION_MAX)
        );
        assert_eq!((Ino::ROOT.slot(), Ino::ROOT.generation()), (1, 0));
    }

    #[test]
    fn cluster_id_prints_and_parses() {
        let id = ClusterId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
