//! Line and bar charts as SVG, inline in a page or as files, readable on light and on dark backgrounds.
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
//! `--plot-inside` for whiskers before a bar). A page sets them to suit its theme. An SVG shown as an image uses the
//! fallbacks, whose contrast is 3:1 or more both on white and on `#0d1117`. Series differ in hue and lightness for
//! colour-blind readers, and marks differ in shape. The background is transparent.
//!
//! All text is escaped here. Nothing refers to anything outside the file.

mod axis;
mod bar;
mod line;
mod svg;

pub use axis::{Axis, Unit};
pub use bar::{Bar, BarChart};
pub use line::{Line, LineChart};
pub use svg::escape;
