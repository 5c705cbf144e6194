//! Ordinary programs, as they run on ext4. They need rsync, vim, python3 and others, so they are
//! ignored where only Rust is at hand; the CI script installs these and runs them.

use std::fs;
use std::path::Path;

use vdfs_tests::programs::shell;
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    coreutils_and_tar,
    #[ignore = "needs rsync and python3"]
    copies_keep_links_attributes_and_holes,
    #[ignore = "needs vim"]
    vim,
    #[ignore = "needs python3"]
    shared_mappings,
    #[ignore = "needs python3"]
    databases_and_mailboxes_of_python,
    #[ignore = "needs make, zip and unzip"]
    parallel_make_and_archives,
    #[ignore = "needs python3"]
    tree_of_many_small_files,
    #[ignore = "long; needs PostgreSQL"]
    postgresql_survives_a_crash_long,
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

/// A tree with everything that a copy may lose, in `$OUT/src`, and a look at a copy of it.
const TREE: &str = r#"
    mkdir -p $OUT/src/a/b/e; cd $OUT/src
    head -c 3000000 /dev/urandom > a/big; ln a/big hard; ln -s ../big a/b/link
    truncate -s 20M a/sparse; printf end >> a/sparse; mkfifo a/fifo
    for i in $(seq 200); do echo $i > a/b/$i; done
    chmod 4755 a/b/1; chown 12:34 a/b/2; chmod 1777 a/b/e
    find . -exec touch -hd '2001-02-03 UTC' {} +
    touch -d '1999-01-02 03:04:05.123456789 UTC' a/b/3
    python3 -c "import os; os.setxattr('a/b/4', 'user.k', b'v'); os.setxattr('a', 'user.d', b'd')"
    cd - > /dev/null
    assert_copy() {
        diff -r --no-dereference -x fifo $OUT/src $1; test -p $1/a/fifo
        for f in a/b/1 a/b/2 a/b/3 a/b/e a/sparse a/b/link hard; do
            test "$(stat -c '%a %u %g %y %h' $OUT/src/$f)" = "$(stat -c '%a %u %g %y %h' $1/$f)"
        done
        test $(stat -c %i $1/hard) = $(stat -c %i $1/a/big)
        python3 - $1 <<'PY'
import os, sys
assert os.getxattr(sys.argv[1] + "/a/b/4", "user.k") == b"v"
assert os.getxattr(sys.argv[1] + "/a", "user.d") == b"d"
PY
    }
"#;

fn copies_keep_links_attributes_and_holes(way: Way) {
    on_mount(
        way,
        &format!(
            r#"
        {TREE}
        rsync -aHX --sparse --delete $OUT/src/ r/; assert_copy r
        test -z "$(rsync -aHX --delete -ni --checksum $OUT/src/ r/)"
        rm $OUT/src/a/b/9; echo changed > $OUT/src/new
        rsync -aHX --delete $OUT/src/ r/; assert_copy r
        rsync -aHX --inplace r/ $OUT/back/; assert_copy $OUT/back
        cp -a r c; assert_copy c
        tar --xattrs --sparse -cf t.tar -C r .; mkdir t
        tar --xattrs --xattrs-include='*' --sparse -xpf t.tar -C t; assert_copy t
        tar --compare -f t.tar -C t
        mv c $OUT/c; assert_copy $OUT/c
        cp --sparse=always r/a/sparse s; cmp s r/a/sparse
        "#
        ),
    );
}

