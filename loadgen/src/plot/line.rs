//! Lines over an axis: time series, distributions, curves over a parameter.

use super::axis::{Axis, Placed};
use super::svg::{FONT, Key, LINE, Svg, colour, width};

/// Charts at least this wide name their lines at their ends; narrower ones have a legend.
const WIDE: f64 = 560.0;

/// Height of the bands' names, and of the lines that lead from them.
const BAND_NAMES: f64 = LINE + 8.0;
/// Room between two of them.
const GAP: f64 = 8.0;

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    spread: Vec<(f64, f64, f64)>,
    marked: bool,
}

impl Line {
    /// Points from left to right. What is not finite, or has no place on its axis, interrupts the line.
    #[must_use]
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, spread: Vec::new(), marked: false }
    }

    /// Every point has a mark: for few points that were measured, with nothing known between them.
    #[must_use]
    pub fn marked(self) -> Self {
        Self { marked: true, ..self }
    }

    /// (x, least, most) shaded around the line: the spread of several runs.
    #[must_use]
    pub fn spread(self, spread: Vec<(f64, f64, f64)>) -> Self {
        Self { spread, ..self }
    }
}

/// Lines over an axis.
#[derive(Clone, Debug)]
pub struct LineChart {
    title: String,
    description: String,
    headed: bool,
    size: (f64, f64),
    x: Axis,
    y: Axis,
    lines: Vec<Line>,
    bands: Vec<(f64, f64, String, bool)>,
}

impl LineChart {
    /// The title is drawn on top and read out by screen readers.
    #[must_use]
    pub fn new(title: &str, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            description: String::new(),
            headed: true,
            size: (760.0, 360.0),
            x,
            y,
            lines: Vec::new(),
            bands: Vec::new(),
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

    /// One more line, in the next colour.
    #[must_use]
    pub fn line(mut self, line: Line) -> Self {
        self.lines.push(line);
        self
    }

    /// A span of x with a name above it, shaded or not.
    #[must_use]
    pub fn band(mut self, from: f64, to: f64, name: &str, shaded: bool) -> Self {
        self.bands.push((from, to, name.into(), shaded));
        self
    }

    /// The chart.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut svg = Svg::new(self.size, &self.title, &self.description);
        let area = self.area(&mut svg);
        self.draw_bands(&mut svg, &area);
        area.draw_axes(&mut svg, &self.x.title);
        for (series, line) in self.lines.iter().enumerate() {
            draw_spread(&mut svg, &area, series, &line.spread);
            draw_line(&mut svg, &area, series, line);
        }
        if self.named_at_ends() {
            self.draw_names(&mut svg, &area);
        }
        svg.end()
    }

    fn named_at_ends(&self) -> bool {
        self.lines.len() > 1 && self.size.0 >= WIDE
    }

    fn names(&self) -> impl Iterator<Item = (Key, &str)> {
        self.lines.iter().map(|line| (if line.marked { Key::Marked } else { Key::Line }, line.name.as_str()))
    }

