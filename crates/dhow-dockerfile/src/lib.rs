//! Dockerfile and .dockerignore text to tree and diagnostics; no I/O.
//!
//! [`Dockerfile::parse`] returns what it understood *and* everything that is wrong with it, so one
//! run shows all mistakes. Values in the tree are as written: [`expand`] replaces their variables
//! when the environment is known, which is while the build runs.
//!
//! The way of a text: `lines` joins continuations and collects heredocs, `form` splits an instruction
//! into flags and operands, `typed` gives them their meaning, `traps` and `lint` look for what is
//! legal but unwise, and `print` writes a tree back.
#![forbid(unsafe_code)]

mod csv;
mod diagnostic;
mod directive;
mod duration;
mod expand;
mod flags;
mod form;
pub mod glob;
mod heredoc;
mod ignore;
mod instruction;
mod lines;
mod lint;
mod mount;
mod parse;
mod pattern;
mod print;
mod rule;
mod sexpr;
mod suggest;
mod traps;
mod typed;

pub use csv::fields as csv_fields;
pub use diagnostic::{Diagnostic, Severity, Span, excerpt};
pub use directive::{CheckConfig, Directives, RuleSet};
pub use expand::{ExpandError, ExpandReason, Expanded, expand, expand_heredoc, expand_words};
pub use heredoc::Heredoc;
pub use ignore::{IgnoreError, IgnoreRules, IgnoreState, RuleRef, Verdict};
pub use instruction::{
    AddInstruction, ArgInstruction, BuildArg, Command, CopyInstruction, Device, Dockerfile, FileCopy,
    Healthcheck, HealthcheckTest, Instruction, InstructionKind, KeyValue, NetworkMode, Onbuild, Pairs,
    RunInstruction, Script, Security, Stage, TrailingComment,
};
pub use mount::{Mount, MountError, MountSpec, MountType, Sharing};
pub use rule::Rule;
pub use sexpr::sexpr;
pub use suggest::suggestion;
