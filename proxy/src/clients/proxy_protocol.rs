//! The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): what a proxy says of a connection before its first byte.
//!
//! Exactly the header is read and not a byte more, so that whoever reads on needs to know nothing of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a header of version 2 begins with (§2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with (§2.1).
const WORD: &[u8] = b"PROXY ";
/// Bytes of a header of version 1 at least, and at most.
const SHORTEST: usize = 15;
const LONGEST: usize = 107;
/// Bytes of a header of version 2 after its first 16: addresses, and more that isn't read.
const REST: usize = 2_048;
/// Between two looks at a beginning of which there is but a part.
const LOOK: Duration = Duration::from_millis(5);

/// Whether a connection begins with a header. Nothing is taken from it.
pub(super) async fn begins(socket: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; SIGNATURE.len()];
    loop {
        let count = socket.peek(&mut seen).await?;
        let is = |beginning: &[u8]| {
            let common = count.min(beginning.len());
            (seen[..common] == beginning[..common], common == beginning.len())
        };
        match (is(&SIGNATURE), is(WORD)) {
            _ if count == 0 => return Ok(false),
            ((true, true), _) | (_, (true, true)) => return Ok(true),
            ((false, _), (false, _)) => return Ok(false),
            // It may become one.
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Reads a header. None: the proxy speaks for itself, or for somebody without such an address. The error is what isn't a header.
pub(super) async fn read(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut begun = [0; SHORTEST];
    socket.read_exact(&mut begun).await?;
    if begun.starts_with(&SIGNATURE) {
        return read_second(socket, &begun).await;
    }
    let mut line = begun.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST || !line.starts_with(WORD) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(socket.read_u8().await?);
    }
    first(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a line of version 1 says.
fn first(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line.strip_prefix(WORD)?.strip_suffix(b"\r\n")?).ok()?;
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, _, port, other) = (words.next()?, words.next()?, words.next()?, words.next()?);
    other.parse::<u16>().ok()?;
    let source: IpAddr = match family {
        "TCP4" => source.parse::<Ipv4Addr>().ok()?.into(),
        "TCP6" => source.parse::<Ipv6Addr>().ok()?.into(),
        _ => return None,
    };
    let port = port.parse().ok()?;
    words.next().is_none().then(|| Some(SocketAddr::new(source, port)))
}

async fn read_second(socket: &mut TcpStream, begun: &[u8; SHORTEST]) -> io::Result<Option<SocketAddr>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let (command, family) = (begun[12], begun[13]);
    let length = usize::from(u16::from_be_bytes([begun[14], socket.read_u8().await?]));
    if length > REST {
        return Err(invalid());
    }
    let mut rest = vec![0; length];
    socket.read_exact(&mut rest).await?;
    match command {
        // The proxy's own connection, such as a health check.
        0x20 => Ok(None),
        0x21 => second(family, &rest).ok_or_else(invalid),
        _ => Err(invalid()),
    }
}

/// What a header of version 2 says by its family and what follows.
fn second(family: u8, rest: &[u8]) -> Option<Option<SocketAddr>> {
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    match family {
        0x11 => {
            let source: [u8; 4] = rest.get(..4)?.try_into().ok()?;
            Some(Some(SocketAddr::new(Ipv4Addr::from(source).into(), port(8).filter(|_| rest.len() >= 12)?)))
        }
        0x21 => {
            let source: [u8; 16] = rest.get(..16)?.try_into().ok()?;
            Some(Some(SocketAddr::new(Ipv6Addr::from(source).into(), port(32).filter(|_| rest.len() >= 36)?)))
        }
        // Datagrams, local sockets, and what has no family.
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_version_1_are_read_strictly() {
        let told = |line: &str| first(line.as_bytes());
        let address = |text: &str| Some(Some(text.parse::<SocketAddr>().unwrap()));
        assert_eq!(told("PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n"), address("192.0.2.1:5000"));
        assert_eq!(told("PROXY TCP6 2001:db8::1 ::1 5000 80\r\n"), address("[2001:db8::1]:5000"));
        assert_eq!(told("PROXY UNKNOWN\r\n"), Some(None));
        assert_eq!(told("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Some(None));
        for bad in [
            "PROXY TCP4 2001:db8::1 ::1 5000 80\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 5000\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 5000 80 x\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 70000 80\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 5000 80\r\n",
            "PROXY TCP4  192.0.2.1 10.0.0.1 5000 80\r\n",
            "proxy TCP4 192.0.2.1 10.0.0.1 5000 80\r\n",
        ] {
            assert_eq!(told(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_of_version_2_are_read_whole() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x13, 0x88, 0, 80];
        assert_eq!(second(0x11, &v4), Some(Some("192.0.2.1:5000".parse().unwrap())));
        assert_eq!(second(0x11, &v4[..11]), None);
        assert_eq!(second(0x21, &v4), None);
        assert_eq!(second(0x00, &[]), Some(None));
        assert_eq!(second(0x31, &[0; 216]), Some(None));
    }
}
