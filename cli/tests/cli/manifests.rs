//! The objects of the tests, as YAML, and folders to put them in.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's examples.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// A folder for one test's files, removed with its owner.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// With these files in it.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self::new();
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("the folder is writable");
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("the file is there");
    }
}

/// The quickstart's files as they are, but with a free port of its Gateway and the ports of backends.
pub fn quickstart(gateway: u16, backends: [u16; 3]) -> Folder {
    let folder = Folder::new();
    let ports = ["8080", "9001", "9002", "9003"];
    let [shop, v1, v2] = backends;
    for entry in fs::read_dir(examples().join("quickstart")).expect("it is there") {
        let path = entry.expect("readable").path();
        let mut text = fs::read_to_string(&path).expect("text");
        for (from, to) in ports.iter().zip([gateway, shop, v1, v2]) {
            text = text.replace(from, &to.to_string());
        }
        folder.write(path.file_name().and_then(|name| name.to_str()).expect("a name"), &text);
    }
    folder
}

/// A Gateway on loopback with one HTTP listener `http`.
pub fn gateway(port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gateway}}\nspec:\n  \
         gatewayClassName: headgate\n  addresses: [{{type: IPAddress, value: 127.0.0.1}}]\n  \
         listeners:\n  - {{name: http, protocol: HTTP, port: {port}}}\n"
    )
}

/// A Service `name` with port 80, and its endpoint on loopback.
pub fn service(name: &str, endpoint: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: {endpoint}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
    )
}

/// An HTTPRoute `name` of the Gateway, for one host, whose rule is `rule` (in flow style).
pub fn route(name: &str, host: &str, rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: {name}\nspec:\n  \
         parentRefs:\n  - name: gateway\n  hostnames:\n  - {host}\n  rules:\n  - {rule}\n"
    )
}

/// A Secret `certificate` with these in it.
pub fn secret(chain: &str, key: &str) -> String {
    let text = |text: &str| serde_json::to_string(text).expect("text");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: certificate}}\ntype: kubernetes.io/tls\nstringData:\n  \
         tls.crt: {}\n  tls.key: {}\n",
        text(chain),
        text(key)
    )
}

/// Several objects in one file.
pub fn documents(objects: &[String]) -> String {
    objects.join("---\n")
}
