//! The edge: the gRPC service, its health and reflection, the listeners and the admin endpoint. Imports
//! `authorizer` and below; the generated types stay in `convert`, `explain`,
//! `status`, `stream` and the signatures of `grpc`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub mod accept;
pub mod admin;
mod answer;
pub mod connections;
pub mod convert;
mod direct;
pub mod explain;
pub mod grpc;
pub mod health;
pub mod limits;
pub mod listen;
pub mod message;
pub mod record;
pub mod spiffe;
pub mod status;
mod stream;
pub mod tls;
mod trace;

pub use trace::code_name;

/// Where a started process listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC over TCP.
    pub tcp: Option<SocketAddr>,
    /// gRPC over a Unix socket.
    pub uds: Option<PathBuf>,
    /// The admin endpoint.
    pub admin: Option<SocketAddr>,
}

/// How a caller came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over the Unix socket.
    Unix,
    /// Over TCP.
    Tcp,
}

impl Transport {
    /// The word in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        }
    }
}

impl Addresses {
    /// The Unix socket.
    pub fn uds(&self) -> Option<&Path> {
        self.uds.as_deref()
    }
}
