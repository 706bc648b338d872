//! Agents that act for people: what one may do by itself, what it must ask for, and where it ends (semantics,
//! section 6).
//!
//! ```text
//! boundary ── outside ──▶ refused                 (before any prompt)
//!    │ inside
//! agent's own check ── denied ──▶ refused
//!    │ allowed or not
//! one of eight cells ── prompts, answered one by one ──▶ run as agent, run as user, refused or waiting
//! ```
//!
//! Pure: checks are the ordinary ones and asked through [`Checks`]; an approval is never a grant, since what
//! counts is what the checks say when everything is answered. Imports `model` only; whatever reads agents or
//! answers requests that carry an agent's context may import it.

mod description;
mod flow;
mod users;

pub use crate::model::{AgentLevel as Level, AgentMode as Mode};
pub use description::{Agent, AgentOptions, Answerer, GroupAdded, GroupError, GroupRemoved, LevelRole};
pub use flow::{Access, Actor, Ask, Checks, Flow, Kind, Outcome, Reason, Responses, Step, Waiting, steps};
pub use users::{UserContext, may_create, may_use};
