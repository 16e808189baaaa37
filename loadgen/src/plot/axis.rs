//! An axis: its range, the positions of values, and its ticks.

use crate::format;

/// What an axis measures: how its ticks are chosen and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unit {
    /// `250k`, `1.5M`.
    #[default]
    Number,
    /// Nanoseconds: `2.5 ms`.
    Time,
    /// Seconds, as of a clock: `30 s`, `5 min`.
    Seconds,
    /// Bytes: `1.5 MiB`.
    Bytes,
    /// A share, 1.0 is the whole: `50 %`.
    Share,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scale {
    Linear,
    Log,
    Percentile,
}

/// An axis of a chart.
#[derive(Clone, Debug)]
pub struct Axis {
    pub(super) title: String,
    scale: Scale,
    unit: Unit,
    bounds: Option<(f64, f64)>,
}

impl Axis {
    /// Equal steps, from 0 (or the least value, when that is negative).
    #[must_use]
    pub fn linear(title: &str) -> Self {
        Self { title: title.into(), scale: Scale::Linear, unit: Unit::Number, bounds: None }
    }

    /// Equal factors. Values that are not above 0 have no place on it: they interrupt a line.
    #[must_use]
    pub fn log(title: &str) -> Self {
        Self { scale: Scale::Log, ..Self::linear(title) }
    }

    /// Percentiles from 0 to below 100: 90, 99, 99.9 ... are equally far apart. 100 has no place on it.
    #[must_use]
    pub fn percentile(title: &str) -> Self {
        Self { scale: Scale::Percentile, ..Self::linear(title) }
    }

    /// What it measures.
    #[must_use]
    pub fn unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// Spans exactly this, instead of what the values need. Values outside are drawn at the edge.
    #[must_use]
    pub fn bounds(self, least: f64, most: f64) -> Self {
        Self { bounds: Some((least, most)), ..self }
    }

    /// A value as it is written at a bar.
    pub(super) fn value(&self, value: f64) -> String {
        match self.unit {
            Unit::Number if value.abs() >= 10_000.0 => compact(value),
            Unit::Number => format::number(value),
            Unit::Time => format::time(value),
            Unit::Seconds => format::seconds(value),
            Unit::Bytes => format::bytes(value),
            Unit::Share => format::percent(value),
        }
    }

    /// Lays out the axis for these values, with about `ticks` ticks. `tight`: the ends of a linear axis are not rounded.
    pub(super) fn place(&self, values: impl Iterator<Item = f64>, ticks: usize, tight: bool) -> Placed {
        let values = values.filter(|value| self.position(*value).is_some());
        let found = values.fold(None, |span: Option<(f64, f64)>, value| {
            Some(span.map_or((value, value), |(least, most)| (least.min(value), most.max(value))))
        });
        let (least, most) = self.bounds.or(found).unwrap_or((1.0, 10.0));
        match self.scale {
            Scale::Linear => self.place_linear(least, most, ticks, tight),
            Scale::Log => self.place_log(least, most, ticks),
            Scale::Percentile => {
                let least = if self.bounds.is_some() { least } else { 0.0 };
                let most = most.max(90.0);
                let nines = (2..=9).map(|nines| 100.0 - 100.0 / 10_f64.powi(nines));
                let ticks = [0.0, 50.0, 90.0].into_iter().chain(nines);
                let ticks = ticks.filter(|tick| (least..=most).contains(tick));
                let ticks = ticks.map(|tick| (tick, trimmed(&format!("{tick:.7}")))).collect();
                Placed { axis: self.clone(), least, most, ticks }
            }
        }
    }

    fn place_linear(&self, least: f64, most: f64, ticks: usize, tight: bool) -> Placed {
        let (mut least, mut most) = if self.bounds.is_some() { (least, most) } else { (least.min(0.0), most.max(0.0)) };
        if most <= least {
            most = least + 1.0;
        }
        let step = self.step((most - least) / ticks.max(1) as f64, most);
        if self.bounds.is_none() && !tight {
            least = (least / step + 1e-9).floor() * step;
            most = (most / step - 1e-9).ceil() * step;
        }
        let first = (least / step - 1e-9).ceil() as i64;
        let last = (most / step + 1e-9).floor() as i64;
        let ticks = (first..=last).map(|at| at as f64 * step).map(|tick| (tick, self.tick(tick, step))).collect();
        Placed { axis: self.clone(), least, most, ticks }
    }

