//! Programs at work on a mount while something fails: `cp -r`, `fio --verify`, and a transaction of
//! sqlite that stays open.

use std::time::Duration;

use vdfs_tests::workload::Scripts;

pub(crate) const WORKLOAD: Scripts = Scripts {
    sources: TREE,
    programs: &PROGRAMS,
    verify: VERIFY,
    patience: Duration::from_secs(90),
};

const PROGRAMS: [(&str, &str); 3] = [
    (
        "cp",
        r#"
        round=0
        while [ ! -e $OUT/stop ]; do
            rm -rf copy-$((round % 2)); cp -r $OUT/tree copy-$((round % 2))
            round=$((round + 1)); touch $OUT/cp.busy
        done
        test -d copy-1
        "#,
    ),
    (
        "fio",
        r#"
        while [ ! -e $OUT/stop ]; do
            touch $OUT/fio.busy
            fio --name=job --filename=data --size=24M --bs=64k --rw=randwrite --rate=6m \
                --verify=crc32c --end_fsync=1 --output=$OUT/fio.out
        done
        "#,
    ),
    (
        "sqlite",
        r#"
        sqlite3 db 'create table t(a integer primary key, b)'
        {
            # Few pages are kept in memory, so that the transaction writes all the time.
            echo 'pragma cache_size = 10; begin immediate;'
            while [ ! -e $OUT/stop ]; do
                echo "insert into t(b) values(hex(randomblob(2000)));"; echo >> $OUT/inserts
                touch $OUT/sqlite.busy; sleep 0.02
            done
            echo 'commit;'
        } | sqlite3 -bail -batch db
        "#,
    ),
];

const VERIFY: &str = r#"
    diff -r $OUT/tree cp/copy-0; diff -r $OUT/tree cp/copy-1
    fio --name=job --filename=fio/data --size=24M --bs=64k --rw=randwrite \
        --verify=crc32c --verify_only --output=$OUT/verify.out
    test "$(sqlite3 sqlite/db 'pragma integrity_check')" = ok
    test "$(sqlite3 sqlite/db 'select count(*) from t')" = "$(wc -l < $OUT/inserts)"
"#;

const TREE: &str = r#"
    mkdir -p tree/a/b; for i in $(seq 200); do echo "file $i" > tree/a/b/$i; done
    for i in $(seq 8); do head -c 1000000 /dev/urandom > tree/big-$i; done; ln -s b/7 tree/a/link
"#;
