//! The sources of settings, in the order of precedence: flag, environment, file, default.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::command::CommandLine;
use crate::config::provenance::{Section, Setting, Source};
use crate::config::settings::{FILE, SETTINGS};
use crate::config::{Config, Surroundings, auth, file, rules, tls, topic_checks};

/// What flags and environment give.
pub(super) struct Given {
    settings: Section,
    file: Option<PathBuf>,
}

impl Given {
    /// # Errors
    /// A sentence for each value that is wrong.
    pub(super) fn new(line: &CommandLine, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, Vec<String>> {
        // An empty variable counts as not set: compose files pass one for what nobody set.
        let variable = |name: &str| environment(name).filter(|value| !value.to_string_lossy().trim().is_empty());
        let (mut settings, mut wrong) = (Section::new(&SETTINGS, Source::Default), Vec::new());
        for key in SETTINGS.keys() {
            let name = key.variable();
            let flag = line.values(key).map(|values| (values, Source::Flag));
            let variable = variable(&name).map(|value| (vec![value], Source::Environment(name)));
            for (values, source) in flag.into_iter().chain(variable) {
                let texts: Vec<_> = values.iter().map(|value| value.to_string_lossy().into_owned()).collect();
                match Setting::read(key, &texts, source) {
                    Ok(setting) => settings.add(setting),
                    Err(sentence) => wrong.push(sentence),
                }
            }
        }
        let file =
            line.values(&FILE).and_then(|values| values.into_iter().next()).or_else(|| variable(&FILE.variable()));
        if wrong.is_empty() { Ok(Self { settings, file: file.map(path) }) } else { Err(wrong) }
    }

    /// Adds the file: `instead`, or that of `--config`.
    pub(super) fn with_file(mut self, instead: Option<PathBuf>) -> Result<Section, Vec<String>> {
        if let Some(path) = instead.or(self.file) {
            self.settings.add_section(file::read(&path, &SETTINGS)?);
        }
        Ok(self.settings)
    }

    /// Adds the file, and applies the rules.
    pub(super) fn resolve(
        self,
        instead: Option<PathBuf>,
        here: &Surroundings,
    ) -> Result<(Config, Section), Vec<String>> {
        let settings = self.with_file(instead)?;
        let mut config = Config::new(&settings, here);
        let (access, wrong_access) = auth::read(&settings);
        config.access = access;
        let (tls_tables, wrong_tls) = tls::read(&settings);
        config.tls_tables = tls_tables;
        let mut wrong = rules::check(&config, &settings);
        wrong.extend(wrong_access);
        wrong.extend(wrong_tls);
        match topic_checks::read(&settings, config.limits.topic_bytes_max, config.limits.lag_bytes_max) {
            Ok(tables) => config.topics = tables,
            Err(sentences) => wrong.extend(sentences),
        }
        if wrong.is_empty() { Ok((config, settings)) } else { Err(wrong) }
    }
}

/// The path that a value is. One that is not UTF-8 is taken as it is.
fn path(value: OsString) -> PathBuf {
    match value.to_str() {
        Some(text) => text.trim().into(),
        None => value.into(),
    }
}
