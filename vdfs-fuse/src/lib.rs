//! vdfs-fuse
