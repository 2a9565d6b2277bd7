//! How events spread over topics when few topics have most of them: the nth gets a share of 1/n. Pure.

/// The distribution.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    /// For each topic, the shares of it and of all before it.
    up_to: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(topics: usize) -> Self {
        let shares = (1..=topics).map(|n| 1.0 / n as f64);
        let up_to = shares
            .scan(0.0, |sum, share| {
                *sum += share;
                Some(*sum)
            })
            .collect();
        Self { up_to }
    }

    /// The topic of the event with this number, the same in every run.
    pub(super) fn pick(&self, number: u64) -> usize {
        let all = self.up_to.last().copied().unwrap_or_default();
        let at = fastrand::Rng::with_seed(number).f64() * all;
        let topic = self.up_to.partition_point(|up_to| *up_to <= at);
        topic.min(self.up_to.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_have_most() {
        let zipf = Zipf::new(100);
        let mut counts = [0u32; 100];
        for number in 0..100_000 {
            counts[zipf.pick(number)] += 1;
        }
        // The harmonic number of 100 is 5.187.
        for (topic, share) in [(0, 0.1928), (1, 0.0964), (9, 0.0193)] {
            let seen = f64::from(counts[topic]) / 100_000.0;
            assert!((seen - share).abs() < 0.01, "{topic}: {seen} {share}");
        }
        assert!(counts[99] > 0);
        assert_eq!(Zipf::new(1).pick(7), 0);
    }
}
