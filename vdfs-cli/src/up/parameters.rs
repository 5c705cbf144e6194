//! What a filesystem was made with, kept in `up.toml`, and what a later start may change.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vdfs_proto::ChunkSize;

use crate::state_files::PARAMETERS_FILE;
use vdfs_program::{Blame, Failure, Size, human};

/// RAM of one volume below which it cannot hold its own tables and a few files.
const VOLUME_BYTES_MIN: u64 = 16 << 20;

/// What the master may take at least, in bytes: half a million names.
const NAMES_BYTES_MIN: u64 = 256 << 20;

/// What a start asks for; `None` takes what is in force, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Absolute.
    pub(super) dir: PathBuf,
    pub(super) ram: Option<Size>,
    pub(super) volumes: Option<u32>,
    pub(super) chunk_size: Option<ChunkSize>,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) dir: PathBuf,
    /// Over all volumes.
    pub(super) ram: Size,
    pub(super) volumes: u32,
    pub(super) chunk_size: ChunkSize,
}

/// `up.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParametersFile {
    dir: PathBuf,
    ram: Size,
    volumes: u32,
    chunk_size: Size,
}

/// How much memory there is to decide by, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Free for the taking.
    pub(super) available: u64,
    /// Held by this filesystem's files already.
    pub(super) in_use: u64,
}

impl Memory {
    fn budget_max(self) -> u64 {
        self.available + self.in_use
    }

    /// A quarter of what can be had, in whole MiB.
    fn default_ram(self) -> Size {
        Size((self.budget_max() / 4) >> 20 << 20)
    }
}

impl Parameters {
    /// What a start with `wishes` runs with, on what `old` says is there.
    pub(super) fn resolve(
        old: Option<Parameters>,
        wishes: &Wishes,
        memory: Memory,
    ) -> Result<Parameters, Failure> {
        let parameters = match old {
            None => Parameters::first(wishes, memory),
            Some(old) => old.changed(wishes)?,
        };
        parameters.check_ram(memory)?;
        Ok(parameters)
    }

    fn first(wishes: &Wishes, memory: Memory) -> Parameters {
        Parameters {
            dir: wishes.dir.clone(),
            ram: wishes.ram.unwrap_or_else(|| memory.default_ram()),
            volumes: wishes.volumes.unwrap_or(1),
            chunk_size: wishes.chunk_size.unwrap_or(ChunkSize::DEFAULT),
        }
    }

    fn changed(self, wishes: &Wishes) -> Result<Parameters, Failure> {
        let chunk_size = wishes.chunk_size.unwrap_or(self.chunk_size);
        if chunk_size != self.chunk_size {
            return Err(Failure::new(
                format!("--chunk-size {}", chunk_text(chunk_size)),
                format!(
                    "the filesystem was made with {}",
                    chunk_text(self.chunk_size)
                ),
            )
            .way_out("leave the option out, or start empty with --fresh"));
        }
        let volumes = wishes.volumes.unwrap_or(self.volumes);
        if volumes < self.volumes {
            return Err(Failure::new(
                format!("--volumes {volumes}"),
                format!("the filesystem has files on {} volumes", self.volumes),
            )
            .way_out("ask for as many or more, or start empty with --fresh"));
        }
        let ram = wishes.ram.unwrap_or(self.ram);
        Ok(Parameters {
            dir: wishes.dir.clone(),
            ram,
            volumes,
            chunk_size,
        })
    }

    fn check_ram(&self, memory: Memory) -> Result<(), Failure> {
        let what = format!("--ram {}", self.ram);
        if self.ram.0 > memory.budget_max() {
            let available = human(memory.budget_max());
            return Err(
                Failure::new(what, format!("only {available} of memory are available"))
                    .way_out("ask for less with --ram SIZE"),
            );
        }
        if self.ram.0 < memory.in_use {
            let why = format!("its files hold {}", human(memory.in_use));
            return Err(Failure::new(what, why).way_out("ask for more, or start with --fresh"));
        }
        if self.volume_budget_bytes() < VOLUME_BYTES_MIN {
            let least = human(VOLUME_BYTES_MIN * u64::from(self.volumes));
            return Err(
                Failure::new(what, format!("too little for {} volumes", self.volumes))
                    .way_out(format!("give it at least {least}")),
            );
        }
        Ok(())
    }

    /// The share of one volume.
    pub(super) fn volume_budget_bytes(&self) -> u64 {
        self.ram.0 / u64::from(self.volumes)
    }

    /// What the master may take beside the volumes. A file of any bytes takes ten times as much of a
    /// volume as its name takes here.
    pub(super) fn names_bytes(&self) -> u64 {
        (self.ram.0 / 8).max(NAMES_BYTES_MIN)
    }

