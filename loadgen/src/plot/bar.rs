//! Grouped bars, with whiskers for the spread of several runs.

use super::axis::{Axis, Placed};
use super::svg::{FONT, Key, LINE, Svg, colour, width, wrap};

/// One bar.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bar {
    value: f64,
    spread: Option<(f64, f64)>,
}

impl Bar {
    /// A bar without whiskers.
    #[must_use]
    pub fn new(value: f64) -> Self {
        Self { value, spread: None }
    }

    /// With whiskers from `least` to `most`.
    #[must_use]
    pub fn spread(self, least: f64, most: f64) -> Self {
        Self { spread: Some((least, most)), ..self }
    }
}

/// Grouped bars.
#[derive(Clone, Debug)]
pub struct BarChart {
    title: String,
    description: String,
    headed: bool,
    size: (f64, f64),
    y: Axis,
    groups: Vec<String>,
    series: Vec<(String, Vec<Option<Bar>>)>,
}

impl BarChart {
    /// The title is drawn on top and read out by screen readers. Bars of a logarithmic axis stand on its lower end.
    #[must_use]
    pub fn new(title: &str, y: Axis) -> Self {
        Self {
            title: title.into(),
            description: String::new(),
            headed: true,
            size: (760.0, 360.0),
            y,
            groups: Vec::new(),
            series: Vec::new(),
        }
    }

    /// A description for screen readers.
    #[must_use]
    pub fn describe(self, description: &str) -> Self {
        Self { description: description.into(), ..self }
    }

    /// The title is not drawn.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { headed: false, ..self }
    }

    /// Width and height in pixels, when shown unscaled. Text is 13 high.
    #[must_use]
    pub fn size(self, wide: f64, high: f64) -> Self {
        Self { size: (wide, high), ..self }
    }

    /// What is written below the groups, from left to right.
    #[must_use]
    pub fn groups<T: Into<String>>(self, names: impl IntoIterator<Item = T>) -> Self {
        Self { groups: names.into_iter().map(Into::into).collect(), ..self }
    }

    /// One bar in each group, in the next colour. `None` was not measured: a dash stands there.
    #[must_use]
    pub fn series(mut self, name: &str, bars: Vec<Option<Bar>>) -> Self {
        self.series.push((name.into(), bars));
        self
    }

    /// The chart.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut svg = Svg::new(self.size, &self.title, &self.description);
        let (wide, high) = self.size;
        let mut top = 8.0;
        if self.headed {
            svg.text((8.0, top + 14.0), "h", &self.title);
            top += LINE + 8.0;
        }
        if self.series.len() > 1 {
            let names: Vec<_> = self.series.iter().map(|(name, _)| (Key::Square, name.as_str())).collect();
            top += svg.legend(&names, (8.0, top), wide - 16.0) + 4.0;
        }
        if !self.y.title.is_empty() {
            svg.text((8.0, top + 12.0), "", &self.y.title);
            top += LINE;
        }
        // Room for a value above the highest bar.
        top += FONT + 6.0;
        let bars = self.series.iter().flat_map(|(_, bars)| bars.iter().flatten());
        let values = bars.flat_map(|bar| [Some(bar.value), bar.spread.map(|it| it.0), bar.spread.map(|it| it.1)]);
        let values: Vec<_> = values.flatten().collect();
        let y = self.y.place(values.into_iter(), ((high - top - 40.0) / 44.0) as usize, false);
        let left = 14.0 + y.ticks.iter().map(|(_, label)| width(label)).fold(0.0, f64::max);
        let slot = (wide - 8.0 - left) / self.groups.len().max(1) as f64;
        let names: Vec<_> = self.groups.iter().map(|name| wrap(name, slot - 6.0)).collect();
        let lines = names.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let area = Area { y, left, right: wide - 8.0, top, bottom: high - 8.0 - lines as f64 * LINE };
        area.draw_axis(&mut svg);
        for (at, lines) in names.iter().enumerate() {
            let middle = left + (at as f64 + 0.5) * slot;
            for (row, line) in lines.iter().enumerate() {
                svg.text((middle, area.bottom + (row as f64 + 1.0) * LINE - 1.0), "m", line);
            }
            self.draw_group(&mut svg, &area, at, left + at as f64 * slot, slot);
        }
        svg.end()
    }

    fn draw_group(&self, svg: &mut Svg, area: &Area, group: usize, left: f64, slot: f64) {
        // A group takes most of its slot, a lone bar not all of it.
        let each = (slot * 0.82 / self.series.len().max(1) as f64).min(56.0);
        let first = left + (slot - each * self.series.len() as f64) / 2.0;
        for (series, (_, bars)) in self.series.iter().enumerate() {
            let middle = first + (series as f64 + 0.5) * each;
            let Some((bar, height)) =
                bars.get(group).copied().flatten().and_then(|bar| Some((bar, area.up(bar.value)?)))
            else {
                svg.text((middle, area.bottom - 4.0), "m", "–");
                continue;
            };
            let zero = area.up(0.0).unwrap_or(area.bottom);
            let (from, to) = (height.min(zero), height.max(zero));
            let half = (each * 0.44).max(0.5);
            svg.rect(&format!("f {}", colour(series)), (middle - half, from), (2.0 * half, (to - from).max(1.0)));
            let mut above = from;
            if let Some((least, most)) = bar.spread
                && let (Some(least), Some(most)) = (area.up(least), area.up(most))
            {
                let half = (half * 0.5).min(6.0);
                // Before the bar it would not stand out in the colour that does above it.
                draw_whisker(svg, "w i", (middle, half), height, least);
                draw_whisker(svg, "w", (middle, half), height, most);
                above = above.min(most);
            }
            let label = self.y.value(bar.value);
            if width(&label) <= each + 4.0 {
                svg.text((middle, above - 5.0), "m", &label);
            }
        }
    }
}

