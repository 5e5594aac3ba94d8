//! Allocations of a request that is passed on without policies (performance.md §3): counts, which repeat exactly where times
//! don't. Clients and backends here are blocking sockets that allocate nothing while it is counted.
//!
//! One test, and a process of its own: the allocator counts for all threads.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in tests a panic is the report")]

#[path = "gateway/harness.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod harness;

use harness::Setup;
use headgate_proxy::Limits;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

#[global_allocator]
static COUNTED: dhat::Alloc = dhat::Alloc;

/// Requests before it is counted: pools and buffers are filled, tables are read.
const WARM: usize = 200;
/// Requests that are counted.
const COUNTED_REQUESTS: usize = 500;

/// Answers whatever ends like a head.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut buffer, mut length) = ([0; 8192], 0);
        loop {
            let read = stream.read(&mut buffer[length..]).unwrap_or(0);
            if read == 0 {
                return;
            }
            length += read;
            if buffer[..length].ends_with(b"\r\n\r\n") {
                length = 0;
                let answer = b"HTTP/1.1 200 OK\r\nServer: b\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
                stream.write_all(answer).unwrap();
            }
        }
    });
    address
}

/// Allocations for each of many calls of `ask`.
fn each(mut ask: impl FnMut(usize)) -> f64 {
    (0..WARM).for_each(&mut ask);
    let before = dhat::HeapStats::get().total_blocks;
    (WARM..WARM + COUNTED_REQUESTS).for_each(&mut ask);
    (dhat::HeapStats::get().total_blocks - before) as f64 / COUNTED_REQUESTS as f64
}

fn http1(address: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = [0; 8192];
    each(|_| {
        stream
            .write_all(b"GET /a HTTP/1.1\r\nHost: a.example\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
            .unwrap();
        let mut length = 0;
        while !buffer[..length].ends_with(b"hello") {
            length += stream.read(&mut buffer[length..]).unwrap();
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    })
}

/// Frames in bytes (RFC 9113 §4.1), for a client's own would be counted.
fn http2(address: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut payload = [0; 16_384];
    each(|n| {
        let id = u32::try_from(2 * n + 1).unwrap().to_be_bytes();
        // :method GET, :scheme http, :path /, and :authority as a literal.
        let mut request = *b"\0\0\x06\x01\x05....\x82\x86\x84\x01\x01a";
        request[5..9].copy_from_slice(&id);
        stream.write_all(&request).unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).unwrap();
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            stream.read_exact(&mut payload[..length]).unwrap();
            let (kind, ends) = (head[3], head[4] & 1 == 1);
            assert!(kind != 3 && kind != 7, "the stream or the connection was ended");
            if kind <= 1 && ends && head[5..9] == id {
                break;
            }
        }
    })
}

#[test]
fn a_request_allocates_little() {
    let _profiler = dhat::Profiler::builder().testing().build();
    // A half for what many requests share.
    for (name, ask, most) in [("HTTP/1.1", http1 as fn(SocketAddr) -> f64, 0.5), ("HTTP/2", http2, 5.5)] {
        let gateway = Setup::only(&[backend()]).start_with(Limits::default(), 1);
        let count = ask(gateway.address(80));
        println!("{name}: {count:.2} allocations a request");
        assert!(count <= most, "{name}: {count:.2} allocations a request, more than {most}");
    }
}
