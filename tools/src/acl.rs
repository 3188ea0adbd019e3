//! `acl`: who may do what, of a running server: rules made, listed, removed, and whether somebody may do something.
//!
//! Callers: the command line. Talks HTTP to `/api/v1/acls`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use model::acl::{CLUSTER_NAME, Operation, PatternType, ResourceType, USER_HEAD};
use serde_json::{Value, json};

use crate::cli::Common;
use crate::failure::Failure;
use crate::http::{self, HttpServer};
use crate::output::{print, say};
use crate::table::Table;

/// Shown below `acl --help`.
pub const EXAMPLES: &str = "\
A principal is a user's name, with or without User: before it, or '*' for everybody; ANONYMOUS is who gave no credentials. A resource \
is topic:NAME, group:NAME, transactional_id:NAME, user:NAME or cluster; with a '*' at the end all whose names begin so.

Examples:
  alluvium acl allow alice read topic:readings
  alluvium acl allow alice read,describe 'group:dashboard-*'
  alluvium acl deny '*' all 'topic:secret-*' --host 10.0.0.7
  alluvium acl list --principal alice
  alluvium acl remove --principal alice --resource topic:readings
  alluvium acl check alice write topic:readings --host 10.0.0.7

Exit codes of check: 0 may, 1 may not.";

/// `acl` and its options.
#[derive(Debug, Args)]
pub struct AclArgs {
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, global = true, value_name = "ADDR")]
    http: Option<String>,
    #[command(subcommand)]
    command: AclCommand,
}

#[derive(Debug, Subcommand)]
enum AclCommand {
    /// Allow somebody something.
    Allow(RuleArgs),
    /// Deny somebody something, whatever else is allowed.
    Deny(RuleArgs),
    /// List rules.
    List(FilterArgs),
    /// Remove all rules that the options choose.
    Remove(FilterArgs),
    /// Tell whether somebody may do something, and by which rule.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct RuleArgs {
    /// Who
    principal: String,
    /// What, separated by commas
    #[arg(value_delimiter = ',', required = true)]
    operations: Vec<Operation>,
    /// To what, as topic:NAME
    resource: String,
    /// From which address
    #[arg(long, default_value = "*", value_name = "ADDRESS")]
    host: String,
}

#[derive(Debug, Args)]
struct FilterArgs {
    /// Rules for this principal
    #[arg(long, value_name = "USER")]
    principal: Option<String>,
    /// Rules that name this resource so
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<String>,
    /// Rules about this
    #[arg(long)]
    operation: Option<Operation>,
    /// Rules for this address
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Who
    principal: String,
    /// What
    operation: Operation,
    /// To what, as topic:NAME
    resource: String,
    /// From which address
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: String,
}

impl AclArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common) -> Result<ExitCode> {
        let server = common.http(self.http.as_deref())?;
        match self.command {
            AclCommand::Allow(args) => make(&args, "allow", &server, common.json).await,
            AclCommand::Deny(args) => make(&args, "deny", &server, common.json).await,
            AclCommand::List(args) => {
                let answer = server.get(&path_of(&args)?).await?;
                tell(&answer, common.json)
            }
            AclCommand::Remove(args) => {
                let path = path_of(&args)?;
                if !path.contains('?') {
                    let all = "say which rules: --principal, --resource, --operation or --host";
                    bail!(Failure::Usage(all.to_owned()));
                }
                let answer = server.delete(&path).await?;
                tell(&answer, common.json)
            }
            AclCommand::Check(args) => check(&args, &server, common.json).await,
        }
    }
}

/// A resource: its type, its name, and whether that is a prefix.
struct Resource {
    kind: ResourceType,
    name: String,
    pattern: PatternType,
}

fn resource(text: &str) -> Result<Resource> {
    let usage = |reason: String| Failure::Usage(reason);
    if text == "cluster" {
        return Ok(Resource {
            kind: ResourceType::Cluster,
            name: CLUSTER_NAME.to_owned(),
            pattern: PatternType::Literal,
        });
    }
    let (kind, name) = text
        .split_once(':')
        .ok_or_else(|| usage(format!("{text:?}: a resource is TYPE:NAME, or cluster")))?;
    let kind: ResourceType = kind.parse().map_err(|error| usage(format!("{error}")))?;
    let (name, pattern) = match name.strip_suffix('*') {
        // All of them: a name of its own.
        Some("") | None => (name, PatternType::Literal),
        Some(prefix) => (prefix, PatternType::Prefixed),
    };
    Ok(Resource {
        kind,
        name: name.to_owned(),
        pattern,
    })
}

