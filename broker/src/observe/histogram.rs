//! Distributions: fixed buckets whose width grows with the value, so that a few dozen counters span microseconds to
//! minutes at an even relative precision.
//!
//! One writer, many readers, as all of [`crate::observe::counters::Stats`]. Cost of an observation: two counters, no branch that depends on
//! what was observed before. Memory: 8 bytes a bucket.

use crate::observe::counter::Counter;

/// How values fall into buckets: each octave `2^k .. 2^(k+1)` is cut into `2^steps_log` equal parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// The first octave's exponent: everything below `2^first` is one bucket.
    first: u32,
    /// Octaves; everything above the last is one bucket.
    octaves: u32,
    /// Parts of an octave, as a power of two.
    steps_log: u32,
}

impl Scale {
    /// Nanoseconds, from 16 us to 69 s, four buckets an octave: a value is known to within a fifth.
    pub const TIME: Self = Self { first: 14, octaves: 22, steps_log: 2 };
    /// Counts, from 1 to 4096, by powers of two.
    pub const COUNT: Self = Self { first: 0, octaves: 12, steps_log: 0 };

    /// How many buckets there are, those below and above included.
    #[must_use]
    pub const fn buckets(self) -> usize {
        (self.octaves as usize) * (1 << self.steps_log) + 2
    }

    /// The bucket of a value.
    const fn bucket(self, value: u64) -> usize {
        if value >> self.first == 0 {
            return 0;
        }
        let octave = value.ilog2();
        if octave >= self.first + self.octaves {
            return self.buckets() - 1;
        }
        // The bits behind the leading one.
        let step = (value - (1 << octave)) >> octave.saturating_sub(self.steps_log);
        1 + (((octave - self.first) as usize) << self.steps_log) + step as usize
    }

    /// Where a bucket ends: all its values are below. The last bucket has no end.
    const fn end(self, bucket: usize) -> Option<u64> {
        if bucket + 1 >= self.buckets() {
            return None;
        }
        let (octave, step) = (bucket >> self.steps_log, bucket & ((1 << self.steps_log) - 1));
        let octave = octave as u32 + self.first;
        Some((1 << octave) + ((step as u64) << octave.saturating_sub(self.steps_log)))
    }
}

/// A distribution that is being observed.
#[derive(Debug)]
pub struct Histogram<const BUCKETS: usize> {
    counts: [Counter; BUCKETS],
    sum: Counter,
}

impl<const BUCKETS: usize> Default for Histogram<BUCKETS> {
    fn default() -> Self {
        Self { counts: [const { Counter::new() }; BUCKETS], sum: Counter::new() }
    }
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    /// Counts `value`, which stands for `weight` such values. Only the shard that owns the histogram may call this.
    pub fn observe(&self, scale: Scale, value: u64, weight: u64) {
        debug_assert_eq!(scale.buckets(), BUCKETS, "another histogram's scale");
        self.counts[scale.bucket(value)].add(weight);
        self.sum.add(value.saturating_mul(weight));
    }

    /// Adds what was counted so far to `to`.
    pub fn add_to(&self, to: &mut Distribution) {
        to.counts.resize(BUCKETS, 0);
        for (count, counter) in to.counts.iter_mut().zip(&self.counts) {
            *count += counter.get();
        }
        to.sum += self.sum.get();
    }
}

/// A distribution at one moment, perhaps of several shards together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distribution {
    scale: Scale,
    counts: Vec<u64>,
    /// Of all values.
    pub sum: u64,
}

impl Distribution {
    /// An empty one.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        Self { scale, counts: vec![0; scale.buckets()], sum: 0 }
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted since an earlier look at the same.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let was = before.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(was).map(|(is, was)| is.saturating_sub(was)).collect();
        Self { scale: self.scale, counts, sum: self.sum.saturating_sub(before.sum) }
    }

    /// The average of all values; `None`: there are none.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum as f64 / count as f64)
    }

    /// A value that so great a part of all values does not exceed: the end of a bucket, or of values in the last one, its
    /// beginning. `None`: there are none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let count = self.count();
        let wanted = ((count as f64 * part).ceil() as u64).clamp(1, count.max(1));
        let found = self.cumulative().find(|(_, below)| *below >= wanted).map(|(end, _)| end);
        let last = || self.scale.end(self.scale.buckets() - 2);
        if count == 0 { None } else { found.or_else(last) }
    }

    /// For each bucket but the last, where it ends and how many values lie below that: what Prometheus calls `le`,
    /// exclusive here.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut below = 0;
        self.counts.iter().enumerate().filter_map(move |(bucket, count)| {
            below += count;
            Some((self.scale.end(bucket)?, below))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_the_bucket_that_ends_behind_it() {
        for scale in [Scale::TIME, Scale::COUNT] {
            let values = (0..5000).chain((0..64).flat_map(|bit| [0, 1, 12_345].map(|more| (1_u64 << bit) + more)));
            for value in values.chain([u64::MAX]) {
                let bucket = scale.bucket(value);
                assert!(scale.end(bucket).is_none_or(|end| value < end), "{value} in {bucket}");
                assert!(bucket == 0 || scale.end(bucket - 1).is_some_and(|end| end <= value), "{value} in {bucket}");
            }
            let ends: Vec<_> = (0..scale.buckets()).map_while(|bucket| scale.end(bucket)).collect();
            assert_eq!(ends.len(), scale.buckets() - 1);
            assert!(ends.is_sorted_by(|a, b| a < b), "{ends:?}");
        }
    }

    #[test]
    fn shards_are_added_up() {
        let shards: [Histogram<{ Scale::TIME.buckets() }>; 2] = Default::default();
        shards[0].observe(Scale::TIME, 20_000, 3);
        shards[1].observe(Scale::TIME, 1_000_000, 2);
        let mut all = Distribution::new(Scale::TIME);
        shards.iter().for_each(|shard| shard.add_to(&mut all));
        assert_eq!((all.count(), all.sum), (5, 2_060_000));
        let below = |limit| all.cumulative().filter(|&(end, _)| end <= limit).last().unwrap().1;
        assert_eq!((below(16_384), below(30_000), below(2_000_000)), (0, 3, 5));
    }

    #[test]
    fn quantiles_and_means_are_of_what_came_since() {
        let counted: Histogram<{ Scale::COUNT.buckets() }> = Histogram::default();
        let look = || {
            let mut all = Distribution::new(Scale::COUNT);
            counted.add_to(&mut all);
            all
        };
        counted.observe(Scale::COUNT, 1000, 100);
        let before = look();
        assert_eq!((look().since(&before).quantile(0.5), look().since(&before).mean()), (None, None));
        counted.observe(Scale::COUNT, 1, 90);
        counted.observe(Scale::COUNT, 5, 9);
        counted.observe(Scale::COUNT, 1 << 20, 1);
        let since = look().since(&before);
        assert_eq!(since.mean(), Some((90 + 45 + (1 << 20)) as f64 / 100.0));
        let quantiles = [0.0, 0.5, 0.9, 0.91, 0.99, 0.999, 1.0].map(|part| since.quantile(part));
        assert_eq!(quantiles, [2, 2, 2, 8, 8, 4096, 4096].map(Some));
    }
}
