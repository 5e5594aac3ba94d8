//! The backend behind every endpoint: says the version that the route gave the request, and the Service whose address it came to.

use crate::objects;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a request, at most: it has no body.
const REQUEST: usize = 8 * 1024;
const FIELDS: usize = 32;

/// Serves on a thread of its own, to the end of the process.
pub fn start() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let listener = runtime
        .block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, objects::PORT)))
        .context("bind the backend's port")?;
    std::thread::Builder::new().name("backend".to_owned()).spawn(move || {
        runtime.block_on(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(converse(stream))),
                    Err(error) => eprintln!("the backend can't accept a connection: {error}"),
                }
            }
        });
    })?;
    Ok(())
}

/// Until the proxy closes the connection: how is its own affair, and its answers tell.
async fn converse(mut stream: TcpStream) {
    let Ok(address) = stream.local_addr() else { return };
    // Without it answers would wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(1024);
    loop {
        match reply(&buffer, address) {
            Some((reply, used)) => {
                buffer.drain(..used);
                if stream.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
            }
            None if buffer.len() > REQUEST => return,
            None => match stream.read_buf(&mut buffer).await {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => return,
            },
        }
    }
}

/// The answer to a request, once all of it is there, and the request's bytes.
fn reply(buffer: &[u8], address: SocketAddr) -> Option<(String, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let used = match request.parse(buffer) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some((answer("400 Bad Request", "not a request"), buffer.len())),
    };
    let version = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(objects::HEADER));
    let version = version.map(|field| String::from_utf8_lossy(field.value)).unwrap_or_default();
    let service = match address {
        SocketAddr::V4(address) => objects::service_at(*address.ip()),
        SocketAddr::V6(_) => None,
    };
    let service = service.map_or_else(|| "nobody".to_owned(), |service| service.to_string());
    Some((answer("200 OK", &format!("{version} {service}")), used))
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_service_are_told() {
        let address = SocketAddr::from((objects::moved(42, 3), objects::PORT));
        let request = b"GET /api HTTP/1.1\r\nHost: a\r\nX-Version: 7\r\n\r\n";
        let (reply, used) = super::reply(request, address).unwrap();
        assert!(reply.ends_with("\r\n\r\n7 42"), "{reply}");
        assert_eq!(used, request.len());
        assert_eq!(super::reply(&request[..20], address), None);
    }
}