fn principal(text: &str) -> String {
    match text.starts_with(USER_HEAD) {
        true => text.to_owned(),
        false => format!("{USER_HEAD}{text}"),
    }
}

async fn make(
    args: &RuleArgs,
    permission: &str,
    server: &HttpServer,
    json: bool,
) -> Result<ExitCode> {
    let resource = resource(&args.resource)?;
    let mut made = Vec::new();
    for operation in &args.operations {
        let body = json!({
            "resource_type": resource.kind.name(), "name": resource.name, "pattern": resource.pattern.name(),
            "principal": principal(&args.principal), "host": args.host, "operation": operation.name(),
            "permission": permission,
        });
        made.push(server.post("/api/v1/acls", &body).await?);
    }
    tell(&json!({ "acls": made }), json)
}

fn path_of(args: &FilterArgs) -> Result<String> {
    let mut query = Vec::new();
    let mut put = |name: &str, value: &str| query.push(format!("{name}={}", http::escaped(value)));
    if let Some(user) = &args.principal {
        put("principal", &principal(user));
    }
    if let Some(text) = &args.resource {
        let resource = resource(text)?;
        put("resource_type", resource.kind.name());
        put("name", &resource.name);
        put("pattern", resource.pattern.name());
    }
    if let Some(operation) = args.operation {
        put("operation", operation.name());
    }
    if let Some(host) = &args.host {
        put("host", host);
    }
    Ok(match query.is_empty() {
        true => "/api/v1/acls".to_owned(),
        false => format!("/api/v1/acls?{}", query.join("&")),
    })
}

/// The rules of an answer.
fn tell(answer: &Value, json: bool) -> Result<ExitCode> {
    let acls = answer["acls"].as_array().cloned().unwrap_or_default();
    if json {
        say!("{:#}", Value::from(acls));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["PERMISSION", "PRINCIPAL", "OPERATION", "RESOURCE", "HOST"]);
    for acl in &acls {
        let text = |name: &str| acl[name].as_str().unwrap_or_default().to_owned();
        table.row([
            text("permission"),
            text("principal"),
            text("operation"),
            shown(acl),
            text("host"),
        ]);
    }
    print(false, || Value::Null, || table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// A rule's resource, as an argument has it.
fn shown(acl: &Value) -> String {
    let text = |name: &str| acl[name].as_str().unwrap_or_default();
    match (text("resource_type"), text("pattern")) {
        ("cluster", _) => "cluster".to_owned(),
        (kind, "prefixed") => format!("{kind}:{}*", text("name")),
        (kind, _) => format!("{kind}:{}", text("name")),
    }
}

async fn check(args: &CheckArgs, server: &HttpServer, json: bool) -> Result<ExitCode> {
    let resource = resource(&args.resource)?;
    let path = format!(
        "/api/v1/acls/check?principal={}&operation={}&resource_type={}&name={}&host={}",
        http::escaped(&principal(&args.principal)),
        args.operation.name(),
        resource.kind.name(),
        http::escaped(&resource.name),
        http::escaped(&args.host),
    );
    let answer = server.get(&path).await?;
    let is_allowed = answer["allowed"].as_bool().unwrap_or(false);
    let may = if is_allowed { "may" } else { "may not" };
    let because = answer["because"].as_str().unwrap_or_default();
    let rule = match &answer["acl"] {
        Value::Null => String::new(),
        acl => {
            let text = |name: &str| acl[name].as_str().unwrap_or_default();
            let (permission, who, what) =
                (text("permission"), text("principal"), text("operation"));
            let host = text("host");
            format!(": {permission} {who} {what} on {} from {host}", shown(acl))
        }
    };
    let (who, what) = (principal(&args.principal), args.operation);
    let told = format!(
        "{who} {may} {what} {} from {}: {because}{rule}\n",
        args.resource, args.host
    );
    print(json, || answer, || told)?;
    Ok(match is_allowed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_read_as_rules_have_it() {
        let read = |text: &str| {
            let resource = resource(text).ok()?;
            Some((resource.kind.name(), resource.name, resource.pattern.name()))
        };
        let is = |kind, name: &str, pattern| Some((kind, name.to_owned(), pattern));
        assert_eq!(read("topic:a"), is("topic", "a", "literal"));
        assert_eq!(read("topic:a*"), is("topic", "a", "prefixed"));
        assert_eq!(read("group:*"), is("group", "*", "literal"));
        assert_eq!(read("cluster"), is("cluster", "kafka-cluster", "literal"));
        let id = is("transactional_id", "x:y", "literal");
        assert_eq!(read("transactional-id:x:y"), id);
        assert_eq!(read("readings"), None);
        assert_eq!(read("tropic:a"), None);
    }
}
