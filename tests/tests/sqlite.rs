//! sqlite on one mount and on two, with writers that are killed: no committed transaction is
//! missing, none is half there, and what two mounts cannot do together is refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vdfs_tests::programs::{both_streams, run};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster, within};

on_up_and_on_a_cluster!(
    wal_from_8_processes_loses_nothing,
    rollback_journal_from_two_mounts_loses_nothing,
    wal_from_a_second_mount_is_refused,
    #[ignore = "long: 10,000 transactions"]
    wal_from_8_processes_loses_nothing_long,
    #[ignore = "long: 10,000 transactions"]
    rollback_journal_from_two_mounts_loses_nothing_long,
);

fn wal_from_8_processes_loses_nothing(way: Way) {
    let vdfs = way.start(Options::default());
    let dirs = vec![vdfs.dir(); 8];
    write_and_check(&dirs, "wal", way.share(400) / 8, &vdfs.outside());
}

fn wal_from_8_processes_loses_nothing_long(way: Way) {
    let vdfs = way.start(Options::default());
    write_and_check(&vec![vdfs.dir(); 8], "wal", 10_000 / 8, &vdfs.outside());
}

fn rollback_journal_from_two_mounts_loses_nothing(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let dirs = [vdfs.dir(), second.dir(), vdfs.dir(), second.dir()];
    write_and_check(&dirs, "delete", way.share(200) / 4, &vdfs.outside());
}

fn rollback_journal_from_two_mounts_loses_nothing_long(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let dirs = [vdfs.dir(), second.dir(), vdfs.dir(), second.dir()];
    write_and_check(&dirs, "delete", 10_000 / 4, &vdfs.outside());
}

/// The index of a write-ahead log is a shared mapping, and those of two mounts cannot be one.
fn wal_from_a_second_mount_is_refused(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let (here, there) = (vdfs.dir().join("db"), second.dir().join("db"));
    query(
        &here,
        "pragma journal_mode=wal; create table rows(writer, number)",
    );
    let mut holder = Shell::begin(&here, &vdfs.outside().join("holder"));
    holder.say("insert into rows values(1, 1);\n.print ready\n");
    holder.wait_for("ready");
    for statement in ["select * from rows", "insert into rows values(2, 1)"] {
        let output = sqlite(&there)
            .arg(statement)
            .output()
            .expect("sqlite3 runs");
        assert!(!output.status.success(), "{statement} went through");
        let said = both_streams(&output);
        assert!(said.to_lowercase().contains("error"), "{said}");
    }
    query(&here, "insert into rows values(1, 2)");
    holder.say("insert into rows values(1, 3);\n.print done\n");
    holder.wait_for("done");
    holder.end();
    // Nobody has it open any more.
    within(
        "the other mount has its turn",
        Duration::from_secs(20),
        move || {
            query(&there, "insert into rows values(2, 1)");
            assert_eq!(query(&there, "select count(*) from rows"), "4");
            assert_eq!(query(&there, "pragma integrity_check"), "ok");
        },
    );
}

/// One writer for each directory; some are killed, and begin again behind what they committed.
fn write_and_check(dirs: &[PathBuf], journal_mode: &str, transactions: u32, outside: &Path) {
    let db = dirs[0].join("db");
    query(
        &db,
        &format!(
            "pragma journal_mode={journal_mode}; create table total(count); \
             insert into total values(0); \
             create table rows(writer, number, filler, primary key(writer, number))"
        ),
    );
    let mut writers: Vec<Writer> = (dirs.iter().enumerate())
        .map(|(number, dir)| Writer::begin(number, dir.join("db"), transactions, outside))
        .collect();
    // One after the other, while the rest go on.
    for writer in &mut writers {
        writer.kill_in_the_middle();
    }
    for writer in &mut writers {
        writer.finish();
    }
    check(&db, &writers);
}

fn check(db: &Path, writers: &[Writer]) {
    assert_eq!(query(db, "pragma integrity_check"), "ok");
    let rows = query(db, "select writer, number from rows");
    let rows: Vec<&str> = rows.lines().collect();
    let total = query(db, "select count from total");
    assert_eq!(total, rows.len().to_string(), "a transaction is half there");
    for writer in writers {
        for number in writer.committed() {
            let row = format!("{}|{number}", writer.number);
            assert!(rows.contains(&row.as_str()), "{row} was committed");
        }
        assert!(writer.is_done(), "{}", writer.shell.said());
    }
}

