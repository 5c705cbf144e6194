//! The chunk store on a real tmpfs.

mod budget;
mod concurrent;
mod crash;
mod damage;
mod fixture;
mod kill;
mod merge;
mod model;
mod plan;
mod refusals;
mod retry;
mod speed;
