//! A histogram of Prometheus's text format, as far as quantiles need it.

/// How many values were at most so much, for each bound, which ascend.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    /// A histogram by its name, over all of its labels; none where there is none.
    pub fn read(text: &str, name: &str) -> Option<Self> {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bucket{")) else {
                continue;
            };
            let (labels, count) = rest.rsplit_once("} ")?;
            let bound = labels.split("le=\"").nth(1)?.split('"').next()?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            let count: f64 = count.split(' ').next()?.parse().ok()?;
            match buckets.iter_mut().find(|bucket| bucket.0 == bound) {
                Some(bucket) => bucket.1 += count as u64,
                None => buckets.push((bound, count as u64)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        (!buckets.is_empty()).then_some(Self(buckets))
    }

    /// What was added to an earlier one.
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |bound: f64| before.0.iter().find(|bucket| bucket.0 == bound).map_or(0, |b| b.1);
        Self(self.0.iter().map(|(bound, count)| (*bound, count.saturating_sub(earlier(*bound)))).collect())
    }

    /// Values in all.
    pub fn count(&self) -> usize {
        self.0.last().and_then(|bucket| usize::try_from(bucket.1).ok()).unwrap_or_default()
    }

    /// A bound that so many of the values don't exceed: the truth is at most that.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = self.count() as f64 * part;
        self.0.iter().find(|bucket| bucket.1 as f64 >= wanted).map_or(f64::NAN, |bucket| bucket.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_added_over_labels() {
        let text = "# TYPE d histogram\nd_sum 3\nd_bucket{le=\"0.001\"} 1\nd_bucket{le=\"+Inf\"} 2\n\
                    d_bucket{a=\"b\",le=\"0.001\"} 97\nd_bucket{a=\"b\",le=\"+Inf\"} 98\ndd_bucket{le=\"1\"} 5\n";
        let histogram = Histogram::read(text, "d").unwrap();
        assert_eq!(histogram, Histogram(vec![(0.001, 98), (f64::INFINITY, 100)]));
        assert_eq!((histogram.quantile(0.98), histogram.quantile(0.99)), (0.001, f64::INFINITY));
        assert_eq!(histogram.since(&histogram).count(), 0);
        assert_eq!(Histogram::read(text, "e"), None);
    }
}
