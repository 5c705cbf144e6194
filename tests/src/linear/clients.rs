//! The handle of a process with clients.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::history::Record;
use super::worker::Work;
use crate::deadline::eventually;
use crate::programs;

/// How long the calls may take that are under way when clients are told to end.
const END_LIMIT: Duration = Duration::from_secs(90);

/// Clients at work; killed when dropped.
#[derive(Debug)]
pub struct Clients {
    child: Child,
    returned: Arc<AtomicU64>,
    reader: Option<JoinHandle<Vec<Record>>>,
}

impl Clients {
    pub fn start(work: &Work) -> Clients {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(programs::linear()).arg("work").arg(&work.dir);
        let numbers = [
            ("--mount", u64::from(work.mount)),
            ("--first-client", u64::from(work.first_client)),
            ("--clients", u64::from(work.clients)),
            ("--seed", work.seed),
            ("--beat-ms", work.beat.as_millis() as u64),
        ];
        for (option, number) in numbers {
            command.arg(option).arg(number.to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the clients start");
        let stdout = child.stdout.take().expect("stdout is piped");
        let returned = Arc::<AtomicU64>::default();
        let count = Arc::clone(&returned);
        Clients {
            child,
            returned,
            reader: Some(thread::spawn(move || follow(stdout, &count))),
        }
    }

    /// How many calls have returned by now.
    pub fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }

    /// Ends the clients behind their calls; gives all of these.
    pub fn finish(mut self) -> Vec<Record> {
        drop(self.child.stdin.take());
        let mut status: Option<ExitStatus> = None;
        eventually("the clients end", END_LIMIT, || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        self.records()
    }

    /// `kill -9`; gives all calls, also those that were under way.
    pub fn kill9(mut self) -> Vec<Record> {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("a child can be waited for");
        self.records()
    }

    fn records(&mut self) -> Vec<Record> {
        let reader = self.reader.take().expect("ended once");
        reader.join().expect("the reader does not panic")
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.child.kill());
        if self.reader.is_none() {
            drop(self.child.wait());
        }
    }
}

/// Collects what the process says; a call that has returned takes the place of its begin.
fn follow(stdout: impl Read, returned: &AtomicU64) -> Vec<Record> {
    let mut under_way = BTreeMap::new();
    let mut records = Vec::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        // The last line of a process that was killed may be half there.
        let Ok(record) = serde_json::from_str::<Record>(&line) else {
            continue;
        };
        if record.ended.is_none() {
            under_way.insert(record.client, record);
        } else {
            under_way.remove(&record.client);
            records.push(record);
            returned.fetch_add(1, Ordering::Relaxed);
        }
    }
    records.extend(under_way.into_values());
    records
}
