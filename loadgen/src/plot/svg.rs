//! Drawing of charts: an SVG under construction, text and its width, the legend.

use std::fmt::Write;

/// Size of all text, in units of the drawing.
pub(super) const FONT: f64 = 13.0;
/// Height of a line of text.
pub(super) const LINE: f64 = 18.0;
/// Colours, used in turn.
pub(super) const COLOURS: usize = 6;

/// Fallbacks stand out on white and on `#0d1117` alike.
const STYLE: &str = "\
.plot{font:13px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-variant-numeric:tabular-nums}\
.plot text{fill:#7a7a7a;fill:var(--plot-text,#7a7a7a)}\
.plot .h{font-weight:600;font-size:15px}\
.plot .e{text-anchor:end}.plot .m{text-anchor:middle}\
.plot .g{stroke:#808080;stroke:var(--plot-grid,#80808055);stroke-width:1;fill:none}\
.plot .a{stroke:#808080;stroke:var(--plot-axis,#808080);stroke-width:1;fill:none}\
.plot .b{fill:#80808026;fill:var(--plot-band,#80808026)}\
.plot .l{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
.plot .s{opacity:.18}\
.plot .w{fill:none;stroke-width:1.5;stroke:#7a7a7a;stroke:var(--plot-text,#7a7a7a)}\
.plot .i{stroke:#ffffff;stroke:var(--plot-inside,#ffffff)}\
.plot .c1{--c:var(--plot-1,#0b7bc1)}.plot .c2{--c:var(--plot-2,#d55e00)}.plot .c3{--c:var(--plot-3,#009e73)}\
.plot .c4{--c:var(--plot-4,#b0558f)}.plot .c5{--c:var(--plot-5,#a67c00)}.plot .c6{--c:var(--plot-6,#7b6bd6)}\
.plot .f{fill:var(--c)}.plot .o{stroke:var(--c)}";

/// Text as it may stand in HTML and SVG, in an attribute too. Control characters, which XML forbids, are replaced.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// About how wide a text is, in a wide font.
pub(super) fn width(text: &str) -> f64 {
    text.chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | 't' | 'f' | 'r' | ' ' | '.' | ',' | ':' | '\'' | '|' | '(' | ')' | '/' => 0.38,
            'm' | 'w' | 'M' | 'W' | '%' => 0.92,
            c if c.is_ascii_uppercase() => 0.7,
            c if c.is_ascii() => 0.63,
            _ => 0.9,
        })
        .sum::<f64>()
        * FONT
}

/// Broken at spaces and behind hyphens into lines of at most this width, where words allow it.
pub(super) fn wrap(text: &str, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        for (at, part) in word.split_inclusive('-').enumerate() {
            let space = if at == 0 { " " } else { "" };
            match lines.last_mut() {
                Some(line) if width(line) + width(space) + width(part) <= most => {
                    line.push_str(space);
                    line.push_str(part);
                }
                _ => lines.push(part.into()),
            }
        }
    }
    lines
}

/// Shape of a mark, by series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// A piece of a line.
    Line,
    /// A piece of a line with a mark.
    Marked,
    /// A square.
    Square,
}

/// An SVG under construction.
pub(super) struct Svg {
    out: String,
}

impl Svg {
    pub(super) fn new((wide, high): (f64, f64), title: &str, description: &str) -> Self {
        let mut svg = Self { out: String::new() };
        svg.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" role=\"img\" width=\"{wide}\" height=\"{high}\" \
             viewBox=\"0 0 {wide} {high}\"><title>{}</title>",
            escape(title)
        ));
        if !description.is_empty() {
            svg.put(format_args!("<desc>{}</desc>", escape(description)));
        }
        svg.put(format_args!("<style>{STYLE}</style>"));
        svg
    }

    pub(super) fn end(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }

    pub(super) fn put(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.out.write_fmt(what);
    }

    /// `class`: of the style above; `m` and `e` are anchored in the middle and at the end.
    pub(super) fn text(&mut self, (x, y): (f64, f64), class: &str, text: &str) {
        self.put(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text)));
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.put(format_args!("<path class=\"{class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>"));
    }

    pub(super) fn rect(&mut self, class: &str, (x, y): (f64, f64), (wide, high): (f64, f64)) {
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\"/>"
        ));
    }

    /// A point of a series: circle, square, triangle, diamond, in turn.
    pub(super) fn mark(&mut self, series: usize, (x, y): (f64, f64)) {
        let colour = colour(series);
        let r = 4.0;
        match series % 4 {
            0 => self.put(format_args!("<circle class=\"f {colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\"/>")),
            1 => self.rect(&format!("f {colour}"), (x - 3.5, y - 3.5), (7.0, 7.0)),
            2 => self.put(format_args!("<path class=\"f {colour}\" d=\"M{x:.1} {:.1}l5 8.5h-10z\"/>", y - 5.2)),
            _ => self.put(format_args!("<path class=\"f {colour}\" d=\"M{x:.1} {:.1}l5 5l-5 5l-5 -5z\"/>", y - 5.0)),
        }
    }

    /// What a series looks like, 22 wide, its middle at `y`.
    pub(super) fn key(&mut self, key: Key, series: usize, (x, y): (f64, f64)) {
        if key == Key::Square {
            self.rect(&format!("f {}", colour(series)), (x + 5.0, y - 6.0), (12.0, 12.0));
            return;
        }
        self.line(&format!("l o {}", colour(series)), (x + 1.0, y), (x + 21.0, y));
        if key == Key::Marked {
            self.mark(series, (x + 11.0, y));
        }
    }

    /// Names in rows from the top left corner; returns how high that is.
    pub(super) fn legend(&mut self, names: &[(Key, &str)], (left, top): (f64, f64), wide: f64) -> f64 {
        let (mut x, mut y) = (left, top);
        for (series, (key, name)) in names.iter().enumerate() {
            let need = 26.0 + width(name) + 14.0;
            if x > left && x + need - 14.0 > left + wide {
                (x, y) = (left, y + LINE);
            }
            self.key(*key, series, (x, y + LINE / 2.0));
            self.text((x + 26.0, y + LINE / 2.0 + 4.5), "", name);
            x += need;
        }
        y + LINE - top
    }
}

