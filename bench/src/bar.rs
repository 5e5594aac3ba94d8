//! The bars: what Headgate has to come to in each scenario, and what would be better still.
//!
//! They were set before anything was measured with it, from bare Rust proxies that do nothing else; a row that misses one
//! says so.

use crate::report::{Figure, Idle, Outcome, Paced, median};

/// What Headgate's figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// CPU time as a multiple of nginx's.
    Nginx,
    /// Of HAProxy's.
    Haproxy,
    /// Of Envoy's.
    Envoy,
    /// CPU µs on top of what Headgate takes without the policy.
    Plain,
    /// KiB of a connection.
    Kib,
    /// The 99th percentile as a multiple of nginx's.
    NginxP99,
}

/// One bar. Less is better in all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// What is compared.
    pub against: Against,
    /// What must be.
    pub must: f64,
    /// What would be better, where something was said.
    pub stretch: Option<f64>,
}

/// Against a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More than must be.
    Missed,
    /// As must be.
    Met,
    /// Better still.
    Stretched,
}

impl Verdict {
    /// In tables.
    pub fn text(self) -> &'static str {
        match self {
            Self::Missed => "✗ **missed**",
            Self::Met => "✓",
            Self::Stretched => "✓✓",
        }
    }
}

/// A bar and what was measured.
pub struct Judged {
    /// What had to be.
    pub bar: Bar,
    /// The median of the rounds' figures.
    pub value: f64,
    /// Each round's.
    pub rounds: Vec<f64>,
}

impl Judged {
    fn new(bar: Bar, rounds: Vec<f64>) -> Option<Self> {
        (!rounds.is_empty()).then(|| Self { bar, value: median(&rounds), rounds })
    }

    /// How it ended. Figures count as they are printed: two digits after the point.
    pub fn verdict(&self) -> Verdict {
        let value = (self.value * 100.0).round() / 100.0;
        match self.bar.stretch {
            Some(stretch) if value <= stretch => Verdict::Stretched,
            Some(_) | None if value <= self.bar.must => Verdict::Met,
            Some(_) | None => Verdict::Missed,
        }
    }
}

impl Against {
    /// After a number.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Nginx => "× nginx",
            Self::Haproxy => "× HAProxy",
            Self::Envoy => "× Envoy",
            Self::Plain => "µs over plain",
            Self::Kib => "KiB",
            Self::NginxP99 => "× nginx's p99",
        }
    }
}

const fn bar(against: Against, must: f64, stretch: f64) -> Bar {
    Bar { against, must, stretch: Some(stretch) }
}

/// Where the proxy's own work decides, not cryptography or the kernel's copies.
const ENVOY: Bar = Bar { against: Against::Envoy, must: 0.5, stretch: None };
const KNOWN: [Bar; 2] = [bar(Against::Plain, 2.0, 0.5), ENVOY];
const NEW: [Bar; 1] = [bar(Against::Haproxy, 1.0, 0.85)];

/// The bars of a scenario; none where none was set.
pub fn of(scenario: &str) -> Vec<Bar> {
    use Against::{Kib, Nginx, NginxP99, Plain};
    match scenario {
        "h1-keepalive-64" => vec![bar(Nginx, 1.0, 0.85), ENVOY],
        "h1-keepalive-1" => vec![bar(Nginx, 1.0, 0.85)],
        "h1-keepalive-1000" => vec![bar(Nginx, 1.0, 0.9), ENVOY],
        "tls-keepalive-64" => vec![bar(Nginx, 0.94, 0.8), ENVOY],
        "tls-handshake" => vec![bar(Nginx, 0.65, 0.5)],
        "tls-resumed" => vec![bar(Nginx, 1.0, 0.8)],
        "h2-tls-16x32" => vec![bar(Nginx, 1.0, 0.75), ENVOY],
        "routes-1000" => vec![bar(Nginx, 1.0, 0.85), ENVOY],
        "routes-10000" => vec![bar(Nginx, 1.0, 0.82), ENVOY],
        "download-1m" => vec![bar(Nginx, 1.0, 0.9)],
        "download-1m-tls" => vec![bar(Nginx, 0.9, 0.75)],
        "upload-1m" => vec![bar(Nginx, 1.0, 0.85)],
        "websocket" => vec![bar(Nginx, 1.0, 0.95)],
        "rate-limit" => vec![bar(Nginx, 1.0, 1.0), bar(Plain, 1.0, 0.6), ENVOY],
        "jwt-known-es256" | "jwt-known-rs256" => KNOWN.to_vec(),
        "jwt-new-es256" | "jwt-new-rs256" => NEW.to_vec(),
        "breaker" => vec![Bar { against: Plain, must: 0.2, stretch: None }],
        "latency" => vec![Bar { against: NginxP99, must: 1.0, stretch: None }],
        "idle" => vec![bar(Kib, 12.0, 3.0)],
        "idle-tls" => vec![bar(Kib, 22.0, 12.0)],
        _ => Vec::new(),
    }
}