/// A process that commits transactions one by one, and prints the number of each when it has.
struct Writer {
    number: usize,
    transactions: u32,
    outside: PathBuf,
    shell: Shell,
}

impl Writer {
    fn begin(number: usize, db: PathBuf, transactions: u32, outside: &Path) -> Writer {
        let list = outside.join(format!("committed-{number}"));
        let mut writer = Writer {
            number,
            shell: Shell::begin(&db, &list),
            transactions,
            outside: outside.to_path_buf(),
        };
        writer.write_from(1);
        writer
    }

    fn write_from(&mut self, first: u32) {
        let writer = self.number;
        let script: String = (first..=self.transactions)
            .map(|number| {
                // One that was killed may have committed what it did not come to print.
                format!(
                    "begin immediate;\n\
                     update total set count = count + 1 where not exists \
                     (select 1 from rows where writer = {writer} and number = {number});\n\
                     insert or ignore into rows \
                     values({writer}, {number}, randomblob({number} * 37 % 3000));\n\
                     commit;\n.print {number}\n"
                )
            })
            .collect();
        // From a file, so that nobody has to feed it.
        let path = self.outside.join(format!("script-{writer}"));
        fs::write(&path, script).expect("writes");
        self.shell
            .say(&format!(".read {}\n.quit\n", path.display()));
    }

    fn committed(&self) -> Vec<u32> {
        let said = self.shell.said();
        said.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn is_done(&self) -> bool {
        self.committed().last() == Some(&self.transactions)
    }

    fn kill_in_the_middle(&mut self) {
        let before = self.committed().len();
        let goes_on = || self.committed().len() > before + 2 || self.is_done();
        vdfs_tests::eventually("it commits", Duration::from_secs(120), goes_on);
        if self.is_done() {
            return;
        }
        self.shell.kill();
        let last = self.committed().last().copied().unwrap_or(0);
        self.shell = self.shell.again();
        self.write_from(last + 1);
    }

    fn finish(&mut self) {
        self.shell.end();
    }
}

/// An sqlite3 that reads commands from a pipe, and whose output goes to a file line by line.
struct Shell {
    db: PathBuf,
    output: PathBuf,
    child: Child,
}

impl Shell {
    fn begin(db: &Path, output: &Path) -> Shell {
        File::create(output).expect("the output can be made");
        Shell::start(db, output)
    }

    /// Another one that goes on in the same output.
    fn again(&self) -> Shell {
        Shell::start(&self.db, &self.output)
    }

    fn start(db: &Path, output: &Path) -> Shell {
        let log = File::options().append(true).open(output).expect("opens");
        let errors = log.try_clone().expect("a descriptor");
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "sqlite3", "-bail", "-cmd", BUSY])
            .arg(db);
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        Shell {
            db: db.to_path_buf(),
            output: output.to_path_buf(),
            child: command.spawn().expect("sqlite3 and stdbuf run"),
        }
    }

    fn say(&mut self, commands: &str) {
        use std::io::Write;
        let pipe = self.child.stdin.as_mut().expect("piped");
        pipe.write_all(commands.as_bytes()).expect("it reads");
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).expect("reads")
    }

    fn wait_for(&self, line: &str) {
        let is_there = || self.said().lines().any(|said| said == line);
        vdfs_tests::eventually(line, Duration::from_secs(60), is_there);
    }

    fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("has ended");
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("ends");
        assert!(status.success(), "{status}: {}", self.said());
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Most often it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How long a command waits for the locks of others.
const BUSY: &str = ".timeout 120000";

fn sqlite(db: &Path) -> Command {
    let mut command = Command::new("sqlite3");
    command.args(["-bail", "-cmd", BUSY]).arg(db);
    command
}

fn query(db: &Path, statements: &str) -> String {
    let db = db.to_str().expect("plain");
    let args = ["-bail", "-cmd", BUSY, db, statements];
    let output = run("sqlite3", &args, Path::new("/"));
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim_end().to_owned()
}
