//! Types that `hack/gen.sh` wrote. Nothing but [`super`] uses them by these names.
#![expect(missing_docs, reason = "generated: `kubectl explain` has the documentation")]
#![allow(dead_code, reason = "generated: integers that are enums in the CRD")]
#![expect(clippy::allow_attributes_without_reason, reason = "generated")]

#[rustfmt::skip]
pub mod gateways;
#[rustfmt::skip]
pub mod grpcroutes;
#[rustfmt::skip]
pub mod httproutes;
#[rustfmt::skip]
pub mod listenersets;
#[rustfmt::skip]
pub mod tcproutes;
#[rustfmt::skip]
pub mod udproutes;
#[rustfmt::skip]
pub mod xbackends;
#[rustfmt::skip]
pub mod xbackendtrafficpolicies;
