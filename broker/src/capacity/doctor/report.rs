//! Findings, and how they are printed: a line each with its advice below, or a JSON array.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The broker runs, but not as well as it could.
    Warning,
    /// The broker does not start, or cannot do what it was asked.
    Problem,
}

/// What one look found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How bad it is.
    pub status: Status,
    /// How it is.
    pub value: String,
    /// What mends it.
    pub advice: Option<String>,
}

impl Finding {
    pub(crate) fn ok(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, value: value.into(), advice: None }
    }

    pub(crate) fn warning(name: &'static str, value: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Status::Warning, value: value.into(), advice: Some(advice.into()) }
    }

    pub(crate) fn problem(name: &'static str, value: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Problem, ..Self::warning(name, value, advice) }
    }
}

/// All findings. `Display` is the screen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report(pub Vec<Finding>);

impl Report {
    /// Whether there is a problem among them.
    #[must_use]
    pub fn has_problem(&self) -> bool {
        self.0.iter().any(|finding| finding.status == Status::Problem)
    }

    /// An array of {name, status, value, advice}.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("strings are JSON") + "\n"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for Finding { name, status, value, advice } in &self.0 {
            let status = match status {
                Status::Ok => "ok",
                Status::Warning => "warning",
                Status::Problem => "PROBLEM",
            };
            writeln!(f, "{status:<8} {name:<width$}  {value}")?;
            if let Some(advice) = advice {
                writeln!(f, "{:8} {:width$}  -> {advice}", "", "")?;
            }
        }
        let count = |status| self.0.iter().filter(|finding| finding.status == status).count();
        match (count(Status::Problem), count(Status::Warning)) {
            (0, 0) => writeln!(f, "All is well."),
            (problems, warnings) => writeln!(f, "Problems: {problems}. Warnings: {warnings}."),
        }
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something that takes an s.
pub(crate) fn many(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A limit, which may be none.
pub(crate) fn limit(number: u64) -> String {
    if number > u64::MAX / 4 { "unlimited".to_owned() } else { grouped(number) }
}

/// Bytes, in the unit that people would use.
pub(crate) fn bytes(number: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| number >= 1 << shift) {
        _ if number > u64::MAX / 4 => "unlimited".to_owned(),
        Some((shift, unit)) => format!("{:.1} {unit}", number as f64 / (1u64 << shift) as f64),
        None => format!("{number} bytes"),
    }
}
