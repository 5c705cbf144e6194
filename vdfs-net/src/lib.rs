//! How VDFS processes reach one another: requests with a deadline go in, responses come out.
//!
//! The layer does not know which operation it carries. Two carriers stand behind one trait:
//! [`quic`] between processes, always under mutual TLS, and [`in_process`] between the parts of one
//! process. A handler cannot tell which one a request came over.

pub mod carrier;
pub mod in_process;
pub mod quic;
pub mod rpc;

pub use carrier::{Carrier, Connector, Outcome, PeerIdentity, Request, Response, Service, Target};
