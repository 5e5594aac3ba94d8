//! HAProxy.

use super::{Peer, Process, Setup, Work, free_port, pinned, version, write};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// None: it isn't installed, or has nothing like the work.
pub fn start(setup: &Setup<'_>) -> Result<Option<Peer>> {
    let Ok(told) = Command::new("haproxy").arg("-v").output() else {
        eprintln!("haproxy isn't there (Debian package haproxy): left out");
        return Ok(None);
    };
    let port = free_port()?;
    let [a, b] = setup.backends;
    let (mut listen, mut inside, mut choose) =
        (String::new(), String::new(), "default_backend backends".to_owned());
    match setup.work {
        // It follows upgrades by itself.
        Work::Plain | Work::WebSocket => {}
        Work::Routes(count) => {
            let map: String = (0..count).map(|n| format!("/r{n}/ backends\n")).collect();
            let map = write(setup, "haproxy.map", &map)?;
            choose = format!("use_backend %[path,map_beg({},none)]", map.display());
        }
        Work::Tls => {
            listen = format!(
                " ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.2",
                setup.material.bundle_file().display()
            );
        }
        Work::Limit => {
            inside = "    stick-table type ip size 100k expire 10s store http_req_rate(1s)\n    \
                http-request track-sc0 src\n    \
                http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }\n"
                .to_owned();
        }
        Work::Jwt(algorithm) => {
            let key = setup.material.public_key_file(algorithm);
            inside = format!(
                "    http-request set-var(txn.bearer) http_auth_bearer\n    \
                 http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')\n    \
                 http-request deny deny_status 401 unless {{ var(txn.alg) -m str {} }}\n    \
                 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {} }}\n    \
                 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.exp','int') -m int gt 1 }}\n    \
                 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,\"{}\") -m int 1 }}\n",
                algorithm.name(),
                crate::token::ISSUER,
                key.display()
            );
        }
        Work::Session(_) | Work::Breaker => return Ok(None),
    }
    let config = format!(
        "global\n    nbthread 1\n    maxconn 9000\n    tune.bufsize 16384\n    tune.h2.max-concurrent-streams 128\n\
         defaults\n    mode http\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n    \
         timeout http-keep-alive 1h\n    timeout tunnel 1h\n    option http-keep-alive\n    http-reuse always\n\
         frontend in\n    bind 127.0.0.1:{port}{listen}\n    option forwardfor\n{inside}    \
         http-request set-header X-Forwarded-Proto http\n    http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n    \
         http-request set-header X-Real-IP %[src]\n    {choose}\n\
         backend backends\n    server a 127.0.0.1:{a}\n    server b 127.0.0.1:{b}\n\
         backend none\n    http-request deny deny_status 404\n"
    );
    let config = write(setup, "haproxy.cfg", &config)?;
    let mut command = pinned("0", setup.under, Path::new("haproxy"));
    command.arg("-f").arg(config);
    let process = Process::start(&mut command, &setup.folder.join("haproxy.log"))?;
    let version = version(&String::from_utf8_lossy(&told.stdout));
    Ok(Some(Peer { name: "haproxy", version, process, port }))
}
