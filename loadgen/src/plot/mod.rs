//! Line and bar charts as SVG: for a page, inline, and as files of their own that look right on white and on dark.
//!
//! | file | what it is |
//! | --- | --- |
//! | `axis` | scales, units, ticks at round values |
//! | `line` | [`LineChart`]: lines over a linear, logarithmic or percentile axis, with shaded spans |
//! | `bar` | [`BarChart`]: grouped bars with whiskers |
//! | `svg` | what both draw with: escaping, text widths, the legend |
//!
//! ```
//! use loadgen::plot::{Axis, Line, LineChart, Unit};
//! let (x, y) = (Axis::linear("subscribers"), Axis::log("latency").unit(Unit::Time));
//! let line = Line::new("p99", vec![(100.0, 1.2e6), (5000.0, 3.4e6)]).marked();
//! let svg = LineChart::new("Latency over subscribers", x, y).line(line).svg();
//! assert!(svg.starts_with("<svg "));
//! ```
//!
//! Colours are CSS variables (`--plot-1` to `--plot-6`, `--plot-text`, `--plot-grid`, `--plot-axis`, `--plot-band`,
//! `--plot-inside` for whiskers before a bar)
//! with fallbacks of a middling lightness: a page sets them to suit its theme, a file shown as an image has the
//! fallbacks, which stand out at 3:1 or more both on white and on `#0d1117`. Series differ in hue and lightness as
//! colour-blind readers see them, marks differ in shape too. The background is left to who shows it.
//!
//! All text is escaped here: names and titles may come from anywhere. Nothing refers to anything outside the file.

mod axis;
mod bar;
mod line;
mod svg;

pub use axis::{Axis, Unit};
pub use bar::{Bar, BarChart};
pub use line::{Line, LineChart};
pub use svg::escape;
