//! Alerts that clients send, counted by what they say (RFC 8446 section 6.2). A browser that does not trust the certificate says so
//! in one of them, and nothing else does.

use std::sync::atomic::{AtomicU64, Ordering};

use rustls::AlertDescription;

/// Those with a counter of their own, by their names in the RFC.
const NAMES: [(AlertDescription, &str); 11] = [
    (AlertDescription::UnknownCA, "unknown_ca"),
    (AlertDescription::CertificateUnknown, "certificate_unknown"),
    (AlertDescription::BadCertificate, "bad_certificate"),
    (AlertDescription::UnsupportedCertificate, "unsupported_certificate"),
    (AlertDescription::CertificateExpired, "certificate_expired"),
    (AlertDescription::CertificateRevoked, "certificate_revoked"),
    (AlertDescription::DecryptError, "decrypt_error"),
    (AlertDescription::ProtocolVersion, "protocol_version"),
    (AlertDescription::HandshakeFailure, "handshake_failure"),
    (AlertDescription::IllegalParameter, "illegal_parameter"),
    (AlertDescription::InternalError, "internal_error"),
];
/// What all others are called.
const OTHER: &str = "other";

/// An alert: its place among `NAMES`, or behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alert(usize);

impl Alert {
    pub(super) fn of(description: AlertDescription) -> Self {
        Self(NAMES.iter().position(|(named, _)| *named == description).unwrap_or(NAMES.len()))
    }
}

/// How many came of each, on all shards. They are rare.
#[derive(Default, Debug)]
pub struct Alerts([AtomicU64; NAMES.len() + 1]);

impl Alerts {
    /// One has come.
    pub fn count(&self, alert: Alert) {
        self.0[alert.0].fetch_add(1, Ordering::Relaxed);
    }

    /// The name of each, and how many came.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = NAMES.iter().map(|(_, name)| *name).chain([OTHER]);
        names.zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_under_its_name() {
        let alerts = Alerts::default();
        for (description, times) in [
            (AlertDescription::UnknownCA, 3),
            (AlertDescription::InternalError, 2),
            (AlertDescription::DecodeError, 1),
            (AlertDescription::UnexpectedMessage, 1),
        ] {
            (0..times).for_each(|_| alerts.count(Alert::of(description)));
        }
        let counted: Vec<_> = alerts.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("unknown_ca", 3), ("internal_error", 2), ("other", 2)]);
    }
}
