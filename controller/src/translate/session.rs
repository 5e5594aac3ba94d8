//! `sessionPersistence` of a rule.

use crate::api::http_route::{CookieLifetimeType, SessionPersistence, SessionPersistenceType};
use aws_lc_rs::digest::{SHA256, digest};
use headgate_proxy::model::{Carrier, Session, Text};
use headgate_proxy::session::check;
use std::str::FromStr;
use std::time::Duration;

/// Translates what is said of whatever `of` names, which no other thing is named. The error has the field relative to it.
pub(super) fn translate(from: &SessionPersistence, of: &str) -> Result<Session, String> {
    let lifetime = from.absolute_timeout.as_deref().map(gateway_api::Duration::from_str).transpose();
    let lifetime = lifetime
        .map_err(|error| format!("absoluteTimeout: {error}"))?
        .map(|lifetime| Duration::new(lifetime.as_secs(), lifetime.subsec_nanos()));
    let carrier = match from.r#type {
        None | Some(SessionPersistenceType::Cookie) => {
            let cookie = from.cookie.clone().unwrap_or_default();
            let name = cookie.name.map_or_else(|| own_name(of), Into::into);
            let path = cookie.path.as_deref().unwrap_or("/").into();
            let permanent = match cookie.lifetime_type {
                None | Some(CookieLifetimeType::Session) => false,
                Some(CookieLifetimeType::Permanent) => true,
            };
            Carrier::Cookie { name, path, permanent }
        }
        Some(SessionPersistenceType::Header) => {
            let header = from.header.as_ref().ok_or("header is missing; type Header needs its name")?;
            Carrier::Header { name: header.name.to_ascii_lowercase().into() }
        }
    };
    let session = Session { carrier, lifetime };
    check(&session)?;
    Ok(session)
}

/// The name of a cookie that has none: the same in all replicas, and another for everything that has sessions, for browsers
/// send all cookies of a host.
fn own_name(of: &str) -> Text {
    let hash = digest(&SHA256, of.as_bytes());
    let hash: String = hash.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("headgate-{hash}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(from: serde_json::Value) -> Result<Session, String> {
        translate(&serde_json::from_value(from).unwrap(), "ns/route/0")
    }

    #[test]
    fn a_session_is_a_cookie_for_the_whole_host_by_default() {
        let Carrier::Cookie { name, path, permanent } = session(serde_json::json!({})).unwrap().carrier
        else {
            panic!("a cookie is the default");
        };
        assert!(name.starts_with("headgate-"), "{name}");
        assert_eq!((&*path, permanent), ("/", false));
        assert_ne!(own_name("ns/route/1"), name);
    }

    #[test]
    fn all_fields_are_translated() {
        let from = serde_json::json!({
            "absoluteTimeout": "1h30m",
            "cookie": {"name": "shop", "path": "/cart", "lifetimeType": "Permanent"},
        });
        let carrier = Carrier::Cookie { name: "shop".into(), path: "/cart".into(), permanent: true };
        let lifetime = Some(Duration::from_secs(5400));
        assert_eq!(session(from), Ok(Session { carrier, lifetime }));
        let header = serde_json::json!({"type": "Header", "header": {"name": "X-Shop"}});
        let carrier = Carrier::Header { name: "x-shop".into() };
        assert_eq!(session(header), Ok(Session { carrier, lifetime: None }));
    }

    #[test]
    fn what_is_missing_or_malformed_is_told() {
        for (from, field) in [
            (serde_json::json!({"type": "Header"}), "header"),
            (serde_json::json!({"cookie": {"lifetimeType": "Permanent"}}), "cookie.lifetimeType"),
            (serde_json::json!({"absoluteTimeout": "1 hour"}), "absoluteTimeout"),
        ] {
            let why = session(from).unwrap_err();
            assert!(why.starts_with(field), "{why}");
        }
    }
}
