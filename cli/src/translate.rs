//! `headgate translate`: what files lead to, printed. The same code as `headgate run -f`, without a proxy.

use crate::exit::BadInput;
use anyhow::Result;
use clap::ValueEnum;
use headgate_controller::cluster::{Change, Cluster};
use headgate_controller::settings::{CONTROLLER_NAME, Mode, Settings};
use headgate_controller::source::files;
use headgate_controller::status;
use headgate_controller::translate::Translator;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Flags of `headgate translate`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder or file to read, `-` for standard input; may be repeated.
    #[arg(short, long, env = "HEADGATE_FILE", value_name = "PATH", value_delimiter = ',', num_args = 1.., required = true)]
    file: Vec<PathBuf>,
    /// Form of the output.
    #[arg(short, long, env = "HEADGATE_OUTPUT", default_value = "yaml")]
    output: Form,
    /// GatewayClasses that name this controller are ours.
    #[arg(long, env = "HEADGATE_CONTROLLER_NAME", value_name = "NAME", default_value = CONTROLLER_NAME)]
    controller_name: String,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// Reads, translates, prints.
pub fn run(args: &Args) -> Result<()> {
    let loaded = files::load(&args.file, &args.controller_name);
    if !loaded.errors.is_empty() {
        return Err(BadInput(loaded.errors.iter().map(ToString::to_string).collect()).into());
    }
    let mut cluster = Cluster::default();
    for object in loaded.objects {
        cluster.apply(Change::Upsert(object));
    }
    let settings =
        Settings { controller_name: args.controller_name.as_str().into(), ..Settings::new(Mode::Files) };
    let translation = Translator::new(settings).translate(&cluster, &BTreeMap::new());
    let now = Time(Timestamp::from_second(Timestamp::now().as_second())?);
    let mut output = serde_json::to_value(&translation.model)?;
    let statuses = status::render(&cluster, &translation.statuses, &args.controller_name, &now);
    if let Value::Object(fields) = &mut output {
        fields.insert("statuses".to_owned(), json!(statuses));
    }
    let mut out = std::io::stdout().lock();
    match args.output {
        Form::Yaml => serde_yaml_ng::to_writer(&mut out, &output)?,
        Form::Json => {
            serde_json::to_writer_pretty(&mut out, &output)?;
            writeln!(out)?;
        }
    }
    Ok(())
}
