//! The chunk store on a real tmpfs.

mod budget;
mod crash;
mod damage;
mod fixture;
mod kill;
mod model;
mod refusals;
mod retry;
mod speed;
