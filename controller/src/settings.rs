//! What the control plane has to know besides objects.

use headgate_proxy::model::Text;
use std::net::IpAddr;

/// The `controllerName` of GatewayClasses that are ours.
pub const CONTROLLER_NAME: &str = "headgate.dev/gateway-controller";
/// The GatewayClass that the chart makes, and that files without a GatewayClass are taken to have.
pub const DEFAULT_CLASS: &str = "headgate";

/// What the control plane has to know besides objects.
#[derive(Clone, Debug)]
pub struct Settings {
    /// GatewayClasses with this `controllerName` are ours.
    pub controller_name: Text,
    /// Where objects come from, and what that means for addresses and ports.
    pub mode: Mode,
}

/// Where objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A cluster. Each port of a Gateway has one of its own on every Headgate pod, which the `targetPort` of the Gateway's
    /// Service names; it is bound on this address.
    Cluster {
        /// Unspecified: IPv4 or IPv6.
        bind: IpAddr,
    },
    /// Files. Ports are bound as the Gateway names them, on its `spec.addresses` or on all.
    Files,
}

impl Settings {
    /// The usual settings for a mode.
    pub fn new(mode: Mode) -> Self {
        Self { controller_name: CONTROLLER_NAME.into(), mode }
    }
}
