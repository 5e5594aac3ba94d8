//! nginx, as a proxy and as the backends.

use super::{Peer, Process, Setup, Under, Work, free_port, pinned, version};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What each of its locations does.
const PASS: &str = "proxy_pass http://backends;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
    proxy_set_header Host $http_host;\nproxy_set_header X-Real-IP $remote_addr;\n\
    proxy_set_header X-Forwarded-For $remote_addr;\nproxy_set_header X-Forwarded-Proto $scheme;\n\
    proxy_set_header X-Forwarded-Host $http_host;\nproxy_request_buffering off;\n";

/// None: it knows neither tokens nor logins.
pub fn start(setup: &Setup<'_>) -> Result<Option<Peer>> {
    let port = free_port()?;
    let [a, b] = setup.backends;
    let (mut before, mut listen, mut inside) = (String::new(), String::new(), String::new());
    let mut locations = format!("location / {{\n{PASS}}}\n");
    match setup.work {
        Work::Plain => {}
        Work::Routes(count) => {
            // Nothing else: what no route takes is 404, as elsewhere.
            locations = (0..count).map(|n| format!("location /r{n}/ {{\n{PASS}}}\n")).collect();
        }
        Work::Tls => {
            listen = " ssl http2".to_owned();
            let (certificate, key) = setup.material.certificate_files();
            inside = format!(
                "ssl_certificate {};\nssl_certificate_key {};\nssl_protocols TLSv1.2 TLSv1.3;\n\
                 ssl_session_cache shared:s:10m;\nhttp2_max_concurrent_streams 128;\nhttp2_max_requests 1000000000;\n",
                certificate.display(),
                key.display()
            );
        }
        Work::WebSocket => {
            let pass = PASS.replace("Connection \"\"", "Connection upgrade");
            locations = format!("location / {{\n{pass}proxy_set_header Upgrade $http_upgrade;\n}}\n");
        }
        Work::Limit => {
            before = "limit_req_zone $binary_remote_addr zone=one:10m rate=1000000r/s;\n".to_owned();
            inside = "limit_req zone=one burst=1000000 nodelay;\n".to_owned();
        }
        Work::Breaker => {}
        Work::Jwt(_) | Work::Session(_) => return Ok(None),
    }
    let watched = if setup.work == Work::Breaker { " max_fails=5 fail_timeout=60s" } else { "" };
    let http = format!(
        "upstream backends {{ server 127.0.0.1:{a}{watched}; server 127.0.0.1:{b}{watched}; keepalive 256; \
         keepalive_requests 1000000000; }}\n{before}\
         server {{ listen 127.0.0.1:{port}{listen} backlog=4096;\nclient_max_body_size 0;\n{inside}{locations}}}\n"
    );
    let told = Command::new("nginx").arg("-v").output().context("nginx -v")?;
    let version = version(&String::from_utf8_lossy(&told.stderr));
    let process = process("nginx", "0", setup.under, setup.folder, &http)?;
    Ok(Some(Peer { name: "nginx", version, process, port }))
}

/// Starts one with these servers.
pub fn process(name: &str, cpu: &str, under: &Under, folder: &Path, http: &str) -> Result<Process> {
    let config = folder.join(format!("{name}.conf"));
    // A tool watches one process; and where it makes the worker slow to end, the master would kill it.
    let processes = match under {
        Under::Nothing => "worker_processes 1",
        Under::Tool(_) => "master_process off",
    };
    let text = format!(
        "daemon off;\n{processes};\npid {0}/{name}.pid;\nerror_log {0}/{name}.error.log;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 1h;\n\
         client_body_temp_path {0}/{name}.body;\nproxy_temp_path {0}/{name}.proxy;\n\
         fastcgi_temp_path {0}/{name}.f;\nuwsgi_temp_path {0}/{name}.u;\nscgi_temp_path {0}/{name}.s;\n{http}}}\n",
        folder.display()
    );
    fs::write(&config, text).with_context(|| config.display().to_string())?;
    let mut command = pinned(cpu, under, Path::new("nginx"));
    command.arg("-c").arg(&config);
    Process::start(&mut command, &folder.join(format!("{name}.log")))
        .context("nginx is needed (Debian package nginx)")
}
