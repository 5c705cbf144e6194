//! The QUIC carrier.
