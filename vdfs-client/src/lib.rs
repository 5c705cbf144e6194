//! The filesystem without FUSE.
