//! The generated contract (`proto/postern/v1`): messages, client and server. Spoken by `server` at the edge and
//! by the client side of `cli`; nothing else imports it.

/// Version 1.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::large_enum_variant,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("postern.v1");
}

/// The descriptors of the contract, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
