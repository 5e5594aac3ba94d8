//! `headgate crds`.

use anyhow::Result;
use std::io::Write;

macro_rules! of_the_chart {
    ($($plural:literal)*) => {
        [$(include_str!(concat!("../../charts/headgate/files/crds/", $plural, ".headgate.dev.yaml"))),*]
    };
}

/// The definitions of Headgate's own resources, in the order of their names.
const DEFINITIONS: [&str; 5] = of_the_chart!("authpolicies" "circuitbreakerpolicies" "clientpolicies" "gatewayparameters" "ratelimitpolicies");

/// Prints them, one YAML document each.
pub fn run() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for definition in DEFINITIONS {
        write!(out, "---\n{definition}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_missing_or_old() {
        let types: Vec<_> =
            headgate_crds::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let told =
            DEFINITIONS.map(|definition| serde_yaml_ng::from_str::<serde_json::Value>(definition).unwrap());
        assert_eq!(told[..], types[..], "run `make gen`");
    }
}
