//! Commands that work on the files of a filesystem through `vdfs-client`, without a mount.

pub(crate) mod cat;
pub(crate) mod connection;
pub(crate) mod destination;
pub(crate) mod every_file;
pub(crate) mod forget_lost;
pub(crate) mod get;
pub(crate) mod interrupt;
pub(crate) mod listing;
pub(crate) mod locate;
pub(crate) mod locks;
pub(crate) mod ls;
pub(crate) mod on_inode;
pub(crate) mod paths;
pub(crate) mod progress;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod side_by_side;
pub(crate) mod stat;
pub(crate) mod write_piece;