fn vim(way: Way) {
    on_mount(
        way,
        r#"
        echo one > file; vim -u NONE -es -c '%s/one/two/' -c wq file < /dev/null
        test "$(cat file)" = two; test -z "$(ls -A | grep -v '^file$')"
        vim -u NONE -N -c 'set directory=. updatecount=1' -c 'normal ihello' -c preserve \
            -c 'call system("kill -9 ".getpid())' file < /dev/null > /dev/null 2>&1 || true
        test "$(cat file)" = two; test -f .file.swp
        vim -u NONE -N -es -c recover -c 'wq! file2' file < /dev/null || true
        test "$(cat file2)" = hellotwo
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

fn databases_and_mailboxes_of_python(way: Way) {
    on_mount(
        way,
        r#"
        python3 - <<'PY'
import dbm.dumb, dbm, mailbox, os, shelve, socket, tempfile
for kind in ("dbm.gnu", "dbm.ndbm", "dbm.dumb"):
    try:
        module = __import__(kind, fromlist=["open"])
    except ImportError:
        continue
    with module.open(kind, "c") as db:
        for i in range(500):
            db[str(i)] = str(i) * 20
        for i in range(0, 500, 3):
            del db[str(i)]
    with module.open(kind, "r") as db:
        assert len(db.keys()) == 333 and db["1"] == b"1" * 20
with shelve.open("shelf") as shelf:
    for i in range(100):
        shelf[str(i)] = list(range(i))
with shelve.open("shelf") as shelf:
    assert shelf["99"] == list(range(99))
mailbox.Maildir("maildir").add("Subject: x\n\ny")
assert len(mailbox.Maildir("maildir")) == 1
box = mailbox.mbox("mbox")
box.lock(); box.add("Subject: x\n\ny"); box.flush(); box.unlock()
server = socket.socket(socket.AF_UNIX)
server.bind("socket"); server.listen()
socket.socket(socket.AF_UNIX).connect("socket")
with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"x" * 100_000); file.seek(0)
    assert len(file.read()) == 100_000
PY
        "#,
    );
}

fn parallel_make_and_archives(way: Way) {
    on_mount(
        way,
        r#"
        mkdir made; cd made; echo 'extern int x;' > h.h; echo 'int main() { return 0; }' > main.c
        for i in $(seq 40); do printf '#include "h.h"\nint f%d() { return %d; }' $i $i > f$i.c; done
        {
            echo 'OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))'
            echo 'program: $(OBJECTS); $(CC) -o $@ $^'
            echo '%.o: %.c h.h; $(CC) -c -o $@ $<'
        } > Makefile
        make -s -j8; ./program; make | grep -q 'up to date'
        touch h.h; test $(make -j8 | wc -l) = 42
        ar rcs lib.a f*.o; gcc -g -o static main.c lib.a; strip static; ./static
        gcc -shared -fPIC -o lib.so f1.c; test -n "$(nm -D lib.so | grep f1)"
        zip -qr ../made.zip .; cd ..; unzip -q made.zip -d unzipped; diff -r made unzipped
        unzip -tq made.zip; gzip -k made.zip; gunzip -c made.zip.gz | cmp - made.zip
        split -b 10k made.zip part; cat part* | cmp - made.zip
        sort -S 100k -T . -R made/*.c > /dev/null; sed -i s/int/long/ made/f1.c
        flock lock -c 'grep -q long made/f1.c'
        "#,
    );
}

fn tree_of_many_small_files(way: Way) {
    on_mount(
        way,
        r#"
        python3 - <<'PY'
import os
os.makedirs("tree/.bin")
for package in range(100):
    directory = f"tree/package{package}/lib/x"
    os.makedirs(directory)
    for i in range(12):
        with open(f"{directory}/i{i}.js", "w") as file:
            file.write(f"module.exports = {i}\n" * 10)
    os.symlink(f"../package{package}/lib/x/i0.js", f"tree/.bin/{package}")
PY
        mv tree .old; mv .old tree; test $(find tree -type f | wc -l) = 1200
        test $(cat tree/.bin/* | wc -l) = 1000
        cp -al tree linked; test $(find linked -type f -links 2 | wc -l) = 1200
        rm -rf tree linked; test -z "$(ls -A)"
        "#,
    );
}

fn postgresql_survives_a_crash_long(way: Way) {
    on_mount(
        way,
        r#"
        programs=$(dirname /usr/lib/postgresql/*/bin/initdb); mkdir pg; chown postgres pg
        chmod 755 . $OUT
        as() { setpriv --reuid postgres --regid postgres --clear-groups -- "$@"; }
        start() {
            as $programs/pg_ctl -D pg/data -w -l pg/log start \
                -o "-k $PWD/pg -c listen_addresses=" > /dev/null
        }
        as $programs/initdb -D pg/data > /dev/null; start
        as $programs/createdb -h $PWD/pg b
        as $programs/pgbench -h $PWD/pg -i -s 5 -q b
        as $programs/pgbench -h $PWD/pg -c 4 -T 20 b
        as $programs/pgbench -h $PWD/pg -c 4 -T 60 b & sleep 10
        as $programs/pg_ctl -D pg/data -m immediate stop; wait $! || true
        start
        test "$(as $programs/psql -h $PWD/pg -tA b -c 'select
            (select sum(bbalance) from pgbench_branches) =
            (select sum(abalance) from pgbench_accounts) and
            (select sum(bbalance) from pgbench_branches) =
            (select sum(tbalance) from pgbench_tellers)')" = t
        as $programs/pg_dump -h $PWD/pg b > dump; as $programs/pg_ctl -D pg/data -m fast stop
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
