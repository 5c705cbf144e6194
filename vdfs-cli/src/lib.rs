//! vdfs-cli
