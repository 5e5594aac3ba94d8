//! What the echo backend answers: JSON of the request, with the status and after the delay that the request asks for.
//!
//! `/status/<code>` and `/delay/<milliseconds>` at the end of the path (so that a route's prefix may stand before
//! them), or `?status=<code>&delay=<milliseconds>` in the query.

use super::websocket;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Version};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How much of a body comes back in the answer. The rest is read and counted: the whole upload still takes place.
const MAX_BODY_SHOWN: usize = 64 * 1024;

/// The longest delay: nothing sensible waits longer, and a forgotten client shouldn't hold a connection.
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// Answers one request.
///
/// # Errors
/// When the body ends before its announced end; hyper then closes the connection or resets the stream.
pub async fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    name: Arc<str>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    if let Some(accept) = websocket::accepts(&request) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::task::spawn(async move {
            // The client may go away at any time, before or after the 101.
            if let Ok(upgraded) = upgrade.await {
                let _ = websocket::echo(hyper_util::rt::TokioIo::new(upgraded)).await;
            }
        });
        return Ok(websocket::switching(accept));
    }
    let wishes = Wishes::of(request.uri().path(), request.uri().query());
    let (head, body) = request.into_parts();
    let received = receive(body).await?;
    if let Some(delay) = wishes.delay {
        tokio::time::sleep(delay).await;
    }
    let host = head.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let shown = json!({
        "name": &*name,
        "protocol": protocol(head.version),
        "method": head.method.as_str(),
        "host": host.or_else(|| head.uri.authority().map(ToString::to_string)),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": fields(&head.headers),
        "body": String::from_utf8_lossy(&received.shown),
        "bodyBytes": received.bytes,
        "trailers": received.trailers.as_ref().map(fields),
        "peer": peer.to_string(),
    });
    let mut text = format!("{shown:#}");
    text.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = wishes.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A body as far as it is shown.
struct Received {
    shown: Vec<u8>,
    bytes: u64,
    trailers: Option<HeaderMap>,
}

async fn receive<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Result<Received, B::Error> {
    let mut received = Received { shown: Vec::new(), bytes: 0, trailers: None };
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                received.bytes += data.len() as u64;
                let room = MAX_BODY_SHOWN - received.shown.len();
                received.shown.extend_from_slice(&data[..room.min(data.len())]);
            }
            Err(frame) => received.trailers = frame.into_trailers().ok(),
        }
    }
    Ok(received)
}

/// Fields by name, each with all its values in order.
fn fields(headers: &HeaderMap) -> Value {
    let text = |value: &HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
    let values = |name| headers.get_all(name).iter().map(text).collect::<Value>();
    headers.keys().map(|name| (name.as_str(), values(name))).collect()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// What the request wants the answer to be.
#[derive(Debug, PartialEq)]
struct Wishes {
    status: StatusCode,
    delay: Option<Duration>,
}

impl Wishes {
    /// Reads path and query; what can't be read (or isn't a final status) is not wished.
    fn of(path: &str, query: Option<&str>) -> Self {
        let mut wishes = Self { status: StatusCode::OK, delay: None };
        let mut segments = path.rsplit('/');
        if let (Some(value), Some(name)) = (segments.next(), segments.next()) {
            wishes.take(name, value);
        }
        for (name, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
            wishes.take(name, value);
        }
        wishes
    }

    fn take(&mut self, name: &str, value: &str) {
        match name {
            "status" => {
                let status = StatusCode::from_bytes(value.as_bytes()).ok();
                self.status = status.filter(|status| !status.is_informational()).unwrap_or(self.status);
            }
            "delay" => {
                let delay = value.parse().ok().map(Duration::from_millis);
                self.delay = delay.map(|delay| delay.min(MAX_DELAY)).or(self.delay);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(path: &str, query: Option<&str>) -> (u16, Option<u64>) {
        let wishes = Wishes::of(path, query);
        (wishes.status.as_u16(), wishes.delay.map(|delay| delay.as_millis() as u64))
    }

    #[test]
    fn status_and_delay_come_from_path_or_query() {
        assert_eq!(wishes("/", None), (200, None));
        assert_eq!(wishes("/status/503", None), (503, None));
        assert_eq!(wishes("/some/prefix/delay/250", None), (200, Some(250)));
        assert_eq!(wishes("/a", Some("status=404&x&delay=5")), (404, Some(5)));
    }

    #[test]
    fn nonsense_is_ignored_and_delays_are_bounded() {
        assert_eq!(wishes("/status/100", None), (200, None));
        assert_eq!(wishes("/status/abc", Some("delay=-1")), (200, None));
        assert_eq!(wishes("/delay/99999999", None), (200, Some(60_000)));
    }

    #[test]
    fn fields_keep_all_values_in_order() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "1".parse().unwrap());
        headers.append("x-b", "2".parse().unwrap());
        headers.append("x-a", "3".parse().unwrap());
        assert_eq!(fields(&headers), json!({"x-a": ["1", "3"], "x-b": ["2"]}));
    }

    #[tokio::test]
    async fn long_bodies_are_counted_whole_and_shown_in_part() {
        let body = Full::new(Bytes::from(vec![b'a'; MAX_BODY_SHOWN + 10]));
        let received = receive(body).await.unwrap();
        assert_eq!((received.bytes, received.shown.len()), (MAX_BODY_SHOWN as u64 + 10, MAX_BODY_SHOWN));
    }
}
