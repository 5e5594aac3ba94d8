//! What a line says about a request, and its two forms.

use crate::model::{BackendId, ListenerId};
use crate::rejection::Rejection;
use crate::router::RuleId;
use http::Version;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// A request that is over. JSON keys are the field names here; what isn't known is left out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Record<'a> {
    /// When its head was read.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The client's address.
    pub peer: SocketAddr,
    /// Method.
    pub method: &'a str,
    /// Host and port as the client asked for them.
    pub host: &'a str,
    /// Path as it was matched, with the query as it came; as it came if it was refused.
    pub path: &'a str,
    /// Version of HTTP between client and us.
    #[serde(serialize_with = "version")]
    pub protocol: Version,
    /// TLS between client and us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsInfo<'a>>,
    /// Status code that the client got.
    pub status: u16,
    /// From its head read to the response sent; of an upgraded stream, to its end.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Bytes of the request's body.
    pub received_bytes: u64,
    /// Bytes of the response's body.
    pub sent_bytes: u64,
    /// Why the gateway answered instead of the backend.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reason")]
    pub rejection: Option<Rejection>,
    /// The listener that it came to.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text_of")]
    pub listener: Option<&'a ListenerId>,
    /// The rule that took it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text_of")]
    pub rule: Option<&'a RuleId>,
    /// The backend it went to.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text_of")]
    pub backend: Option<&'a BackendId>,
    /// The endpoint that answered, or was tried last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    /// `User-Agent`, as bytes: it need not be text.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "lossy")]
    pub user_agent: Option<&'a [u8]>,
    /// By what name a policy knows the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<&'a str>,
}

/// TLS between client and us.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TlsInfo<'a> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Server name that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<&'a str>,
}

impl Record<'_> {
    /// The line as a JSON object.
    pub(super) fn to_json(self) -> Vec<u8> {
        // A typical line has 500 bytes.
        let mut line = Vec::with_capacity(640);
        serde_json::to_writer(&mut line, &self).expect("plain data with text keys, written to memory");
        line.push(b'\n');
        line
    }

    /// The line as text. Fields stand in a fixed order, `-` where one isn't known.
    pub(super) fn to_text(self) -> Vec<u8> {
        let mut line = String::with_capacity(320);
        let protocol = version_text(self.protocol);
        let agent = self.user_agent.map(String::from_utf8_lossy).unwrap_or(Cow::Borrowed("-"));
        let written = write!(
            line,
            "{} {} \"{} {}{} {protocol}\" {} {} {} {:.3} {} {} {} {} {} {} \"{}\"",
            Time(self.time),
            self.peer.ip().to_canonical(),
            Quoted(self.method),
            Quoted(self.host),
            Quoted(self.path),
            self.status,
            self.received_bytes,
            self.sent_bytes,
            self.duration.as_secs_f64(),
            OrDash(self.rejection.map(Rejection::reason)),
            OrDash(self.rule),
            OrDash(self.backend),
            OrDash(self.endpoint),
            OrDash(self.tls.map(|tls| tls.version)),
            OrDash(self.request_id.map(Quoted)),
            Quoted(&agent),
        );
        written.expect("a String takes whatever is written");
        line.push('\n');
        line.into_bytes()
    }
}

/// Text of a request between quotes: nothing in it ends the quotes or the line, or moves a terminal's cursor.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c == ' ' || c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        if self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        self.0.chars().try_for_each(|c| match plain(c) {
            true => f.write_char(c),
            false => write!(f, "{}", c.escape_default()),
        })
    }
}

struct OrDash<T>(Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// A time in UTC by RFC 3339, to the millisecond.
struct Time(SystemTime);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A clock before 1970 is broken: the epoch says so plainly enough.
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let milliseconds = since.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
    }
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant, `civil_from_days`): years are counted
/// from March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP",
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Time(*time))
}

fn version<S: Serializer>(version: &Version, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(version_text(*version))
}

fn milliseconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    // Whole microseconds: more digits say nothing.
    to.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

fn reason<S: Serializer>(rejection: &Option<Rejection>, to: S) -> Result<S::Ok, S::Error> {
    rejection.map(Rejection::reason).serialize(to)
}

fn text_of<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

