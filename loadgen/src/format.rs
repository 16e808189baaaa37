//! Numbers as text for people: thousands separators, suitable units, three significant digits.
//!
//! `--json` has the exact numbers, for programs.

/// `1234567` as `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of any size: whole from 100 on, three significant digits below.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let size = value.abs();
    let text = match size {
        _ if size >= 99.95 => count(size.round() as u64),
        _ if size >= 9.995 => format!("{size:.1}"),
        _ if size == 0.0 => "0".into(),
        _ if size >= 0.995 => format!("{size:.2}"),
        _ if size >= 0.001 => format!("{size:.3}"),
        _ => format!("{size:.0e}"),
    };
    format!("{sign}{text}")
}

/// Nanoseconds as `950 ns`, `12.3 µs`, `1.20 ms`, `61.2 s`.
#[must_use]
pub fn time(ns: f64) -> String {
    in_units(ns, 1000.0, &["ns", "µs", "ms", "s"])
}

/// Seconds as `1.20 s`, `15.3 ms`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    time(seconds * 1e9)
}

/// Bytes as `256 B`, `1.21 KiB`, `3.40 GiB`.
#[must_use]
pub fn bytes(bytes: f64) -> String {
    in_units(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A share as a percentage: `0.873` as `87.3 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// `1 topic`, `2 topics`: a count and its noun.
#[must_use]
pub fn of(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// Text from outside, made safe for a terminal: no control characters, limited length.
#[must_use]
pub fn plain(text: &str) -> String {
    const MOST: usize = 200;
    let mut out: String = text.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}

fn in_units(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // What would be written as a full step belongs to the next unit: 999.7 µs is 1.00 ms.
    while value.abs() >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    // The smallest unit is as fine as it gets.
    let text = if unit == 0 && value.fract() == 0.0 { format!("{value:.0}") } else { number(value) };
    format!("{text} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let counts = [0, 7, 999, 1000, 1_234_567, u64::MAX].map(count);
        assert_eq!(counts, ["0", "7", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]);
        let numbers = [0.0, 0.0004, 0.25, 1.0, 9.99, 9.996, 12.34, 99.96, 1234.5, -3.0, f64::NAN].map(number);
        assert_eq!(numbers, ["0", "4e-4", "0.250", "1.00", "9.99", "10.0", "12.3", "100", "1,235", "-3.00", "–"]);
        assert_eq!([of(1, "topic"), of(1200, "topic")], ["1 topic", "1,200 topics"]);
        assert_eq!([percent(0.8734), percent(1.5)], ["87.3 %", "150 %"]);
    }

    #[test]
    fn text_from_outside_cannot_control_the_terminal() {
        assert_eq!(plain("503 busy"), "503 busy");
        assert_eq!(plain("\x1b[2J\n"), "\u{fffd}[2J\u{fffd}");
        assert_eq!(plain(&"é".repeat(201)).chars().count(), 201);
    }

    #[test]
    fn units_fit() {
        let times = [0.0, 950.0, 999.7, 12_345.0, 999_700.0, 1.2e9, 61.23e9, 4e12].map(time);
        assert_eq!(times, ["0 ns", "950 ns", "1.00 µs", "12.3 µs", "1.00 ms", "1.20 s", "61.2 s", "4,000 s"]);
        assert_eq!([seconds(0.5), seconds(12.0)], ["500 ms", "12.0 s"]);
        let sizes = [256.0, 1239.0, 3.4 * 1024.0 * 1024.0 * 1024.0, -2048.0].map(bytes);
        assert_eq!(sizes, ["256 B", "1.21 KiB", "3.40 GiB", "-2.00 KiB"]);
    }
}
