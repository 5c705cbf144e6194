//! Ordinary programs, as they run on ext4. They need git, rsync, sqlite3, vim and python3, so they
//! are ignored where only Rust is at hand; the CI script installs these and runs them.

use std::fs;
use std::path::Path;

use vdfs_tests::programs::shell;
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    coreutils_and_tar,
    #[ignore = "needs rsync"]
    rsync,
    #[ignore = "needs git"]
    git,
    #[ignore = "needs sqlite3"]
    sqlite,
    #[ignore = "needs vim"]
    vim,
    #[ignore = "needs python3"]
    shared_mappings,
    cargo_build_of_a_real_crate,
);

/// Runs a script in a fresh mount, with `$OUT` a directory on the disk.
fn on_mount(way: Way, script: &str) {
    let vdfs = way.start(Options {
        ram_mib: 1024,
        ..Options::default()
    });
    let outside = vdfs.outside();
    let script = format!("OUT={outside:?}; export HOME=$OUT LC_ALL=C\n{script}");
    shell(&script, &vdfs.dir());
}

fn coreutils_and_tar(way: Way) {
    on_mount(
        way,
        r#"
        mkdir -p $OUT/src/a/b; head -c 3000000 /dev/urandom > $OUT/src/a/big
        for i in $(seq 300); do echo $i > $OUT/src/a/b/$i; done
        ln -s ../big $OUT/src/a/b/link; ln $OUT/src/a/big $OUT/src/hard
        cp -a $OUT/src copy; diff -r $OUT/src copy
        tar cf $OUT/t.tar -C copy .; mkdir un; tar xpf $OUT/t.tar -C un; diff -r $OUT/src un
        mv copy moved; test ! -e copy; chmod -R u+w,go-rwx moved
        test "$(stat -c %a moved/a/big)" = 600
        touch -d '1999-12-31 23:59:59.123456789 UTC' moved/a/big
        test "$(stat -c %.9Y moved/a/big)" = 946684799.123456789
        truncate -s 10 moved/a/b/1; test $(wc -c < moved/a/b/1) = 10
        dd if=/dev/urandom of=dd bs=64k count=30 conv=fsync status=none
        dd if=dd of=dd2 bs=64k iflag=direct oflag=direct status=none; cmp dd dd2
        test $(find . -type f | wc -l) = 606
        test $(du -s --apparent-size -B1 dd | cut -f1) = 1966080; du -s . > /dev/null
        df . > /dev/null; df -i . > /dev/null
        rm -r moved un dd dd2; test -z "$(ls -A)"
        "#,
    );
}

fn rsync(way: Way) {
    on_mount(
        way,
        r#"
        cp -a /usr/share/doc/base-files $OUT/src; rsync -aHX $OUT/src/ dst/; diff -r $OUT/src dst
        echo changed > $OUT/src/new; rsync -a --delete $OUT/src/ dst/; diff -r $OUT/src dst
        rsync -a --inplace dst/ back/; diff -r $OUT/src back
        "#,
    );
}

fn git(way: Way) {
    on_mount(
        way,
        r#"
        git config --global user.name n; git config --global user.email e@x
        git config --global init.defaultBranch main; git config --global gc.auto 0
        mkdir repo; cd repo; git init -q
        for c in $(seq 20); do
          for f in $(seq 40); do echo "$c $f" >> f$f; done; git add -A; git commit -qm "c $c"
        done
        git gc -q; git fsck --full --strict; cd ..
        git clone -q --no-hardlinks repo clone; cd clone; git fsck --full --strict
        test $(git log --oneline | wc -l) = 20; git checkout -q HEAD~5; git status --porcelain
        "#,
    );
}

fn sqlite(way: Way) {
    for mode in ["delete", "truncate", "wal"] {
        on_mount(
            way,
            &format!(
                r#"
            sqlite3 db 'pragma journal_mode={mode}; create table t(a integer primary key, b)'
            for w in 1 2 3; do
              (for i in $(seq 60); do
                sqlite3 -cmd '.timeout 20000' db "insert into t(b) values('$w $i')"; done) &
            done; wait
            test "$(sqlite3 db 'select count(*) from t')" = 180
            test "$(sqlite3 db 'pragma integrity_check')" = ok
            "#
            ),
        );
    }
}

fn vim(way: Way) {
    on_mount(
        way,
        r#"
        echo one > file; vim -u NONE -es -c '%s/one/two/' -c wq file < /dev/null
        test "$(cat file)" = two; test -z "$(ls -A | grep -v '^file$')"
        "#,
    );
}

fn shared_mappings(way: Way) {
    on_mount(
        way,
        r#"
        python3 - <<'PY'
import mmap, os
fd = os.open("m", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1_000_000)
a = mmap.mmap(fd, 1_000_000)
b = mmap.mmap(os.open("m", os.O_RDWR), 1_000_000)
for i in range(0, 1_000_000, 4099):
    a[i] = i % 251
    assert b[i] == i % 251
a.flush()
assert os.pread(fd, 1, 4099) == bytes([4099 % 251])
os.pwrite(fd, b"written", 500_000)
assert b[500_000:500_007] == b"written"
a.close(); b.close()
with open("m", "rb") as f:
    data = f.read()
assert data[8198] == 8198 % 251 and data[500_000:500_007] == b"written"
PY
        "#,
    );
}

fn cargo_build_of_a_real_crate(way: Way) {
    let vdfs = way.start(Options {
        ram_mib: 1024,
        ..Options::default()
    });
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    // A workspace of one of our own crates: its dependencies are at hand, so nothing is fetched.
    let script = format!(
        r#"
        cp -a {source:?}/vdfs-proto {source:?}/Cargo.lock .
        sed '/^members/,/^]/d; s/^default-members.*/members = ["vdfs-proto"]/' \
            {source:?}/Cargo.toml > Cargo.toml
        unset CARGO_TARGET_DIR; {cargo} build --offline --quiet
        "#,
        cargo = env!("CARGO"),
    );
    shell(&script, &vdfs.dir());
    let built = fs::read_dir(vdfs.dir().join("target/debug")).expect("lists");
    assert!(
        built
            .flatten()
            .any(|entry| entry.file_name() == "libvdfs_proto.rlib")
    );
}
