//! The protocol of Redis and Valkey (RESP 2): commands as bytes, and replies out of bytes. Must not know what is said in it.

use bytes::{Buf, BytesMut};

/// Bytes of a reply; those that we ask for have a few hundred.
const REPLY: usize = 64 * 1024;
/// Arrays in arrays.
const DEPTH: usize = 4;

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A word, such as `OK`.
    Status(String),
    /// It begins with a word in capitals that says which, such as `NOSCRIPT`.
    Error(String),
    Integer(i64),
    /// Bytes, or that there are none.
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

/// What isn't the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer isn't that of Redis")]
pub(super) struct Garbled;

/// Puts a command behind others.
pub(super) fn command<'a>(to: &mut Vec<u8>, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
    let head = |to: &mut Vec<u8>, kind: u8, length: usize| {
        to.push(kind);
        to.extend(itoa::Buffer::new().format(length).as_bytes());
        to.extend(b"\r\n");
    };
    head(to, b'*', parts.len());
    for part in parts {
        head(to, b'$', part.len());
        to.extend(part);
        to.extend(b"\r\n");
    }
}

/// Takes a reply, if there is a whole one.
pub(super) fn take(from: &mut BytesMut) -> Result<Option<Reply>, Garbled> {
    let mut rest = &from[..];
    match read(&mut rest, DEPTH)? {
        Some(reply) => {
            let length = from.len() - rest.len();
            from.advance(length);
            Ok(Some(reply))
        }
        None if from.len() > REPLY => Err(Garbled),
        None => Ok(None),
    }
}

fn read(from: &mut &[u8], depth: usize) -> Result<Option<Reply>, Garbled> {
    let Some(end) = from.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = &from[..end];
    *from = &from[end + 2..];
    let (kind, line) = line.split_first().ok_or(Garbled)?;
    let text = || String::from_utf8_lossy(line).into_owned();
    let number = || std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok()).ok_or(Garbled);
    Ok(Some(match kind {
        b'+' => Reply::Status(text()),
        b'-' => Reply::Error(text()),
        b':' => Reply::Integer(number()?),
        b'$' => match length(number()?)? {
            None => Reply::Bulk(None),
            Some(length) if from.len() < length + 2 => return Ok(None),
            Some(length) => {
                let (bytes, rest) = from.split_at(length);
                *from = rest.strip_prefix(b"\r\n").ok_or(Garbled)?;
                Reply::Bulk(Some(bytes.to_vec()))
            }
        },
        b'*' => {
            let depth = depth.checked_sub(1).ok_or(Garbled)?;
            let mut all = Vec::new();
            for _ in 0..length(number()?)?.unwrap_or(0) {
                match read(from, depth)? {
                    Some(one) => all.push(one),
                    None => return Ok(None),
                }
            }
            Reply::Array(all)
        }
        _ => return Err(Garbled),
    }))
}

/// None: -1, which stands for nothing.
fn length(said: i64) -> Result<Option<usize>, Garbled> {
    match usize::try_from(said) {
        Ok(length) if length <= REPLY => Ok(Some(length)),
        Err(_) if said == -1 => Ok(None),
        Ok(_) | Err(_) => Err(Garbled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bytes() {
        let mut bytes = Vec::new();
        command(&mut bytes, [&b"GET"[..], b"a\r\nb"].into_iter());
        assert_eq!(bytes, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn replies_are_taken_when_they_are_whole() {
        let whole = b"*3\r\n:-1\r\n$2\r\n\r\n\r\n*1\r\n$-1\r\n+OK\r\n-ERR no\r\n";
        let array = Reply::Array(vec![
            Reply::Integer(-1),
            Reply::Bulk(Some(b"\r\n".to_vec())),
            Reply::Array(vec![Reply::Bulk(None)]),
        ]);
        let first = whole.len() - b"+OK\r\n-ERR no\r\n".len();
        for end in 0..first {
            assert_eq!(take(&mut BytesMut::from(&whole[..end])), Ok(None), "{end}");
        }
        let mut bytes = BytesMut::from(&whole[..]);
        assert_eq!(take(&mut bytes), Ok(Some(array)));
        assert_eq!(take(&mut bytes), Ok(Some(Reply::Status("OK".to_owned()))));
        assert_eq!(take(&mut bytes), Ok(Some(Reply::Error("ERR no".to_owned()))));
        assert_eq!(take(&mut bytes), Ok(None));
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_no_reply_ends_the_conversation() {
        let deep = "*1\r\n".repeat(9);
        for odd in
            ["HTTP/1.1 400\r\n", "\r\n", "$-2\r\n", "$99999999\r\n", ":one\r\n", "$1\r\nabc\r\n", &deep]
        {
            assert_eq!(take(&mut BytesMut::from(odd)), Err(Garbled), "{odd}");
        }
        assert_eq!(take(&mut BytesMut::from(&[b'+'; REPLY + 1][..])), Err(Garbled));
    }
}