    /// Draws what stands above the plot, and finds where that is.
    fn area(&self, svg: &mut Svg) -> Area {
        let (wide, high) = self.size;
        let mut top = 8.0;
        if self.headed {
            svg.text((8.0, top + 14.0), "h", &self.title);
            top += LINE + 8.0;
        }
        let mut right = 16.0;
        if self.named_at_ends() {
            right += 26.0 + self.names().map(|(_, name)| width(name)).fold(0.0, f64::max);
        } else if self.lines.len() > 1 {
            top += svg.legend(&self.names().collect::<Vec<_>>(), (8.0, top), wide - 16.0) + 4.0;
        }
        if !self.y.title.is_empty() {
            svg.text((8.0, top + 12.0), "", &self.y.title);
            top += LINE;
        }
        top += if self.bands.is_empty() { 6.0 } else { BAND_NAMES };
        let bottom = high - LINE - 6.0 - if self.x.title.is_empty() { 0.0 } else { LINE };
        let spread = |line: &Line| line.spread.iter().flat_map(|(_, least, most)| [*least, *most]).collect::<Vec<_>>();
        let ys = self.lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y).chain(spread(line)));
        let y = self.y.place(ys, ((bottom - top) / 44.0) as usize, false);
        let left = 14.0 + y.ticks.iter().map(|(_, label)| width(label)).fold(0.0, f64::max);
        let bands = self.bands.iter().flat_map(|(from, to, ..)| [*from, *to]);
        let xs = self.lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x)).chain(bands);
        let x = self.x.place(xs, ((wide - right - left) / 80.0) as usize, true);
        Area { x, y, left, top, right: wide - right, bottom }
    }

    /// Shades the bands and writes their names above them; a name that is wider than its band stands beside it, with a
    /// line that leads there. Where there is no room for all, the narrowest bands go without.
    fn draw_bands(&self, svg: &mut Svg, area: &Area) {
        let top = area.top - BAND_NAMES;
        let mut names: Vec<_> = Vec::new();
        for (from, to, name, shaded) in &self.bands {
            let (Some(from), Some(to)) = (area.across(*from), area.across(*to)) else { continue };
            if *shaded {
                svg.rect("b", (from, area.top), (to - from, area.bottom - area.top));
            }
            if from > area.left {
                svg.line("g", (from, area.top), (from, area.bottom));
            }
            names.push((from, to, name.as_str()));
        }
        let room = area.right - area.left;
        while names.iter().map(|(.., name)| width(name) + GAP).sum::<f64>() > room {
            let narrowest = names.iter().enumerate().min_by(|a, b| (a.1.1 - a.1.0).total_cmp(&(b.1.1 - b.1.0)));
            let Some((at, _)) = narrowest else { return };
            names.remove(at);
        }
        let mut left = area.left;
        let mut behind: f64 = names.iter().map(|(.., name)| width(name) + GAP).sum();
        for (from, to, name) in names {
            let (band, wide) = ((from + to) / 2.0, width(name));
            let begin = (band - wide / 2.0).min(area.right - behind + GAP).max(left);
            let middle = begin + wide / 2.0;
            svg.text((middle, top + FONT), "m", name);
            if middle < from || middle > to {
                svg.line("a", (middle, top + LINE), (band, area.top));
            } else if wide > to - from {
                svg.line("a", (band, top + LINE), (band, area.top));
            }
            behind -= wide + GAP;
            left = begin + wide + GAP;
        }
    }

    /// Names beside the lines' ends, moved apart where they would overlap.
    fn draw_names(&self, svg: &mut Svg, area: &Area) {
        let mut ends: Vec<_> = self
            .names()
            .enumerate()
            .map(|(series, (key, name))| {
                let end = self.lines[series].points.iter().rev().find_map(|(_, y)| area.up(*y));
                (end.unwrap_or(area.bottom), series, key, name)
            })
            .collect();
        // Where lines end in one point, the later one comes first: p99 stands above p50 always.
        ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut least = area.top + 4.0;
        for (at, left) in (0..ends.len()).zip((0..ends.len()).rev()) {
            // Room for those below.
            let most = area.bottom - left as f64 * LINE;
            ends[at].0 = ends[at].0.min(most).max(least);
            least = ends[at].0 + LINE;
        }
        for (y, series, key, name) in ends {
            svg.key(key, series, (area.right + 4.0, y));
            svg.text((area.right + 30.0, y + 4.5), "", name);
        }
    }
}

/// Where values go.
struct Area {
    x: Placed,
    y: Placed,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    fn across(&self, x: f64) -> Option<f64> {
        Some(self.left + self.x.at(x)? * (self.right - self.left))
    }

    fn up(&self, y: f64) -> Option<f64> {
        Some(self.bottom - self.y.at(y)? * (self.bottom - self.top))
    }

    fn point(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.across(x)?, self.up(y)?))
    }

    fn draw_axes(&self, svg: &mut Svg, title: &str) {
        for (tick, label) in &self.y.ticks {
            let Some(y) = self.up(*tick) else { continue };
            svg.line("g", (self.left, y), (self.right, y));
            svg.text((self.left - 6.0, y + 4.5), "e", label);
        }
        svg.line("a", (self.left, self.bottom), (self.right, self.bottom));
        let mut free = 0.0;
        for (tick, label) in &self.x.ticks {
            let Some(x) = self.across(*tick) else { continue };
            svg.line("a", (x, self.bottom), (x, self.bottom + 4.0));
            if !self.x.even() {
                svg.line("g", (x, self.top), (x, self.bottom));
            }
            let half = width(label) / 2.0;
            // At the edge a label moves in; one that would touch its neighbour is left out.
            let middle = x.min(self.right + 14.0 - half);
            if middle - half >= free {
                svg.text((middle, self.bottom + LINE), "m", label);
                free = middle + half + 5.0;
            }
        }
        if !title.is_empty() {
            svg.text(((self.left + self.right) / 2.0, self.bottom + 2.0 * LINE), "m", title);
        }
    }
}