/// Headgate's figures of a scenario against its bars; none where a peer is missing.
pub fn judge(outcome: &Outcome) -> Vec<Judged> {
    let of = |peer: &str| outcome.of(peer);
    let judged = self::of(&outcome.scenario).into_iter().filter_map(|bar| {
        let ours = of("headgate")?;
        let rounds = match bar.against {
            Against::Nginx => per_round(ours, of("nginx")?, |ours, theirs| ours / theirs),
            Against::Haproxy => per_round(ours, of("haproxy")?, |ours, theirs| ours / theirs),
            Against::Envoy => per_round(ours, of("envoy")?, |ours, theirs| ours / theirs),
            Against::Plain => per_round(ours, of("headgate plain")?, |ours, plain| ours - plain),
            Against::Kib | Against::NginxP99 => return None,
        };
        Judged::new(bar, rounds)
    });
    judged.collect()
}

/// Of latencies.
pub fn judge_latency(all: &[Paced]) -> Option<Judged> {
    let of = |peer: &str| all.iter().find(|paced| paced.peer == peer);
    let rounds = of("headgate")?.p99.iter().zip(&of("nginx")?.p99).map(|(ours, theirs)| ours / theirs);
    Judged::new(self::of("latency").pop()?, rounds.collect())
}

/// Of memory.
pub fn judge_idle(idle: &Idle) -> Option<Judged> {
    Judged::new(self::of(&idle.scenario).pop()?, vec![idle.kib_each])
}

/// What the two come to in each round, when the machine was the same for both.
pub fn per_round(ours: &Figure, theirs: &Figure, compare: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    ours.cpu_micros.iter().zip(&theirs.cpu_micros).map(|(ours, theirs)| compare(*ours, *theirs)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(scenario: &str, figures: &[(&str, &[f64])]) -> Outcome {
        let figures = figures.iter().map(|(peer, micros)| {
            let mut figure = Figure::new(peer, "1");
            micros.iter().for_each(|micros| figure.add(*micros, 1.0));
            figure
        });
        let (scenario, about, figures) = (scenario.to_owned(), String::new(), figures.collect());
        Outcome { scenario, about, connections: 1, seconds: 1, figures }
    }

    fn verdicts(scenario: &str, figures: &[(&str, &[f64])]) -> Vec<Verdict> {
        judge(&outcome(scenario, figures)).iter().map(Judged::verdict).collect()
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // A machine that gets slower: the ratio is 0.5 in each round, that of the medians isn't.
        let figures: [(&str, &[f64]); 2] = [("nginx", &[2.0, 4.0, 100.0]), ("headgate", &[1.0, 2.0, 50.0])];
        let judged = judge(&outcome("h1-keepalive-64", &figures));
        assert_eq!(judged.iter().map(|judged| judged.value).collect::<Vec<_>>(), [0.5]);
    }

    #[test]
    fn a_bar_is_missed_met_or_more_than_met() {
        let one = |ours: f64| verdicts("h1-keepalive-1", &[("nginx", &[10.0]), ("headgate", &[ours])]);
        assert_eq!(one(10.1), [Verdict::Missed]);
        assert_eq!(one(10.04), [Verdict::Met], "1.00 as it is printed");
        assert_eq!(one(8.5), [Verdict::Stretched]);
    }

    #[test]
    fn policies_are_judged_by_what_they_add() {
        let figures: [(&str, &[f64]); 3] =
            [("envoy", &[30.0]), ("headgate", &[14.0]), ("headgate plain", &[11.0])];
        assert_eq!(verdicts("jwt-known-es256", &figures), [Verdict::Missed, Verdict::Met]);
        assert!(verdicts("jwt-new-es256", &figures).is_empty(), "no HAProxy");
    }

    #[test]
    fn every_scenario_but_one_has_a_bar() {
        for scenario in crate::scenario::all() {
            let has_none = scenario.name == "oidc-session";
            assert_eq!(of(scenario.name).is_empty(), has_none, "{}", scenario.name);
        }
    }
}
