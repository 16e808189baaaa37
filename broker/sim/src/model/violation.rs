//! What the model says when something cannot be.

use std::fmt;

/// A property that does not hold, with the evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What must hold.
    pub property: &'static str,
    /// What was seen instead.
    pub evidence: String,
}

impl Violation {
    pub(crate) fn new(property: &'static str, evidence: impl Into<String>) -> Self {
        Self { property, evidence: evidence.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.evidence)
    }
}
