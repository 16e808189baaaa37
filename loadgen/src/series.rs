//! Aligns the rows of one or several series on a grid of equal steps.
//!
//! `merge` aligns the series of several processes on whole seconds; `results` reduces the rows of a long run to as many as a
//! plot can show. Counts are split by the time that a row shares with a step; their sums stay exact. Levels (clients,
//! memory) are those at the end of the step. Of latencies only percentiles are known per row: a step gets the greatest of
//! its rows, which is an upper bound of the percentile of all of them together.

use crate::outcome::{Latencies, Phase, Second};

/// One process's rows.
#[derive(Clone, Copy, Debug)]
pub struct Track<'a> {
    /// Ascending.
    pub rows: &'a [Second],
    /// When they began, in seconds after the grid did.
    pub offset: f64,
    /// Whether its figures of the server count: of several tracks with the same server only one may.
    pub server: bool,
}

/// Aligns tracks on a grid of steps of `step` seconds; the last step ends with the last row.
///
/// # Panics
/// If a step has no length.
#[must_use]
pub fn align(tracks: &[Track<'_>], step: f64) -> Vec<Second> {
    assert!(step > 0.0, "a grid has a step");
    let end = tracks.iter().filter_map(|track| Some(track.offset + track.rows.last()?.at)).fold(0.0, f64::max);
    // A row that ends slightly after a step does not begin another.
    let steps = (end / step - 1e-3).ceil().max(0.0) as usize;
    let mut grid: Vec<Step> = (0..steps).map(|_| Step::default()).collect();
    for track in tracks {
        lay(track, step, &mut grid);
    }
    grid.into_iter()
        .enumerate()
        .map(|(at, cell)| {
            let begin = at as f64 * step;
            let until = if at + 1 == steps { end } else { begin + step };
            cell.second(until, until - begin)
        })
        .collect()
}

/// Rows joined to at most `most`, for plots and their tables.
#[must_use]
pub fn thin(rows: &[Second], most: usize) -> Vec<Second> {
    if rows.len() <= most.max(1) {
        return rows.to_vec();
    }
    let seconds = rows.last().map_or(0.0, |row| row.at);
    let step = (seconds / most.max(1) as f64).ceil().max(1.0);
    align(&[Track { rows, offset: 0.0, server: true }], step)
}

/// A step of the grid while it is filled.
#[derive(Clone, Default)]
struct Step {
    sum: Second,
    /// Seconds of all tracks spent in each phase.
    phases: [f64; 4],
    /// Processor seconds.
    own: f64,
    /// The server's processor seconds.
    server: Option<f64>,
}

fn lay(track: &Track<'_>, step: f64, grid: &mut [Step]) {
    let last = grid.len().saturating_sub(1);
    // Float rounding may put a boundary into the step before; a position within a thousandth is the boundary.
    let step_of = |time: f64| ((time / step + 1e-3).floor().max(0.0) as usize).min(last);
    for row in track.rows {
        let (from, to) = (track.offset + row.at - row.span, track.offset + row.at);
        let middle = step_of((from + to) / 2.0);
        let Some(cell) = grid.get_mut(middle) else { return };
        worst(&mut cell.sum.latency, &row.latency);
        cell.sum.errors = cell.sum.errors.saturating_add(row.errors);
        let (first, final_) = (step_of(from), step_of((to - 2e-3 * step).max(from)));
        let mut done = 0.0;
        for (at, cell) in grid.iter_mut().enumerate().take(final_ + 1).skip(first) {
            let until = if at == final_ { 1.0 } else { (((at + 1) as f64 * step - from) / row.span).clamp(done, 1.0) };
            let split = |count: u64| (count as f64 * until).round() as u64 - (count as f64 * done).round() as u64;
            let whole = first == final_;
            let part = |count: u64| if whole { count } else { split(count) };
            cell.sum.opened += part(row.opened);
            cell.sum.published += part(row.published);
            cell.sum.delivered += part(row.delivered);
            cell.sum.bytes += part(row.bytes);
            let seconds = row.span * (until - done);
            cell.own += row.own_cpu * seconds;
            cell.phases[row.phase as usize] += seconds;
            if let Some(cpu) = row.server_cpu.filter(|_| track.server) {
                *cell.server.get_or_insert_default() += cpu * seconds;
            }
            done = until;
        }
    }
    levels(track, step, grid);
}

/// Adds the levels at the end of each step: those of the row that covers it, or of the last row of a track that ends in
/// the step.
fn levels(track: &Track<'_>, step: f64, grid: &mut [Step]) {
    let Some(end) = track.rows.last().map(|row| track.offset + row.at) else { return };
    for (at, cell) in grid.iter_mut().enumerate() {
        let (begin, until) = (at as f64 * step, (at + 1) as f64 * step);
        if begin + 1e-3 * step >= end {
            return;
        }
        let covers = track.rows.partition_point(|row| track.offset + row.at < until - 1e-3 * step);
        let row = &track.rows[covers.min(track.rows.len() - 1)];
        if track.offset + row.at - row.span >= until - 1e-3 * step {
            continue;
        }
        cell.sum.clients += row.clients;
        if let Some(memory) = row.server_memory.filter(|_| track.server) {
            *cell.sum.server_memory.get_or_insert_default() += memory;
        }
    }
}

/// The greater of each percentile.
fn worst(into: &mut Latencies, of: &Latencies) {
    let count = into.count.saturating_add(of.count);
    if of.count > 0 {
        into.mean = (into.mean * into.count as f64 + of.mean * of.count as f64) / count as f64;
    }
    into.count = count;
    into.p50 = into.p50.max(of.p50);
    into.p90 = into.p90.max(of.p90);
    into.p99 = into.p99.max(of.p99);
    into.p999 = into.p999.max(of.p999);
    into.max = into.max.max(of.max);
}

impl Step {
    fn second(self, at: f64, span: f64) -> Second {
        let phase = [Phase::Connect, Phase::WarmUp, Phase::Measure, Phase::Drain]
            .into_iter()
            .reduce(|most, phase| if self.phases[phase as usize] > self.phases[most as usize] { phase } else { most })
            .unwrap_or_default();
        let server_cpu = self.server.map(|seconds| seconds / span);
        Second { at, span, phase, own_cpu: self.own / span, server_cpu, ..self.sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u32, span: f64) -> Vec<Second> {
        (1..=count)
            .map(|at| Second {
                at: f64::from(at) * span,
                span,
                phase: if at == 1 { Phase::Connect } else { Phase::Measure },
                clients: u64::from(at) * 10,
                opened: 10,
                published: 7,
                delivered: 1001,
                latency: Latencies { count: 5, p50: 10, p99: u64::from(at), ..Latencies::default() },
                own_cpu: 0.5,
                server_cpu: Some(0.8),
                server_memory: Some(u64::from(at)),
                ..Second::default()
            })
            .collect()
    }

    fn delivered(rows: &[Second]) -> u64 {
        rows.iter().map(|row| row.delivered).sum()
    }

    #[test]
    fn rows_that_fit_stay_as_they_are() {
        let rows = rows(5, 1.0);
        let aligned = align(&[Track { rows: &rows, offset: 0.0, server: true }], 1.0);
        assert_eq!(format!("{aligned:?}"), format!("{rows:?}"));
    }

    #[test]
    fn rows_between_steps_are_split_and_nothing_is_lost() {
        for (offset, span) in [(0.3, 1.0), (0.0, 0.97), (0.5, 1.01), (2.999, 1.0), (0.1, 3.7), (0.0, 0.1)] {
            let rows = rows(9, span);
            let aligned = align(&[Track { rows: &rows, offset, server: true }], 1.0);
            assert_eq!(delivered(&aligned), 9 * 1001, "{offset} {span}");
            assert_eq!(aligned.iter().map(|row| row.published).sum::<u64>(), 63);
            assert_eq!(aligned.iter().map(|row| row.latency.count).sum::<u64>(), 45);
            let end = offset + 9.0 * span;
            let last = aligned.last().unwrap();
            assert!((last.at - end).abs() < 1e-9, "{offset} {span}: {} {end}", last.at);
            assert_eq!((last.clients, last.server_memory), (90, Some(9)));
            let cpu: f64 = aligned.iter().map(|row| row.own_cpu * row.span).sum();
            assert!((cpu - 0.5 * 9.0 * span).abs() < 1e-6, "{cpu}");
        }
    }

    #[test]
    fn tracks_add_up_and_a_server_seen_twice_counts_once() {
        let (one, other) = (rows(4, 1.0), rows(5, 1.0));
        let tracks =
            [Track { rows: &one, offset: 0.0, server: true }, Track { rows: &other, offset: 1.0, server: false }];
        let aligned = align(&tracks, 1.0);
        assert_eq!(aligned.len(), 6);
        assert_eq!(aligned.iter().map(|row| row.clients).collect::<Vec<_>>(), [10, 30, 50, 70, 40, 50]);
        assert_eq!(aligned[1].delivered, 2002);
        assert_eq!((aligned[1].own_cpu, aligned[1].server_cpu, aligned[1].server_memory), (1.0, Some(0.8), Some(2)));
        assert_eq!((aligned[1].latency.p99, aligned[1].latency.count), (2, 10));
        assert_eq!((aligned[5].server_cpu, aligned[5].server_memory), (None, None));
    }

    #[test]
    fn an_hour_is_thinned_to_what_a_plot_shows() {
        let rows = rows(3600, 1.0);
        let thinned = thin(&rows, 500);
        assert_eq!(thinned.len(), 450);
        assert_eq!(delivered(&thinned), 3600 * 1001);
        assert_eq!((thinned[0].span, thinned[449].at, thinned[449].clients), (8.0, 3600.0, 36_000));
        assert_eq!(thin(&rows[..300], 500).len(), 300);
        assert_eq!(thin(&[], 500).len(), 0);
    }
}
