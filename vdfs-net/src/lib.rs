//! How VDFS processes reach one another: requests with a deadline go in, responses come out.
//!
//! The layer does not know which operation it carries. Two carriers stand behind one trait:
//! [`quic`] between processes, always under mutual TLS, and [`in_process`] between the parts of one
//! process. A handler cannot tell which one a request came over.
//!
//! Beside the carriers lives what every process needs before it can reach another: its
//! [`identity`], its [`state_dir`], the [`host`] it runs on, the [`address`] it is reached at, the
//! [`clock`] that leases go by, and the [`buffers`] that payloads lie in.

pub mod address;
pub mod buffers;
pub mod carrier;
pub mod clock;
pub mod host;
pub mod identity;
pub mod in_process;
pub mod limits;
pub mod quic;
pub mod rotation;
pub mod rpc;
mod socket;
pub mod state_dir;
mod sys;

pub use carrier::{
    Begun, Carrier, Connector, LateMessage, Outcome, PeerIdentity, Request, Response, Service,
    Target,
};
pub use identity::{Authority, Identity, IdentityError, Issuer};
pub use quic::{DialFailure, Profile, QuicConfig, QuicEndpoint, StartError};
pub use rotation::Rotation;
pub use state_dir::{StateDir, StateError};
