//! vdfs-master
