//! One file an operation: check the place in the chain, call the store.

pub(crate) mod blocks;
pub(crate) mod copy;
pub(crate) mod doubt;
pub(crate) mod inventory;
pub(crate) mod mend;
pub(crate) mod peer;
pub(crate) mod read;
pub(crate) mod scrub;
pub(crate) mod seek;
pub(crate) mod space;
pub(crate) mod write;
