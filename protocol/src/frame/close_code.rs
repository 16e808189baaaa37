//! The codes that say why a WebSocket connection ends (RFC 6455 §7.4 and IANA's registry), as constants
//! and as a type. Which end uses which code when is not decided here.

use std::fmt;

/// A status code as it stands in a close frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CloseCode(pub u16);

/// The purpose of the connection is fulfilled.
pub const NORMAL: CloseCode = CloseCode(1000);
/// The server goes down, or the page is left.
pub const GOING_AWAY: CloseCode = CloseCode(1001);
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
/// The peer sent a kind of data that is not accepted here.
pub const UNSUPPORTED: CloseCode = CloseCode(1003);
/// Data that contradicts its kind, such as text that is not UTF-8.
pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
/// The peer may not do what it did.
pub const POLICY: CloseCode = CloseCode(1008);
/// A frame or message above the limit.
pub const TOO_BIG: CloseCode = CloseCode(1009);
/// Something unforeseen at the server.
pub const INTERNAL: CloseCode = CloseCode(1011);
/// The server sheds load; come back later (IANA's registry).
pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);
/// The token or key that the client brought is not a good one.
pub const BAD_TOKEN: CloseCode = CloseCode(4400);
/// The client's token has ended: fetch another, and connect again.
pub const TOKEN_EXPIRED: CloseCode = CloseCode(4401);
/// The client may not do what it asked for, or an operator closed it.
pub const FORBIDDEN: CloseCode = CloseCode(4403);
/// The client did not say in time who it is.
pub const AUTH_TIMEOUT: CloseCode = CloseCode(4408);
/// The client's session goes on over another connection.
pub const SESSION_TAKEN: CloseCode = CloseCode(4409);

impl CloseCode {
    /// May this code stand in a close frame? 1004 to 1006 and 1015 never do (§7.4.1); codes to 2999 must
    /// be registered; 3000 to 4999 belong to libraries and applications (§7.4.2).
    #[must_use]
    pub const fn is_valid_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §7.4: the edges of every range.
    #[test]
    fn which_codes_may_be_sent() {
        for good in [1000, 1003, 1007, 1011, 1012, 1014, 3000, 4999] {
            assert!(CloseCode(good).is_valid_on_wire(), "{good}");
        }
        for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert!(!CloseCode(bad).is_valid_on_wire(), "{bad}");
        }
    }
}
