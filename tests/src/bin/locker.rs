//! `locker`: see [`vdfs_tests::locker`].

fn main() -> std::io::Result<()> {
    vdfs_tests::locker::run_locker()
}
