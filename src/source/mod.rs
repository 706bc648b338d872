//! Where policies come from, and the one loop that activates them. Imports `documents`, `policy`, `snapshot` and
//! the leaves.

pub mod activate;
pub mod dir;
pub mod remote;
pub mod state;
