//! Conditions: the language of Azure ABAC conditions, version 2.0, whole (semantics, section 3).
//!
//! ```text
//! text ── parse ──▶ Condition (syntax tree) ── compile ──▶ Program (bytes) ── evaluate(context) ──▶ Truth
//!           └─ diagnostics                  └─ explain(context) ──▶ the truth of every clause
//! ```
//!
//! A program is self-contained and position-independent, to be copied into the buffer of a compiled policy and
//! evaluated there, without allocation and under a step budget. Imports `model` only; `documents`, `policy`,
//! `server` and `cli` may import it.

pub mod ast;
mod check;
mod compile;
mod evaluate;
mod explain;
mod lexer;
mod operator;
mod parser;
mod program;
mod scalar;
#[cfg(test)]
mod tests;
mod text;

pub use compile::compile;
pub use evaluate::{Budget, Context, EvalError, Truth, Verdict, evaluate, evaluate_until};
pub use explain::{Explained, Joined, Read, ReadValue, explain};
pub use operator::{Family, Operator, Quantifier};
pub use parser::{
    CONDITION_VERSION, Diagnostic, EXTENSIONS_SETTING, Extensions, MAX_CONDITION_BYTES, MAX_NESTING, Mode,
    Parsed, check_version, parse,
};
pub use program::{Damaged, Program, ProgramRef, Uses};
