//! Types that `hack/gen.sh` wrote. Nothing but [`super`] uses them by these names.
#![expect(missing_docs, reason = "generated: `kubectl explain` has the documentation")]
#![allow(dead_code, reason = "generated: integers that are enums in the CRD")]
#![expect(clippy::allow_attributes_without_reason, reason = "generated")]

#[rustfmt::skip]
pub mod gateways;
#[rustfmt::skip]
pub mod httproutes;