    /// The round step next to a rough one.
    fn step(&self, rough: f64, most: f64) -> f64 {
        const CLOCK: [f64; 13] = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0];
        match self.unit {
            Unit::Seconds if rough > 3600.0 => nice(rough / 3600.0) * 3600.0,
            Unit::Seconds if rough > 0.5 => CLOCK.into_iter().find(|step| *step >= rough).unwrap_or(3600.0),
            Unit::Bytes => {
                let unit = 1024_f64.powf(most.abs().max(1.0).log(1024.0).floor());
                nice(rough / unit) * unit
            }
            _ => nice(rough),
        }
    }

    fn place_log(&self, least: f64, most: f64, ticks: usize) -> Placed {
        let (least, most) = if self.bounds.is_some() {
            (least, most)
        } else {
            (round_log(least, f64::floor), round_log(most, f64::ceil))
        };
        let most = if most <= least { least * 10.0 } else { most };
        let decades = (most / least).log10();
        // Every decade, every n-th of many, or some within each of few.
        let digits: &[f64] = match decades {
            _ if decades < 1.2 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
            _ if decades * 1.9 <= ticks as f64 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let every = (decades / ticks.max(1) as f64).ceil().max(1.0) as i32;
        let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        let ticks = (first..=last)
            .filter(|power| power.rem_euclid(every) == 0)
            .flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)))
            .filter(|tick| (least * 0.999..=most * 1.001).contains(tick))
            .map(|tick| (tick, self.tick(tick, tick)))
            .collect();
        Placed { axis: self.clone(), least, most, ticks }
    }

    /// A tick as it is written.
    fn tick(&self, tick: f64, step: f64) -> String {
        if tick == 0.0 && !matches!(self.unit, Unit::Share | Unit::Seconds) {
            return "0".into();
        }
        match self.unit {
            Unit::Number => compact(tick),
            Unit::Time => in_unit(tick, 1000.0, &["ns", "µs", "ms", "s"]),
            Unit::Seconds if step >= 3600.0 => format!("{} h", trimmed(&format!("{:.2}", tick / 3600.0))),
            Unit::Seconds if step >= 60.0 => format!("{} min", trimmed(&format!("{:.2}", tick / 60.0))),
            Unit::Seconds => format!("{} s", trimmed(&format!("{tick:.3}"))),
            Unit::Bytes => in_unit(tick, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
            Unit::Share => format!("{} %", trimmed(&format!("{:.2}", tick * 100.0))),
        }
    }

    /// Where a value is on the scale, in no particular unit; nothing when it has no place there.
    fn position(&self, value: f64) -> Option<f64> {
        match self.scale {
            _ if !value.is_finite() => None,
            Scale::Linear => Some(value),
            Scale::Log => (value > 0.0).then(|| value.log10()),
            Scale::Percentile => (0.0..100.0).contains(&value).then(|| -(1.0 - value / 100.0).log10()),
        }
    }
}

/// An axis with its span and ticks.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    axis: Axis,
    pub(super) least: f64,
    most: f64,
    /// Value and label, ascending.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Placed {
    /// Whether the axis is linear, so that values can be read off without a grid.
    pub(super) fn even(&self) -> bool {
        self.axis.scale == Scale::Linear
    }

    /// Where a value is between the axis' ends, 0 to 1; what is outside is at the end.
    pub(super) fn at(&self, value: f64) -> Option<f64> {
        let (least, most) = (self.axis.position(self.least)?, self.axis.position(self.most)?);
        Some(((self.axis.position(value)? - least) / (most - least)).clamp(0.0, 1.0))
    }
}

/// 1, 2, 2.5 or 5 times a power of ten, not below `rough`.
fn nice(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let digit = rough / power;
    let nice = [1.0, 2.0, 2.5, 5.0].into_iter().find(|nice| digit <= nice * 1.000_001).unwrap_or(10.0);
    nice * power
}

/// To 1, 2 or 5 times a power of ten.
fn round_log(value: f64, towards: fn(f64) -> f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let digit = value / power;
    // `floor` takes the last step not above, `ceil` the first not below.
    let up = towards(0.5) > 0.0;
    let found = if up {
        steps.into_iter().find(|step| *step >= digit * 0.999_999)
    } else {
        steps.into_iter().rev().find(|step| *step <= digit * 1.000_001)
    };
    found.unwrap_or(1.0) * power
}

