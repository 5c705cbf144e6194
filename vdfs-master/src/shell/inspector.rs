//! Inspections of a running master: one instant of the state, checked or written out on a thread of
//! its own beside the service, and handed out piece by piece.
//!
//! Invariants: one inspection at a time; one that nobody asks for ends and frees its image; so does one
//! whose image is recalled because there is no memory for what it keeps.

use std::fmt;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vdfs_proto::Status;
use vdfs_proto::meta::{Finding, Inspection, InspectionBegun, InspectionPiece};

use super::turns::Turns;
use crate::core::{Image, Progress, Recall};
use crate::disk::Disk;
use crate::meta;

/// Bytes of a dump, or findings, in one piece, about: with the rest they fit a frame body.
const PIECE_BYTES: usize = 512 << 10;
const PIECE_FINDINGS: usize = 1000;
/// Pieces that are ready before they are asked for.
const PIECES_AHEAD: usize = 2;
/// How long a question waits for its piece.
const PIECE_WAIT: Duration = Duration::from_millis(500);
/// An inspection that nobody has asked for so long is over.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Between two looks at whether a piece can be handed over.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Inspector {
    turns: Arc<Turns>,
    disk: Arc<dyn Disk>,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    last_id: u64,
    running: Option<Arc<Running>>,
}

/// An inspection, as those who ask see it; dropped, it ends.
#[derive(Debug)]
struct Running {
    id: u64,
    pieces: Mutex<Pieces>,
    /// Slots.
    progress: Mutex<Progress>,
    asked_at: Mutex<Instant>,
}

#[derive(Debug)]
struct Pieces {
    source: Receiver<InspectionPiece>,
    /// Number of the next one.
    next: u64,
    /// For a question that is asked again.
    last: InspectionPiece,
}

/// The thread's end.
struct Worker {
    running: Weak<Running>,
    recall: Recall,
    pieces: SyncSender<InspectionPiece>,
}

impl Inspector {
    pub(crate) fn new(turns: Arc<Turns>, disk: Arc<dyn Disk>) -> Inspector {
        Inspector {
            turns,
            disk,
            present: Mutex::default(),
        }
    }

    /// Takes an image and begins; what was running before ends. Blocks for as long as a turn.
    pub(crate) fn begin(&self, what: Inspection) -> Result<InspectionBegun, Status> {
        let image = self.turns.image().ok_or(Status::ShuttingDown)?;
        let (sender, source) = sync_channel(PIECES_AHEAD);
        let mut present = self.present.lock();
        present.last_id += 1;
        let id = present.last_id;
        let running = Arc::new(Running {
            id,
            pieces: Mutex::new(Pieces {
                source,
                next: 0,
                last: InspectionPiece::default(),
            }),
            progress: Mutex::default(),
            asked_at: Mutex::new(Instant::now()),
        });
        let worker = Worker {
            running: Arc::downgrade(&running),
            recall: image.recall(),
            pieces: sender,
        };
        let disk = self.disk.clone();
        let thread = std::thread::Builder::new().name("vdfs-inspection".to_owned());
        let spawned = thread.spawn(move || worker.run(what, image, &disk));
        spawned.map_err(|_| Status::Busy)?;
        present.running = Some(running);
        Ok(InspectionBegun { inspection: id })
    }

    /// Waits a little for the piece. Blocks.
    pub(crate) fn next(&self, id: u64, number: u64) -> Result<InspectionPiece, Status> {
        let running = self.present.lock().running.clone();
        let running = running.filter(|running| running.id == id);
        let running = running.ok_or(Status::NotFound)?;
        *running.asked_at.lock() = Instant::now();
        let taken = running.take(number);
        if taken.is_err() {
            self.present
                .lock()
                .running
                .take_if(|running| running.id == id);
        }
        taken
    }
}

impl Running {
    fn take(&self, number: u64) -> Result<InspectionPiece, Status> {
        let mut pieces = self.pieces.lock();
        if number + 1 == pieces.next {
            return Ok(pieces.last.clone());
        }
        if number != pieces.next {
            return Err(Status::Invalid);
        }
        let Progress { done, total } = *self.progress.lock();
        match pieces.source.recv_timeout(PIECE_WAIT) {
            Ok(piece) => {
                pieces.next += 1;
                pieces.last = InspectionPiece {
                    is_there: true,
                    done,
                    total,
                    ..piece
                };
                Ok(pieces.last.clone())
            }
            Err(RecvTimeoutError::Timeout) => Ok(InspectionPiece {
                done,
                total,
                ..InspectionPiece::default()
            }),
            // The thread has ended before its end.
            Err(RecvTimeoutError::Disconnected) => Err(Status::NotFound),
        }
    }
}

impl Worker {
    fn run(self, what: Inspection, image: Image, disk: &Arc<dyn Disk>) {
        super::lower_priority();
        let outcome = match what {
            Inspection::Check => self.check(image, disk),
            Inspection::Dump => self.dump(&image),
        };
        if let Err(Ended) = outcome {
            tracing::info!("an inspection ended before its end");
        }
    }

    fn check(&self, image: Image, disk: &Arc<dyn Disk>) -> Result<(), Ended> {
        let flaws = image.check(&mut |progress| self.note(progress));
        drop(image);
        let mut findings: Vec<Finding> = flaws.into_iter().map(meta::flaw).collect();
        findings.extend(meta::check_checkpoints(disk));
        findings.extend(meta::check_log(disk));
        let mut rest = findings.chunks(PIECE_FINDINGS).peekable();
        while let Some(findings) = rest.next() {
            self.hand_over(InspectionPiece {
                findings: findings.to_vec(),
                is_last: rest.peek().is_none(),
                ..InspectionPiece::default()
            })?;
        }
        if findings.is_empty() {
            self.hand_over(last_piece(Vec::new()))?;
        }
        Ok(())
    }

    fn dump(&self, image: &Image) -> Result<(), Ended> {
        let mut text = Text {
            worker: self,
            bytes: Vec::new(),
        };
        let written = image.dump(&mut text, &mut |progress| self.note(progress));
        written.map_err(|_| Ended)?;
        let rest = std::mem::take(&mut text.bytes);
        self.hand_over(last_piece(rest))
    }

    fn note(&self, progress: Progress) {
        if let Some(running) = self.running.upgrade() {
            *running.progress.lock() = progress;
        }
    }

    /// Waits until somebody takes it.
    fn hand_over(&self, mut piece: InspectionPiece) -> Result<(), Ended> {
        loop {
            self.check_wanted()?;
            match self.pieces.try_send(piece) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => piece = back,
                Err(TrySendError::Disconnected(_)) => return Err(Ended),
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn check_wanted(&self) -> Result<(), Ended> {
        let running = self.running.upgrade().ok_or(Ended)?;
        let is_idle = running.asked_at.lock().elapsed() > IDLE_MAX;
        match is_idle || self.recall.is_made() {
            true => Err(Ended),
            false => Ok(()),
        }
    }
}

/// Nobody wants it any more, or its image was recalled.
#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the inspection has ended")
    }
}

impl std::error::Error for Ended {}

fn last_piece(text: Vec<u8>) -> InspectionPiece {
    InspectionPiece {
        text,
        is_last: true,
        ..InspectionPiece::default()
    }
}

/// Cuts what is written into pieces.
struct Text<'a> {
    worker: &'a Worker,
    bytes: Vec<u8>,
}

impl Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= PIECE_BYTES {
            let text = std::mem::take(&mut self.bytes);
            let piece = InspectionPiece {
                text,
                ..InspectionPiece::default()
            };
            self.worker.hand_over(piece).map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
