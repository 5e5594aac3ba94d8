//! HTTP/2 on either side or both: clients with prior knowledge, backends in clear text, trailers, gRPC's way of using it.

use crate::harness::{Backend, Gateway, Setup, backend_id, ok, soon, to};
use bytes::{Bytes, BytesMut};
use headgate_proxy::model::{Action, BackendProtocol, ClientHeaders, Clients, Failure};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A body that a test feeds frame by frame, or whose frames are all there.
pub struct Frames(mpsc::Receiver<Frame<Bytes>>);

impl Frames {
    pub fn channel() -> (mpsc::Sender<Frame<Bytes>>, Self) {
        let (sender, receiver) = mpsc::channel(16);
        (sender, Self(receiver))
    }

    pub fn of(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        let (sender, body) = Self::channel();
        frames.into_iter().for_each(|frame| sender.try_send(frame).unwrap());
        body
    }

    pub fn empty() -> Self {
        Self::of([])
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }
}

pub fn data(bytes: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(bytes.into())
}

fn trailers(name: &'static str, value: &str) -> Frame<Bytes> {
    let mut fields = HeaderMap::new();
    fields.insert(name, value.parse().unwrap());
    Frame::trailers(fields)
}

/// Speaks HTTP/2 on a connection.
pub async fn client(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Frames> {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
    let (sender, connection) = soon(handshake).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub async fn connect(address: SocketAddr) -> SendRequest<Frames> {
    client(soon(TcpStream::connect(address)).await.unwrap()).await
}

pub fn request(method: Method, uri: &str, body: Frames) -> Request<Frames> {
    Request::builder().method(method).uri(uri).version(Version::HTTP_2).body(body).unwrap()
}

pub fn get(uri: &str) -> Request<Frames> {
    request(Method::GET, uri, Frames::empty())
}

/// A response's body as text, and its trailers.
pub async fn whole(response: Response<Incoming>) -> (String, HeaderMap) {
    let body = soon(response.into_body().collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    (String::from_utf8(body.to_bytes().into()).unwrap(), trailers)
}

async fn next(body: &mut Incoming) -> Frame<Bytes> {
    soon(body.frame()).await.expect("a frame").unwrap()
}

/// A backend that speaks HTTP/2 only.
pub async fn http2_backend<F>(
    serve: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> Backend
where
    F: Future<Output = Response<Frames>> + Send + 'static,
{
    Backend::raw(move |stream, _| {
        let serve = serve.clone();
        let service = service_fn(move |request| {
            let answer = serve(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        async { drop(connection.await) }
    })
    .await
}

/// Says what it was asked, as the HTTP/1.1 one does.
pub async fn http2_echo() -> Backend {
    http2_backend(|request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let mut text = format!("{} {} {:?}\n", parts.method, parts.uri, parts.version);
        for (name, value) in &parts.headers {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        let text = [text.as_bytes(), b"\n", &body.to_bytes()].concat();
        let mut frames = vec![data(text)];
        frames.extend(trailers.map(Frame::trailers));
        // An HTTP/1.1 client gets the trailers that were announced.
        Response::builder().header("trailer", "x-sum").body(Frames::of(frames)).unwrap()
    })
    .await
}

fn h2c(address: SocketAddr) -> Setup {
    let mut setup = Setup::http();
    setup.backend("h2c", BackendProtocol::H2c, &[address]).route("all", "/", to("h2c"));
    setup
}

#[tokio::test]
async fn a_client_with_prior_knowledge_reaches_an_http1_backend() {
    let backend = Backend::echo().await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = connect(gateway.address(80)).await;
    let mut asked = get("http://example.com/a/b?c=d");
    asked.headers_mut().append("cookie", "a=1".parse().unwrap());
    asked.headers_mut().append("cookie", "b=2".parse().unwrap());
    let response = soon(client.send_request(asked)).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    assert!(!response.headers().contains_key("connection"));
    let (seen, _) = whole(response).await;
    assert!(seen.starts_with("GET /a/b?c=d HTTP/1.1\n"), "{seen}");
    for line in ["\nhost: example.com\n", "\nx-forwarded-proto: http\n", "\ncookie: a=1; b=2\n"] {
        assert!(seen.to_lowercase().contains(line), "{line:?} in {seen}");
    }
    let body = Frames::of([data("one "), data("two"), trailers("x-sum", "3")]);
    let asked = request(Method::POST, "http://example.com/", body);
    let (seen, _) = whole(soon(client.send_request(asked)).await.unwrap()).await;
    assert!(seen.ends_with("\n\none twox-sum: 3\n"), "{seen}");
    let head = request(Method::HEAD, "http://example.com/", Frames::empty());
    let backend = Backend::http(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()).await;
    gateway.publish(&Setup::only(&[backend.address]));
    let response = soon(client.send_request(head)).await.unwrap();
    assert_eq!(response.headers().get("content-length").unwrap(), "5");
    assert_eq!(whole(response).await.0, "");
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let backend = Backend::echo().await;
    let gateway = Setup::only(&[backend.address]).start();
    let client = connect(gateway.address(80)).await;
    let streams = (0..500).map(|n| {
        let mut client = client.clone();
        async move {
            soon(client.ready()).await.unwrap();
            let body = Frames::of([data(format!("body of {n}"))]);
            let asked = request(Method::POST, &format!("http://example.com/{n}"), body);
            let (seen, _) = whole(soon(client.send_request(asked)).await.unwrap()).await;
            assert!(
                seen.starts_with(&format!("POST /{n} ")) && seen.ends_with(&format!("\n\nbody of {n}")),
                "{seen}"
            );
        }
    });
    futures_util::future::join_all(streams).await;
}

#[tokio::test]
async fn big_bodies_stream_through_both_versions() {
    const PIECES: usize = 64;
    let echo = http2_backend(|request: Request<Incoming>| async move {
        let (sender, body) = Frames::channel();
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Response::new(body)
    })
    .await;
    let http1 = Backend::http(|request| ok(&request.body)).await;
    for setup in [h2c(echo.address), Setup::only(&[http1.address])] {
        let gateway = setup.start();
        let mut client = connect(gateway.address(80)).await;
        let (feed, body) = Frames::channel();
        let feeding = tokio::spawn(async move {
            for piece in 0..PIECES {
                feed.send(data(vec![piece as u8; 64 * 1024])).await.unwrap();
            }
        });
        let response = soon(client.send_request(request(Method::POST, "http://a/", body))).await.unwrap();
        let seen = soon(response.into_body().collect()).await.unwrap().to_bytes();
        soon(feeding).await.unwrap();
        assert!(
            seen.len() == PIECES << 16
                && seen
                    .chunks(1 << 16)
                    .enumerate()
                    .all(|(n, piece)| piece.iter().all(|byte| *byte == n as u8))
        );
    }
}

#[tokio::test]
async fn an_http1_client_reaches_an_http2_backend() {
    let backend = http2_echo().await;
    let gateway = h2c(backend.address).start();
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let seen = client.get("/a?b").await.text();
        assert!(seen.starts_with("GET http://example.com/a?b HTTP/2.0\n"), "{seen}");
        assert!(!seen.contains("\nconnection:") && !seen.contains("\nhost:"), "{seen}");
        assert!(client.post("/", b"hello").await.text().ends_with("\n\nhello"));
    }
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n")
        .await;
    let response = client.response().await;
    assert!(
        response.text().ends_with("\n\nhi") && response.text().contains("\nte: trailers\n"),
        "{response:?}"
    );
    assert_eq!(response.trailers.to_lowercase(), "x-sum: 2\n");
    // All of it on one connection of the thread that has the client.
    assert_eq!(backend.connections(), 1);
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.get("/").await.status(), 200);
}

/// One message at a time in each direction, the status at the end: what a bidirectional gRPC call does.
#[tokio::test]
async fn grpc_talks_both_ways_and_ends_with_trailers() {
    let backend = http2_backend(|request: Request<Incoming>| async move {
        assert_eq!(request.headers().get("te").unwrap(), "trailers");
        let (sender, body) = Frames::channel();
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                // The end of the stream may come as an empty frame.
                if let Some(message) = frame.into_data().ok().filter(|message| !message.is_empty()) {
                    sender.send(data([b"re: ", &*message].concat())).await.unwrap();
                }
            }
            sender.send(trailers("grpc-status", "0")).await.unwrap();
        });
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    })
    .await;
    let gateway = h2c(backend.address).start();
    let mut client = connect(gateway.address(80)).await;
    let (sender, body) = Frames::channel();
    let mut call = request(Method::POST, "http://example.com/pkg.Service/Method", body);
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    call.headers_mut().insert("te", "trailers".parse().unwrap());
    let response = soon(client.send_request(call)).await.unwrap();
    assert_eq!(response.headers().get("content-type").unwrap(), "application/grpc");
    let mut incoming = response.into_body();
    for message in ["one", "two", "three"] {
        sender.send(data(message)).await.unwrap();
        let mut answer = BytesMut::new();
        while answer.len() < message.len() + 4 {
            answer.extend(next(&mut incoming).await.into_data().unwrap());
        }
        assert_eq!(answer, format!("re: {message}"));
    }
    drop(sender);
    let end = next(&mut incoming).await.into_trailers().unwrap();
    assert_eq!(end.get("grpc-status").unwrap(), "0");
    assert!(soon(incoming.frame()).await.is_none());
}

#[tokio::test]
async fn an_answer_of_trailers_only_keeps_its_status() {
    let backend = http2_backend(|_| async {
        let response = Response::builder().header("grpc-status", "5").header("grpc-message", "no such thing");
        response.body(Frames::empty()).unwrap()
    })
    .await;
    let gateway = h2c(backend.address).start();
    let mut client = connect(gateway.address(80)).await;
    let response = soon(client.send_request(get("http://a/"))).await.unwrap();
    assert_eq!(response.headers().get("grpc-status").unwrap(), "5");
    assert_eq!(whole(response).await.0, "");
}

/// A call, and its outcome: the body, or what `grpc-status` says with the head.
async fn call(setup: &Setup) -> Result<String, u16> {
    let mut client = connect(setup.start().address(80)).await;
    let mut call = request(Method::POST, "http://example.com/pkg.Service/Method", Frames::empty());
    call.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    let response = soon(client.send_request(call)).await.unwrap();
    assert_eq!(response.status(), 200);
    match response.headers().get("grpc-status") {
        Some(status) => {
            assert_eq!(response.headers().get("content-type").unwrap(), "application/grpc");
            Err(status.to_str().unwrap().parse().unwrap())
        }
        None => Ok(whole(response).await.0),
    }
}

#[tokio::test]
async fn grpc_calls_go_to_backends_that_do_not_say_what_they_speak() {
    let backend = http2_backend(|_| async {
        Response::new(Frames::of([data("called"), trailers("grpc-status", "0")]))
    })
    .await;
    let mut setup = Setup::http();
    setup.backend("plain", BackendProtocol::Http1, &[backend.address]).grpc_route("calls", to("plain"));
    assert_eq!(call(&setup).await.unwrap(), "called");
}

#[tokio::test]
async fn our_refusals_of_grpc_calls_are_statuses_of_grpc() {
    const UNKNOWN: u16 = 2;
    const UNIMPLEMENTED: u16 = 12;
    const UNAVAILABLE: u16 = 14;
    assert_eq!(call(&Setup::http()).await, Err(UNIMPLEMENTED));
    let mut setup = Setup::http();
    setup.backend("empty", BackendProtocol::H2c, &[]).grpc_route("calls", to("empty"));
    assert_eq!(call(&setup).await, Err(UNAVAILABLE));
    let mut setup = Setup::http();
    setup.grpc_route("calls", Action::Fail(Failure::BackendNotFound));
    assert_eq!(call(&setup).await, Err(UNKNOWN));
}

#[tokio::test]
async fn a_client_that_resets_a_stream_frees_the_backend() {
    let (gone, mut noticed) = mpsc::channel(1);
    let (arrived, mut began) = mpsc::channel(1);
    let http1 = Backend::raw(move |mut stream, _| {
        let (gone, arrived) = (gone.clone(), arrived.clone());
        async move {
            let mut bytes = vec![0; 4096];
            let _ = stream.read(&mut bytes).await;
            arrived.send(()).await.unwrap();
            while !matches!(stream.read(&mut bytes).await, Ok(0) | Err(_)) {}
            gone.send(()).await.unwrap();
        }
    })
    .await;
    let gateway = Setup::only(&[http1.address]).start();
    let client = connect(gateway.address(80)).await;
    let mut waiting = client.clone();
    let call = tokio::spawn(async move { waiting.send_request(get("http://a/")).await });
    soon(began.recv()).await.unwrap();
    call.abort();
    soon(noticed.recv()).await.unwrap();
    // The connection is as good as before.
    let echo = Backend::named("here").await;
    gateway.publish(&Setup::only(&[echo.address]));
    let mut client = client;
    assert_eq!(whole(soon(client.send_request(get("http://a/"))).await.unwrap()).await.0, "here");
}

#[tokio::test]
async fn our_own_answers_are_good_http2() {
    let backend = Backend::echo().await;
    let mut setup = Setup::only(&[backend.address]);
    setup.backend("none", BackendProtocol::Http1, &[]).route("none", "/none", to("none"));
    let gateway = setup.start();
    let mut client = connect(gateway.address(80)).await;
    for (uri, status) in
        [("http://a/none", 503), ("http://a/%00", 400), ("http://a/%zz", 400), ("http://a/", 200)]
    {
        // A body nobody reads doesn't hurt the other streams.
        let asked = request(Method::POST, uri, Frames::of([data(vec![7; 100_000])]));
        let response = soon(client.send_request(asked)).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{uri}");
        whole(response).await;
    }
    let mut asked = get("http://a/");
    asked.headers_mut().insert("host", "b".parse().unwrap());
    assert_eq!(soon(client.send_request(asked)).await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_backend_whose_connection_is_gone_is_asked_on_another() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    // Serves one request on each connection, then goes away.
    let backend = Backend::raw(move |stream, _| {
        let count = count.clone();
        async move {
            let (done, mut is_done) = mpsc::channel::<()>(1);
            let service = service_fn(move |_: Request<Incoming>| {
                count.fetch_add(1, Ordering::Relaxed);
                let done = done.clone();
                async move {
                    let (sender, body) = Frames::channel();
                    tokio::spawn(async move {
                        sender.send(data("served")).await.unwrap();
                        drop(sender);
                        done.send(()).await.unwrap();
                    });
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = &mut connection => {}
                _ = is_done.recv() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        }
    })
    .await;
    let gateway = h2c(backend.address).start_with(headgate_proxy::Limits::default(), 1);
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "served");
    }
    assert_eq!(served.load(Ordering::Relaxed), 10);
    assert!(backend.connections() >= 2);
}

#[tokio::test]
async fn an_answer_that_an_http2_backend_resets_is_cut() {
    let backend = http2_backend(|request: Request<Incoming>| async move {
        let (sender, body) = Frames::channel();
        tokio::spawn(async move {
            sender.send(data("half")).await.unwrap();
            // The stream ends when its request's task panics: hyper resets it with the body's error. A body that is
            // shorter than it said is such an error.
            drop(request);
        });
        Response::builder().header("content-length", "10").body(body).unwrap()
    })
    .await;
    let gateway = h2c(backend.address).start();
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let seen = String::from_utf8(client.rest().await).unwrap();
    assert!(
        seen.is_empty()
            || seen.starts_with("HTTP/1.1 200") && seen.len() < 1000 && !seen.ends_with("half\r\n"),
        "{seen}"
    );
    let mut client = connect(gateway.address(80)).await;
    match soon(client.send_request(get("http://a/"))).await {
        Ok(response) => assert!(soon(response.into_body().collect()).await.is_err()),
        Err(error) => assert!(!error.is_timeout()),
    }
}

#[tokio::test]
async fn a_backend_that_does_not_speak_http2_is_502() {
    let backend = Backend::named("http1").await;
    let gateway = h2c(backend.address).start();
    let mut client = gateway.client().await;
    let response = client.get("/").await;
    assert!([502, 503].contains(&response.status()), "{response:?}");
    assert_eq!(backend_id("h2c").port, 80);
}

#[tokio::test]
async fn bytes_that_are_no_http2_end_the_connection() {
    let backend = Backend::named("a").await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut stream = soon(TcpStream::connect(gateway.address(80))).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is not a frame, is it?").await.unwrap();
    let mut seen = Vec::new();
    let _ = soon(stream.read_to_end(&mut seen)).await;
    assert_eq!(backend.connections(), 0);
    // A preface in pieces is one all the same; half of one that goes on otherwise is HTTP/1.1's to refuse.
    let mut stream = soon(TcpStream::connect(gateway.address(80))).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"PRI * HT").await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    let _ = soon(stream.read_to_end(&mut seen)).await;
    assert!(seen.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&seen));
}

/// What a client of HTTP/2 gets before the answer, and the answer's status.
async fn hinted(gateway: &Gateway) -> (Vec<Response<()>>, u16) {
    let stream = TcpStream::connect(gateway.address(80)).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = Request::get("http://a.example/").body(()).unwrap();
    let (mut answer, _) = sender.send_request(request, true).unwrap();
    let mut hints = Vec::new();
    while let Some(hint) = soon(std::future::poll_fn(|cx| answer.poll_informational(cx))).await {
        hints.push(hint.unwrap());
    }
    (hints, soon(answer).await.unwrap().status().as_u16())
}

#[tokio::test]
async fn early_hints_come_first_unless_a_policy_keeps_them() {
    let backend = Backend::http(|_| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
          HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.js>\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    })
    .await;
    let mut setup = Setup::only(&[backend.address]);
    let (hints, status) = hinted(&setup.start()).await;
    assert_eq!((hints.len(), status), (2, 200));
    assert!(hints.iter().all(|hint| hint.status() == 103 && !hint.headers().contains_key("x-hop")));
    assert_eq!(hints[0].headers()["link"], "</a.css>; rel=preload");
    assert_eq!(hints[1].headers()["link"], "</b.js>");
    for port in setup.model.ports.values_mut() {
        let headers = ClientHeaders { no_early_hints: true, ..ClientHeaders::default() };
        Arc::make_mut(port).clients = Some(Arc::new(Clients { headers, ..Clients::default() }));
    }
    let (hints, status) = hinted(&setup.start()).await;
    assert_eq!((hints.len(), status), (0, 200));
}
