//! vdfs-tests