fn lossy<S: Serializer>(bytes: &Option<&[u8]>, to: S) -> Result<S::Ok, S::Error> {
    bytes.map(String::from_utf8_lossy).serialize(to)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{BackendKind, ObjectName, RouteId, RouteKind, Transport};

    pub(crate) fn record() -> Record<'static> {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_441_576_123),
            peer: "[::ffff:192.0.2.7]:5000".parse().unwrap(),
            method: "GET",
            host: "shop.example:8080",
            path: "/a?b=c",
            protocol: Version::HTTP_11,
            tls: None,
            status: 200,
            duration: Duration::from_micros(1_500),
            received_bytes: 0,
            sent_bytes: 512,
            rejection: None,
            listener: None,
            rule: None,
            backend: None,
            endpoint: None,
            request_id: None,
            user_agent: None,
            consumer: None,
        }
    }

    #[test]
    fn json_leaves_out_what_is_not_known() {
        let line = record().to_json();
        assert_eq!(line.last(), Some(&b'\n'));
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2026-11-23T13:46:16.123Z", "peer": "[::ffff:192.0.2.7]:5000", "method": "GET",
            "host": "shop.example:8080", "path": "/a?b=c", "protocol": "HTTP/1.1", "status": 200,
            "duration_ms": 1.5, "received_bytes": 0, "sent_bytes": 512,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn json_names_what_took_the_request() {
        let name = ObjectName::new("shop", "web");
        let rule =
            RuleId { route: RouteId { kind: RouteKind::Http, name: name.clone() }, index: 2, name: None };
        let backend =
            BackendId { kind: BackendKind::Service, name: name.clone(), port: 80, transport: Transport::Tcp };
        let listener = ListenerId { gateway: name, listener_set: None, name: "https".into() };
        let line = Record {
            tls: Some(TlsInfo { version: "TLSv1.3", sni: Some("shop.example") }),
            rejection: Some(Rejection::ConnectFailed),
            listener: Some(&listener),
            rule: Some(&rule),
            backend: Some(&backend),
            endpoint: Some("10.0.0.3:8080".parse().unwrap()),
            request_id: Some("id"),
            user_agent: Some(b"curl\xff"),
            consumer: Some("alice"),
            ..record()
        };
        let json: serde_json::Value = serde_json::from_slice(&line.to_json()).unwrap();
        for (key, value) in [
            ("rejection", "connect_failed"),
            ("listener", "shop/web/https"),
            ("rule", "HTTPRoute/shop/web/2"),
            ("backend", "shop/web:80"),
            ("endpoint", "10.0.0.3:8080"),
            ("request_id", "id"),
            ("user_agent", "curl\u{fffd}"),
            ("consumer", "alice"),
        ] {
            assert_eq!(json[key], value);
        }
        assert_eq!(json["tls"], serde_json::json!({"version": "TLSv1.3", "sni": "shop.example"}));
        assert_eq!(
            String::from_utf8(line.to_text()).unwrap(),
            "2026-11-23T13:46:16.123Z 192.0.2.7 \"GET shop.example:8080/a?b=c HTTP/1.1\" 200 0 512 0.002 \
             connect_failed HTTPRoute/shop/web/2 shop/web:80 10.0.0.3:8080 TLSv1.3 id \"curl\\u{fffd}\"\n"
        );
    }

    #[test]
    fn text_has_a_dash_for_what_is_not_known() {
        assert_eq!(
            String::from_utf8(record().to_text()).unwrap(),
            "2026-11-23T13:46:16.123Z 192.0.2.7 \"GET shop.example:8080/a?b=c HTTP/1.1\" 200 0 512 0.002 \
             - - - - - - \"-\"\n"
        );
    }

    #[test]
    fn nobody_can_write_a_line_of_their_own() {
        let evil =
            Record { path: "/\"\n2026 forged\u{1b}[2J\\", user_agent: Some(b"\"\r\nforged"), ..record() };
        for line in [evil.to_json(), evil.to_text()] {
            assert_eq!(line.iter().filter(|byte| byte.is_ascii_control()).count(), 1, "its own line end");
        }
        assert!(String::from_utf8(evil.to_text()).unwrap().contains(r#"/\"\n2026 forged\u{1b}[2J\\ HTTP"#));
    }

    #[test]
    fn days_are_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Time(time).to_string(), date);
        }
    }
}