    /// `None` if nothing has been started with this state directory.
    pub(super) fn load(state: &Path) -> Result<Option<Parameters>, Failure> {
        let path = state.join(PARAMETERS_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(path.display(), error)),
        };
        let file: ParametersFile = toml::from_str(&text).blame(path.display())?;
        let chunk_size = ChunkSize::new(file.chunk_size.0).blame(format!(
            "{}: chunk_size {}",
            path.display(),
            file.chunk_size
        ))?;
        if file.volumes == 0 {
            return Err(Failure::new(path.display(), "volumes is 0"));
        }
        let ParametersFile {
            dir, ram, volumes, ..
        } = file;
        Ok(Some(Parameters {
            dir,
            ram,
            volumes,
            chunk_size,
        }))
    }

    /// Replaces the file whole.
    pub(super) fn save(&self, state: &Path) -> Result<(), Failure> {
        let file = ParametersFile {
            dir: self.dir.clone(),
            ram: self.ram,
            volumes: self.volumes,
            chunk_size: Size(u64::from(self.chunk_size.bytes())),
        };
        let path = state.join(PARAMETERS_FILE);
        let text = toml::to_string(&file).blame(path.display())?;
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).blame(beside.display())?;
        std::fs::rename(&beside, &path).blame(path.display())
    }
}

fn chunk_text(size: ChunkSize) -> Size {
    Size(u64::from(size.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Memory = Memory {
        available: 8 << 30,
        in_use: 0,
    };

    fn wishes() -> Wishes {
        Wishes {
            dir: "/mnt".into(),
            ..Wishes::default()
        }
    }

    fn old() -> Parameters {
        Parameters {
            dir: "/old".into(),
            ram: Size(1 << 30),
            volumes: 2,
            chunk_size: ChunkSize::MIN,
        }
    }

    fn refusal(old: Option<Parameters>, wishes: &Wishes, memory: Memory) -> String {
        Parameters::resolve(old, wishes, memory)
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn resolve_of_a_first_start_takes_a_quarter_of_the_memory() {
        let parameters = Parameters::resolve(None, &wishes(), MEMORY).expect("fits");
        assert_eq!(parameters.ram, Size(2 << 30));
        assert_eq!(
            (parameters.volumes, parameters.chunk_size),
            (1, ChunkSize::DEFAULT)
        );
    }

    #[test]
    fn resolve_of_a_later_start_keeps_what_is_not_named() {
        let parameters = Parameters::resolve(Some(old()), &wishes(), MEMORY).expect("fits");
        assert_eq!(
            parameters,
            Parameters {
                dir: "/mnt".into(),
                ..old()
            }
        );
    }

    #[test]
    fn resolve_refuses_what_cannot_be_changed() {
        let fewer = Wishes {
            volumes: Some(1),
            ..wishes()
        };
        assert!(refusal(Some(old()), &fewer, MEMORY).contains("on 2 volumes"));
        let other_chunks = Wishes {
            chunk_size: Some(ChunkSize::MAX),
            ..wishes()
        };
        let line = refusal(Some(old()), &other_chunks, MEMORY);
        assert!(line.starts_with("--chunk-size 256MiB: the filesystem was made with 64KiB"));
    }

    #[test]
    fn resolve_refuses_ram_that_is_not_there_or_does_not_hold_the_files() {
        let ram = |size| Wishes {
            ram: Some(Size(size)),
            ..wishes()
        };
        let line = refusal(None, &ram(100 << 40), MEMORY);
        assert!(
            line.starts_with("--ram 100TiB: only 8 GiB of memory are available"),
            "{line}"
        );
        let held = Memory {
            available: 8 << 30,
            in_use: 600 << 20,
        };
        let line = refusal(Some(old()), &ram(512 << 20), held);
        assert!(
            line.starts_with("--ram 512MiB: its files hold 600 MiB"),
            "{line}"
        );
        let line = refusal(None, &ram(1 << 20), MEMORY);
        assert!(line.contains("at least 16 MiB"), "{line}");
        // What its files hold already need not be available once more.
        let full = Memory {
            available: 1 << 20,
            in_use: 1 << 30,
        };
        assert!(Parameters::resolve(Some(old()), &wishes(), full).is_ok());
    }

    #[test]
    fn parameters_load_what_was_saved() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        assert_eq!(Parameters::load(scratch.path()), Ok(None));
        old().save(scratch.path()).expect("saves");
        assert_eq!(Parameters::load(scratch.path()), Ok(Some(old())));
    }

    #[test]
    fn parameters_with_unknown_keys_are_refused() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        std::fs::write(scratch.path().join(PARAMETERS_FILE), "colour = 1\n").expect("writes");
        assert!(Parameters::load(scratch.path()).is_err());
    }
}