struct Area {
    y: Placed,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn up(&self, y: f64) -> Option<f64> {
        Some(self.bottom - self.y.at(y)? * (self.bottom - self.top))
    }

    fn draw_axis(&self, svg: &mut Svg) {
        for (tick, label) in &self.y.ticks {
            let Some(y) = self.up(*tick) else { continue };
            svg.line("g", (self.left, y), (self.right, y));
            svg.text((self.left - 6.0, y + 4.5), "e", label);
        }
        let zero = self.up(0.0).unwrap_or(self.bottom);
        svg.line("a", (self.left, zero), (self.right, zero));
    }
}

/// From a bar's end to one end of its spread.
fn draw_whisker(svg: &mut Svg, class: &str, (x, half): (f64, f64), from: f64, to: f64) {
    svg.put(format_args!(
        "<path class=\"{class}\" d=\"M{x:.1} {from:.1}V{to:.1}M{0:.1} {to:.1}H{1:.1}\"/>",
        x - half,
        x + half
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Unit;

    fn chart(y: Axis) -> BarChart {
        BarChart::new("CPU <per> message", y)
            .groups(["100 & few", "10,000 topics of 10 subscribers"])
            .series("ringyard", vec![Some(Bar::new(300.0).spread(280.0, 330.0)), Some(Bar::new(410.0))])
            .series("<other>", vec![Some(Bar::new(900.0)), None])
    }

    #[test]
    fn every_bar_is_there_and_what_was_not_measured_is_a_dash() {
        for y in [Axis::linear("ns").unit(Unit::Time), Axis::log("ns").unit(Unit::Time)] {
            for size in [(760.0, 360.0), (320.0, 240.0)] {
                let svg = chart(y.clone()).size(size.0, size.1).svg();
                assert!(svg.ends_with("</svg>"));
                // Bars and their keys in the legend.
                assert_eq!(svg.matches("class=\"f c1\"").count(), 2 + 1);
                assert_eq!(svg.matches("class=\"f c2\"").count(), 1 + 1);
                assert_eq!((svg.matches("class=\"w\"").count(), svg.matches("class=\"w i\"").count()), (1, 1));
                assert!(svg.contains(">–</text>") && svg.contains("&lt;other&gt;") && svg.contains("100 &amp; few"));
                assert!(!svg.contains("NaN") && !svg.contains("height=\"-"));
            }
        }
    }

    #[test]
    fn nothing_to_compare_is_an_empty_chart() {
        assert!(BarChart::new("", Axis::linear("")).svg().ends_with("</svg>"));
    }
}
