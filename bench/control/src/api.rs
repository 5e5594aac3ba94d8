//! An API server that takes every write and reports it back, as watches would: the loop sees its own statuses.

use crate::objects;
use anyhow::{Context, Result};
use headgate_controller::cluster::{Change, Object, Watched};
use http::{Request, Response};
use k8s_openapi::api::core::v1::Service;
use kube::client::Body;
use serde_json::{Value, from_value, json};
use std::cell::RefCell;
use std::rc::Rc;
use tokio::sync::mpsc;
use tower_test::mock::Handle;

/// Requests to it.
pub type Requests = Handle<Request<Body>, Response<Body>>;

/// Generation and version of each route, by number.
pub type Versions = Rc<RefCell<Vec<(u64, u64)>>>;

/// Answers until nobody asks any more. Each write that was reported back is noted in `written`.
pub async fn serve(
    mut requests: Requests,
    versions: Versions,
    changes: mpsc::Sender<Vec<Change>>,
    written: mpsc::Sender<String>,
) -> Result<()> {
    while let Some((request, answer)) = requests.next_request().await {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect_bytes().await?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let reply = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any"}}).to_string();
        answer.send_response(Response::new(Body::from(reply.into_bytes())));
        if let Some(object) = seen(&path, body, &versions).with_context(|| path.clone())? {
            changes.send(vec![Change::Upsert(object)]).await?;
        }
        written.send(path).await?;
    }
    Ok(())
}

/// What a watch would report of a write: statuses of routes, and Services, which get an address.
fn seen(path: &str, body: Value, versions: &Versions) -> Result<Option<Object>> {
    let parts: Vec<&str> = path.split('/').collect();
    match *parts {
        [.., "httproutes", name, "status"] => {
            let number: usize = name.rsplit('-').next().unwrap_or_default().parse()?;
            let mut versions = versions.borrow_mut();
            let (generation, version) = versions.get_mut(number).context("no such route")?;
            *version += 1;
            Ok(Some(objects::route(number, *generation, *version, Some(&body["status"]))?))
        }
        [.., "services", _] => {
            let mut service: Service = from_value(body)?;
            service.metadata.resource_version = Some("1".to_owned());
            service.status = Some(from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}))?);
            Ok(Some(service.wrap()))
        }
        _ => Ok(None),
    }
}
