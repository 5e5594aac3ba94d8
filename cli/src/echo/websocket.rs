//! WebSocket (RFC 6455) as far as an echo needs it: the handshake's answer, then every data frame back unmasked and
//! in the client's own fragments, pings answered, close answered. Extensions and subprotocols are never agreed to.

use aws_lc_rs::digest;
use base64::Engine;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Request, Response, StatusCode, Version};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Appended to the client's key before hashing (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The largest frame: it is held whole to be echoed. Far above what demos and tests send.
const MAX_FRAME: u64 = 16 * 1024 * 1024;

const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The value of `Sec-WebSocket-Accept` when the request opens a WebSocket, else nothing.
pub fn accepts<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let opens = request.version() == Version::HTTP_11
        && has_token(headers, &UPGRADE, "websocket")
        && has_token(headers, &CONNECTION, "upgrade");
    let key = headers.get("sec-websocket-key").filter(|_| opens)?;
    HeaderValue::from_str(&accept(key.as_bytes())).ok()
}

/// The 101 that opens it.
pub fn switching(accept: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (HeaderName::from_static("sec-websocket-accept"), accept),
    ]);
    response
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

fn accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID);
    base64::engine::general_purpose::STANDARD.encode(hash.finish())
}

/// Echoes until the client closes.
///
/// # Errors
/// When the connection breaks, or the client breaks the protocol (a frame without mask or above [`MAX_FRAME`]).
pub async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    loop {
        let (head, payload) = read_frame(&mut stream).await?;
        match head & 0x0F {
            CLOSE => {
                write_frame(&mut stream, head, &payload).await?;
                return stream.shutdown().await;
            }
            PING => write_frame(&mut stream, FIN | PONG, &payload).await?,
            PONG => {}
            _ => write_frame(&mut stream, head, &payload).await?,
        }
    }
}

/// First byte (FIN and opcode) and unmasked payload of the next frame.
async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(u8, Vec<u8>)> {
    let head = stream.read_u8().await?;
    let length = stream.read_u8().await?;
    if length & MASKED == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a client's frame must be masked"));
    }
    let length = match length & !MASKED {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((head, payload))
}

async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, head: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(head);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 §1.3.
    #[test]
    fn accept_is_the_standards_example() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_a_whole_handshake_is_accepted() {
        let handshake = |upgrade: &str, connection: &str| {
            Request::get("/")
                .header("upgrade", upgrade)
                .header("connection", connection)
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                .body(())
                .unwrap()
        };
        assert!(accepts(&handshake("WebSocket", "keep-alive, Upgrade")).is_some());
        assert!(accepts(&handshake("h2c", "Upgrade")).is_none());
        assert!(accepts(&handshake("websocket", "close")).is_none());
    }

    fn masked(head: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![head];
        match payload.len() {
            length @ 0..126 => frame.push(MASKED | length as u8),
            length => {
                frame.push(MASKED | 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    #[tokio::test]
    async fn frames_come_back_pings_are_answered_and_close_ends() {
        let (mut client, server) = tokio::io::duplex(1024);
        let server = tokio::spawn(echo(server));
        let long = vec![b'x'; 300];
        for frame in
            [masked(0x81, b"hello"), masked(0x89, b"p"), masked(0x82, &long), masked(0x88, &[3, 232])]
        {
            client.write_all(&frame).await.unwrap();
        }
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        let mut expected = b"\x81\x05hello\x8a\x01p\x82\x7e\x01\x2c".to_vec();
        expected.extend(&long);
        expected.extend([0x88, 2, 3, 232]);
        assert_eq!(answer, expected);
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_unmasked_frame_is_an_error() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&[0x81, 0x01, b'x']).await.unwrap();
        assert_eq!(echo(server).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
