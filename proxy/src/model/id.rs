//! Typed ids. Parts of the model refer to each other by these, never by joined strings; their `Display`
//! forms are for people, logs and metric labels.

use arcstr::ArcStr;
use serde::Serialize;
use std::fmt;

/// Immutable text that is cheap to share.
pub type Text = ArcStr;

/// Namespace and name of the object that a part of the model came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectName {
    /// Namespace, never empty.
    pub namespace: Text,
    /// Name within the namespace.
    pub name: Text,
}

impl ObjectName {
    /// Names an object.
    pub fn new(namespace: impl Into<Text>, name: impl Into<Text>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What carries bytes: ports of the two are apart, whatever their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// Whether it is TCP: what goes without saying.
    pub fn is_tcp(&self) -> bool {
        *self == Self::Tcp
    }

    /// As Services name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// After a number, for people: nothing, or `/UDP`.
    fn suffix(self) -> &'static str {
        match self {
            Self::Tcp => "",
            Self::Udp => "/UDP",
        }
    }
}

/// A port of a Gateway, as its listeners name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortId {
    /// The Gateway.
    pub gateway: ObjectName,
    /// The port clients connect to.
    pub port: u16,
    /// By what they come.
    #[serde(skip_serializing_if = "Transport::is_tcp")]
    pub transport: Transport,
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.gateway, self.port, self.transport.suffix())
    }
}

/// A listener of a Gateway, declared by the Gateway itself or by a ListenerSet attached to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ListenerId {
    /// The Gateway that serves the listener.
    pub gateway: ObjectName,
    /// The ListenerSet that declares it; absent when the Gateway does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_set: Option<ObjectName>,
    /// The listener's name (`sectionName`).
    pub name: Text,
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.listener_set {
            None => write!(f, "{}/{}", self.gateway, self.name),
            Some(set) => write!(f, "{}/{}/{}", self.gateway, set, self.name),
        }
    }
}

/// Kinds of route object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum RouteKind {
    /// `HTTPRoute`.
    #[serde(rename = "HTTPRoute")]
    Http,
    /// `GRPCRoute`: HTTP/2 to its backends, whatever they are said to speak.
    #[serde(rename = "GRPCRoute")]
    Grpc,
    /// `TLSRoute`.
    #[serde(rename = "TLSRoute")]
    Tls,
    /// `TCPRoute`.
    #[serde(rename = "TCPRoute")]
    Tcp,
    /// `UDPRoute`.
    #[serde(rename = "UDPRoute")]
    Udp,
}

impl RouteKind {
    /// As YAML has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
        }
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A route object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RouteId {
    /// Kind of the object.
    pub kind: RouteKind,
    /// Its name.
    #[serde(flatten)]
    pub name: ObjectName,
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Kinds of object that a route can forward to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum BackendKind {
    /// A core `Service`.
    Service,
    /// An `XBackend` of the Gateway API (GEP-4894).
    XBackend,
}

/// One port of a backend object: what has endpoints, connection pools and health of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BackendId {
    /// Kind of the object.
    pub kind: BackendKind,
    /// Its name.
    #[serde(flatten)]
    pub name: ObjectName,
    /// Its port (a Service's port, not the pods'; an XBackend's is the pods').
    pub port: u16,
    /// By what its endpoints are reached.
    #[serde(skip_serializing_if = "Transport::is_tcp")]
    pub transport: Transport,
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A Service goes without saying.
        match self.kind {
            BackendKind::Service => {}
            BackendKind::XBackend => f.write_str("XBackend/")?,
        }
        write!(f, "{}:{}{}", self.name, self.port, self.transport.suffix())
    }
}
