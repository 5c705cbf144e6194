//! vdfs-volume
