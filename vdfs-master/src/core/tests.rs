//! The core as its shell sees it: inputs in, effects out.

mod accesses;
mod acls;
mod append;
mod budgeting;
mod chaos;
mod cluster;
mod copies;
pub(crate) mod dumping;
mod exact;
mod healing;
mod locking;
mod membership;
mod moving;
mod names;
mod reaping;
mod replay;
mod retries;
mod session_life;
mod sharing;
mod speed;
mod surveying;
mod taking_over;
mod truncating;
mod volume_life;
mod world;
