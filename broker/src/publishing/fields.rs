//! Fields of answers that both planes give: what every answer says, who may read it (CORS, Fetch standard, 3.2), and for
//! how long an idle connection stays open. Names are in lower case, as the HTTP library writes them.

use std::time::Duration;

/// What goes with every answer, unless its handler said otherwise.
pub(crate) const ALWAYS: [(&str, &str); 3] =
    [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("cache-control", "no-store")];
/// The value of `Vary` of every answer.
pub(crate) const VARY: &str = "Origin";
/// Fields that a page may read besides those that every page may: `Access-Control-Expose-Headers`.
pub(crate) const EXPOSED: &str = "Retry-After";

/// What `Keep-Alive` says of an idle time: a fifteenth less, in whole seconds, so that a client gives the connection up
/// first and never sends a request into its end. `None`: too short to say anything.
pub(crate) fn keep_alive(idle: Duration) -> Option<String> {
    let seconds = (idle - idle / 15).as_secs();
    (seconds > 0).then(|| format!("timeout={seconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announced_time_is_shorter_than_the_real_one() {
        let timeout = |seconds| keep_alive(Duration::from_secs(seconds));
        assert_eq!(timeout(75).as_deref(), Some("timeout=70"));
        assert_eq!(timeout(2).as_deref(), Some("timeout=1"));
        assert_eq!(timeout(1), None);
    }
}