/// The class that colours a series.
pub(super) fn colour(series: usize) -> String {
    format!("c{}", series % COLOURS + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        assert_eq!(escape("<a b=\"c\" d='e'>&\x1b\n"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{fffd} ");
    }

    #[test]
    fn text_wraps_at_spaces() {
        assert_eq!(wrap("10,000 topics of 10", 68.0), ["10,000", "topics of", "10"]);
        assert_eq!(wrap("unbreakable", 10.0), ["unbreakable"]);
        assert_eq!(wrap("tokio-tungstenite", 100.0), ["tokio-", "tungstenite"]);
        assert_eq!(wrap("a nats-server", 200.0), ["a nats-server"]);
        assert_eq!(wrap("", 10.0), [""; 0]);
    }

    /// Relative luminance, WCAG 2.
    fn luminance(hex: &str) -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    }

    #[test]
    fn fallback_colours_stand_out_on_white_and_on_dark() {
        let mut seen = 0;
        for (name, colour) in STYLE.match_indices("var(--plot-").map(|(at, _)| {
            let inside = STYLE[at + 4..].split(')').next().unwrap();
            inside.split_once(",#").unwrap()
        }) {
            if ["grid", "band", "axis", "inside"].iter().any(|other| name.contains(other)) {
                continue;
            }
            let (light, dark) = (luminance("ffffff") + 0.05, luminance("0d1117") + 0.05);
            let own = luminance(colour) + 0.05;
            let least = if name.contains("text") { 4.2 } else { 3.0 };
            assert!(light / own >= least, "{name} on white: {}", light / own);
            assert!(own / dark >= least, "{name} on dark: {}", own / dark);
            seen += 1;
        }
        assert_eq!(seen, COLOURS + 2, "text has it twice");
    }
}
