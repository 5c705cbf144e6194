//! git: a repository of many files and commits is cloned onto the mount, checked out, repacked and
//! checked.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use vdfs_tests::programs::shell;
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    #[ignore = "needs git"]
    repository_survives_clone_gc_and_commits,
    #[ignore = "long: 50,000 files"]
    large_repository_survives_clone_gc_and_commits_long,
);

const FILES_PER_DIRECTORY: u32 = 100;

fn repository_survives_clone_gc_and_commits(way: Way) {
    clone_and_check(way, way.share(2_000), 50);
}

fn large_repository_survives_clone_gc_and_commits_long(way: Way) {
    clone_and_check(way, 50_000, 500);
}

fn clone_and_check(way: Way, files: u32, commits: u32) {
    let vdfs = way.start(Options {
        ram_mib: 2048,
        ..Options::default()
    });
    let outside = vdfs.outside();
    import(&outside.join("source.git"), files, commits);
    let script = format!(
        r#"
        export HOME={outside:?} LC_ALL=C GIT_CONFIG_NOSYSTEM=1
        git config --global user.name n; git config --global user.email e@x
        git config --global gc.auto 0; git config --global maintenance.auto false
        git clone -q --no-local {outside:?}/source.git repo; cd repo
        test "$(git ls-files | wc -l)" = {files}
        test "$(git rev-list --count HEAD)" = {commits}
        test -z "$(git status --porcelain)"
        git fsck --full --strict
        git checkout -q HEAD~{back}; test -z "$(git status --porcelain)"; git checkout -q main
        git gc -q --prune=now; git fsck --full --strict; test -z "$(git status --porcelain)"
        for c in 1 2 3; do
          for f in $(seq 40); do echo "$c $f" >> new$f; done; git add -A; git commit -qm "c $c"
        done
        git checkout -q -b side HEAD~1; echo side > side; git add side; git commit -qm side
        git merge -q -m merged main; git rebase -q main; git stash list
        git fsck --full --strict; git push -q origin side
        test "$(git -C {outside:?}/source.git rev-parse side)" = "$(git rev-parse HEAD)"
        "#,
        back = commits / 2,
    );
    shell(&script, &vdfs.dir());
}

/// Makes a bare repository on the disk whose last commit has `files` files.
fn import(repository: &Path, files: u32, commits: u32) {
    let init = ["init", "-q", "--bare", "-b", "main"];
    let made = Command::new("git").args(init).arg(repository).status();
    assert!(made.expect("git runs").success());
    let mut git = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("git runs");
    let stream = git.stdin.take().expect("piped");
    write_history(BufWriter::new(stream), files, commits).expect("git reads");
    assert!(git.wait().expect("ends").success());
}

/// Each commit adds its share of the files and changes some that are there.
fn write_history(mut to: impl Write, files: u32, commits: u32) -> io::Result<()> {
    let of_commit = |commit: u32| u64::from(files) * u64::from(commit) / u64::from(commits);
    for commit in 0..commits {
        let time = 1_700_000_000 + 60 * commit;
        let message = format!("commit {commit}");
        write!(
            to,
            "commit refs/heads/main\ncommitter n <e@x> {time} +0000\n"
        )?;
        write!(to, "data {}\n{message}\n", message.len())?;
        let (first, end) = (of_commit(commit) as u32, of_commit(commit + 1) as u32);
        let changed = (0..first).step_by((first / 20).max(1) as usize);
        for file in changed.chain(first..end) {
            let directory = file / FILES_PER_DIRECTORY;
            let text = format!("{file} as of {commit}\n").repeat(1 + file as usize % 100);
            writeln!(to, "M 100644 inline d{directory}/f{file}")?;
            write!(to, "data {}\n{text}\n", text.len())?;
        }
    }
    to.flush()
}
