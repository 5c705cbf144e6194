//! One file an operation: check the place in the chain, call the store.

pub(crate) mod read;
pub(crate) mod write;
