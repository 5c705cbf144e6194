//! Random operations on one file against a vector, while requests get lost.

use bytes::Bytes;
use proptest::prelude::*;
use vdfs_client::{AttrChanges, Fs, WriteFlags};
use vdfs_proto::session::Right;
use vdfs_proto::{HandleId, Ino, Status};

use crate::fake::{Fake, Fault, regular};
use crate::writing::WRITER;

const SIZE_MAX: u64 = 400_000;

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u64, len: usize },
    Append { len: usize },
    Read { offset: u64, len: u32 },
    Truncate { size: u64 },
    Flush,
    Recall,
    Fault(&'static str, FaultKind),
}

#[derive(Clone, Copy, Debug)]
enum FaultKind {
    Lost,
    AnswerLost,
    Epoch,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        Just(FaultKind::Lost),
        Just(FaultKind::AnswerLost),
        Just(FaultKind::Epoch)
    ];
    let name = prop_oneof![
        Just("Write"),
        Just("Read"),
        Just("Commit"),
        Just("Truncate"),
        Just("GetLayout"),
        Just("NextEvents")
    ];
    prop_oneof![
        6 => (0..SIZE_MAX / 2, 1usize..100_000).prop_map(|(offset, len)| Step::Write { offset, len }),
        2 => (1usize..2000).prop_map(|len| Step::Append { len }),
        5 => (0..SIZE_MAX, 1u32..200_000).prop_map(|(offset, len)| Step::Read { offset, len }),
        2 => (0..SIZE_MAX / 2).prop_map(|size| Step::Truncate { size }),
        1 => Just(Step::Truncate { size: 0 }),
        1 => Just(Step::Flush),
        1 => Just(Step::Recall),
        3 => (name, kind).prop_map(|(name, kind)| Step::Fault(name, kind)),
    ]
}

struct Run {
    fake: Fake,
    fs: Fs,
    ino: Ino,
    handle: HandleId,
    model: Vec<u8>,
}

impl Run {
    async fn take(&mut self, number: usize, step: Step) -> Result<(), Status> {
        let fill = number as u8 + 1;
        match step {
            Step::Write { offset, len } => {
                let end = offset as usize + len;
                self.model.resize(self.model.len().max(end), 0);
                self.model[offset as usize..end].fill(fill);
                self.write(offset, vec![fill; len], WriteFlags::default())
                    .await?;
            }
            Step::Append { len } => {
                self.model.extend(vec![fill; len]);
                let flags = WriteFlags {
                    append: true,
                    ..WriteFlags::default()
                };
                self.write(0, vec![fill; len], flags).await?;
            }
            Step::Read { offset, len } => {
                let read = self.fs.read(self.handle, offset, len).await?;
                let start = self.model.len().min(offset as usize);
                let end = self.model.len().min(start + len as usize);
                assert!(read == self.model[start..end], "read of {len} at {offset}");
            }
            Step::Truncate { size } => {
                self.model.resize(size as usize, 0);
                let changes = AttrChanges {
                    size: Some(size),
                    ..AttrChanges::default()
                };
                self.fs.set_attr(self.ino, changes).await?;
            }
            Step::Flush => self.fs.flush(self.handle).await?,
            Step::Recall => {
                let recall = self.fake.recall(self.ino, Right::Layout);
                self.fake.until_recalled(recall).await;
            }
            Step::Fault(_, FaultKind::Epoch) => self.fake.bump_epoch(),
            Step::Fault(name, FaultKind::Lost) => self.fake.fail(name, Fault::Lost),
            Step::Fault(name, FaultKind::AnswerLost) => self.fake.fail(name, Fault::AnswerLost),
        }
        Ok(())
    }

    async fn write(&self, offset: u64, bytes: Vec<u8>, flags: WriteFlags) -> Result<(), Status> {
        let len = bytes.len() as u32;
        let written = self
            .fs
            .write(self.handle, offset, Bytes::from(bytes), flags)
            .await?;
        assert_eq!(written, len);
        let attr = self.fs.getattr(self.ino).await?;
        assert_eq!(attr.size, self.model.len() as u64);
        Ok(())
    }
}

async fn run(steps: Vec<Step>) {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let mut run = Run {
        fake,
        fs,
        ino: attr.ino,
        handle: open.handle,
        model: Vec::new(),
    };
    for (number, step) in steps.into_iter().enumerate() {
        run.take(number, step).await.expect("faults are retried");
    }
    run.fs.flush(run.handle).await.expect("faults are retried");
    assert!(run.fake.bytes(run.ino) == run.model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn file_agrees_with_a_vector(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(run(steps));
    }
}