/// `250k`, `1.5M`, `0.25`.
fn compact(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        size if size >= 1e3 => return format::number(value),
        _ => (value, ""),
    };
    format!("{}{suffix}", significant(value))
}

fn in_unit(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value.abs() >= step * 0.999_999 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{} {}", significant(value), units[unit])
}

/// Three significant digits at least, and no zeros at the end.
fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 4,
        _ => 7,
    };
    trimmed(&format!("{value:.decimals$}"))
}

fn trimmed(digits: &str) -> String {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').into() } else { digits.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, values: &[f64]) -> Vec<String> {
        let placed = axis.place(values.iter().copied(), 5, false);
        assert!(placed.ticks.len() <= 13, "{:?}", placed.ticks);
        placed.ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_begin_at_0() {
        let axis = Axis::linear("");
        assert_eq!(labels(&axis, &[3.0, 87.0]), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(&axis, &[1_499_000.0]), ["0", "500k", "1M", "1.5M"]);
        assert_eq!(labels(&axis, &[5000.0]), ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]);
        assert_eq!(labels(&axis, &[-3.0, 4.0]), ["-4", "-2", "0", "2", "4"]);
        assert_eq!(labels(&axis, &[0.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(&axis.clone().unit(Unit::Share), &[0.93]), ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]);
        assert_eq!(labels(&axis.clone().unit(Unit::Bytes), &[3_400_000.0]), ["0", "1 MiB", "2 MiB", "3 MiB", "4 MiB"]);
        assert_eq!(
            labels(&axis.clone().unit(Unit::Time), &[2_100_000.0]),
            ["0", "500 µs", "1 ms", "1.5 ms", "2 ms", "2.5 ms"]
        );
        assert_eq!(labels(&axis.clone().unit(Unit::Seconds), &[68.0]), ["0 s", "15 s", "30 s", "45 s", "60 s", "75 s"]);
        let hour = axis.unit(Unit::Seconds).place([3600.0].into_iter(), 5, true);
        assert_eq!(hour.ticks.last().unwrap().1, "60 min");
    }

    #[test]
    fn a_tight_axis_ends_with_the_values() {
        let placed = Axis::linear("").unit(Unit::Seconds).place([0.0, 68.0].into_iter(), 5, true);
        assert_eq!((placed.least, placed.most, placed.ticks.last().unwrap().0), (0.0, 68.0, 60.0));
        assert_eq!(placed.at(34.0), Some(0.5));
        assert_eq!(placed.at(1000.0), Some(1.0));
        assert_eq!(placed.at(f64::NAN), None);
    }

    #[test]
    fn log_ticks_are_decades_or_steps_within_them() {
        let axis = Axis::log("").unit(Unit::Time);
        assert_eq!(labels(&axis, &[30_000.0, 80e6]), ["100 µs", "1 ms", "10 ms", "100 ms"]);
        assert_eq!(labels(&axis, &[1.2e6, 30e6]), ["1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]);
        assert_eq!(labels(&axis, &[1.2e6, 4e6]), ["1 ms", "1.5 ms", "2 ms", "3 ms", "5 ms"]);
        assert_eq!(labels(&axis, &[5e6]), ["5 ms", "7 ms", "10 ms", "15 ms", "20 ms", "30 ms", "50 ms"]);
        let placed = Axis::log("").place([1.0, 1000.0, 0.0, -5.0].into_iter(), 5, false);
        assert_eq!(placed.at(0.0), None);
        assert!((placed.at(10.0).unwrap() - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn percentiles_are_equally_far_apart() {
        let axis = Axis::percentile("");
        assert_eq!(labels(&axis, &[50.0, 99.995]), ["0", "50", "90", "99", "99.9", "99.99"]);
        let placed = axis.place([99.9].into_iter(), 5, false);
        let gaps = [90.0, 99.0, 99.9].map(|percent| placed.at(percent).unwrap());
        assert!((gaps[1] - gaps[0] - (gaps[2] - gaps[1])).abs() < 1e-9);
        assert_eq!(placed.at(100.0), None);
    }

    #[test]
    fn nothing_to_show_still_has_an_axis() {
        for axis in [Axis::linear(""), Axis::log(""), Axis::percentile("")] {
            for values in [&[][..], &[f64::NAN], &[f64::INFINITY]] {
                assert!(!labels(&axis, values).is_empty());
            }
        }
    }
}