fn draw_line(svg: &mut Svg, area: &Area, series: usize, line: &Line) {
    let mut path = String::new();
    let mut pieces = 0;
    let mut open = false;
    let mut lone = Vec::new();
    for (at, point) in line.points.iter().enumerate() {
        let Some((x, y)) = area.point(*point) else {
            open = false;
            continue;
        };
        let next = line.points.get(at + 1).and_then(|next| area.point(*next));
        if !open && next.is_none() {
            lone.push((x, y));
        }
        path += &format!("{}{x:.1} {y:.1}", if open { "L" } else { "M" });
        pieces += usize::from(open);
        open = true;
    }
    if pieces > 0 {
        svg.put(format_args!("<path class=\"l o {}\" d=\"{path}\"/>", colour(series)));
    }
    let marks = if line.marked { line.points.iter().filter_map(|point| area.point(*point)).collect() } else { lone };
    marks.into_iter().for_each(|point| svg.mark(series, point));
}

fn draw_spread(svg: &mut Svg, area: &Area, series: usize, spread: &[(f64, f64, f64)]) {
    let upper = spread.iter().filter_map(|(x, _, most)| area.point((*x, *most)));
    let lower = spread.iter().rev().filter_map(|(x, least, _)| area.point((*x, *least)));
    let corners: Vec<_> = upper.chain(lower).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    if corners.len() > 3 {
        svg.put(format_args!("<path class=\"s f {}\" d=\"M{}z\"/>", colour(series), corners.join("L")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lines_that_end_in_one_point_keep_their_order() {
        let end = |y: f64| vec![(0.0, 1.0), (1.0, y)];
        for (p50, p99) in [(5.0, 5.0), (4.0, 5.0)] {
            let svg = LineChart::new("Latency", Axis::linear("x"), Axis::linear("y"))
                .line(Line::new("p50", end(p50)))
                .line(Line::new("p99", end(p99)))
                .size(1030.0, 360.0)
                .svg();
            let at = |name: &str| svg.rfind(&format!(">{name}</text>")).unwrap();
            assert!(at("p99") < at("p50"), "{svg}");
        }
    }
    use crate::plot::Unit;

    fn chart() -> LineChart {
        LineChart::new(
            "a <b>",
            Axis::linear("time").unit(Unit::Seconds),
            Axis::log("it's \"latency\"").unit(Unit::Time),
        )
        .describe("x & y")
        .line(Line::new(
            "p50 </svg>",
            vec![(0.0, 1e6), (1.0, 2e6), (2.0, f64::NAN), (3.0, 4e6), (4.0, 0.0), (5.0, 1e6), (6.0, 1e6)],
        ))
        .line(
            Line::new("p99", vec![(0.0, 1.01e6), (6.0, 1.01e6)])
                .marked()
                .spread(vec![(0.0, 1e6, 2e6), (6.0, 1e6, 3e6)]),
        )
        .band(0.0, 3.0, "warm & up", true)
    }

    #[test]
    fn markup_is_whole_and_text_escaped() {
        for chart in [chart(), chart().size(360.0, 240.0), chart().bare()] {
            let svg = chart.svg();
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
            assert_eq!(svg.matches("</svg>").count(), 1);
            assert!(svg.contains("<title>a &lt;b&gt;</title><desc>x &amp; y</desc>"));
            assert!(svg.contains("p50 &lt;/svg&gt;") && svg.contains("warm &amp; up"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
            for outside in ["href", "url(", "<script", "@import"] {
                assert!(!svg.contains(outside), "{outside}");
            }
        }
    }

    #[test]
    fn what_has_no_place_interrupts_a_line() {
        let svg = chart().svg();
        let path = svg.split("class=\"l o c1\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (3, 2), "{path}");
        // The point between two gaps would be no line: it is a mark.
        assert!(svg.contains("<circle class=\"f c1\""));
    }

    #[test]
    fn names_at_the_ends_keep_their_distance() {
        let svg = chart().svg();
        let y = |name: &str| -> f64 {
            let before = svg.split(&format!("\" class=\"\">{name}")).next().unwrap();
            before.rsplit("y=\"").next().unwrap().parse().unwrap()
        };
        assert!((y("p50") - y("p99")).abs() >= LINE - 0.11, "{} {}", y("p50"), y("p99"));
    }

    #[test]
    fn no_data_is_an_empty_plot() {
        let svg = LineChart::new("", Axis::linear(""), Axis::log("")).line(Line::new("none", Vec::new())).svg();
        assert!(svg.ends_with("</svg>") && !svg.contains("NaN"));
    }
}
