//! `user`: who may log in to a running server: added, listed, removed, given passwords and API tokens.
//!
//! Callers: the command line. Talks HTTP to `/api/v1/users`. Invariant: no password is an argument: it is read of a file or of standard
//! input, or made up and said once.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use model::Timestamp;
use model::time_spec::{parse_duration, parse_time};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::Common;
use crate::failure::Failure;
use crate::hold::time_text;
use crate::http;
use crate::output::{print, say};
use crate::table::Table;

/// Where they are.
const USERS: &str = "/api/v1/users";

/// Shown below `user --help`.
pub const EXAMPLES: &str = "\
A password is read of --password-file, or else of standard input, one line. Where that is a terminal one is made up, and said once.
A token lets a program in over HTTP (Authorization: Bearer TOKEN) as its user, who need not have a password; it is said once.

Examples:
  alluvium user add alice --password-file alice.password
  alluvium user password alice < alice.password
  alluvium user list
  alluvium user token add grafana --about 'dashboards' --expires 365d
  alluvium user token remove grafana 1a2b3c4d5e6f7a8b
  alluvium user remove alice";

/// `user` and its options.
#[derive(Debug, Args)]
pub struct UserArgs {
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, global = true, value_name = "ADDR")]
    http: Option<String>,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user with a password.
    Add(PasswordArgs),
    /// Give a user another password.
    Password(PasswordArgs),
    /// List users and their tokens.
    List,
    /// Remove a user and the tokens.
    Remove {
        /// The user's name
        name: String,
    },
    /// Make and revoke tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Args)]
struct PasswordArgs {
    /// The user's name
    name: String,
    /// A file with the password; the end of its line is none of it
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token.
    Add {
        /// The user as whom it lets in
        user: String,
        /// What it is for
        #[arg(long, default_value = "")]
        about: String,
        /// When it ends: a time, or how long from now, as 90d
        #[arg(long, value_name = "TIME | DURATION")]
        expires: Option<String>,
    },
    /// Revoke a token.
    Remove {
        /// The user
        user: String,
        /// The token, as `list` names it
        id: String,
    },
}

impl UserArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common, now: Timestamp) -> Result<ExitCode> {
        let server = common.http(self.http.as_deref())?;
        let json = common.json;
        let one = |name: &str| format!("{USERS}/{}", http::escaped(name));
        match self.command {
            UserCommand::Add(args) => {
                let (password, told) = args.password()?;
                let body = json!({ "name": args.name, "password": password.as_str() });
                let user = server.post(USERS, &body).await?;
                let text = || format!("user {} is added{told}\n", args.name);
                print(json, || with_password(user, &password, &told), text)?;
            }
            UserCommand::Password(args) => {
                let (password, told) = args.password()?;
                let body = json!({ "password": password.as_str() });
                let user = server.patch(&one(&args.name), &body).await?;
                let text = || format!("user {} has another password{told}\n", args.name);
                print(json, || with_password(user, &password, &told), text)?;
            }
            UserCommand::List => {
                let answer = server.get(USERS).await?;
                list(&answer, json)?;
            }
            UserCommand::Remove { name } => {
                let user = server.delete(&one(&name)).await?;
                print(json, || user, || format!("user {name} is removed\n"))?;
            }
            UserCommand::Token(TokenCommand::Add {
                user,
                about,
                expires,
            }) => {
                let expires_ms = expires.map(|text| end_of(&text, now)).transpose()?;
                let body = json!({ "about": about, "expires_ms": expires_ms });
                let path = format!("{}/tokens", one(&user));
                let token = server.post(&path, &body).await?;
                let told = format!("{}\n", text(&token, "token"));
                print(json, || token, || told)?;
            }
            UserCommand::Token(TokenCommand::Remove { user, id }) => {
                let path = format!("{}/tokens/{}", one(&user), http::escaped(&id));
                let token = server.delete(&path).await?;
                print(
                    json,
                    || token,
                    || format!("token {id} of {user} is revoked\n"),
                )?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl PasswordArgs {
    /// The password, and what is to be said of it.
    fn password(&self) -> Result<(Zeroizing<String>, String)> {
        let mut password = Zeroizing::new(String::new());
        let mut stdin = std::io::stdin();
        match &self.password_file {
            Some(path) => {
                let read = std::fs::read_to_string(path);
                password = Zeroizing::new(read.with_context(|| path.display().to_string())?);
            }
            None if stdin.is_terminal() => {
                let both = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
                let made = Zeroizing::new(both.map(|it| it.simple().to_string()).concat());
                let told = format!("; the password is {}", made.as_str());
                return Ok((made, told));
            }
            None => {
                stdin
                    .read_to_string(&mut password)
                    .context("the password")?;
            }
        }
        for end in ['\n', '\r'] {
            if password.ends_with(end) {
                password.pop();
            }
        }
        if password.is_empty() || password.contains('\n') {
            bail!(Failure::Usage(
                "a password is one line, and not empty".to_owned()
            ));
        }
        Ok((password, String::new()))
    }
}

/// The answer, with a password that was made up.
fn with_password(mut user: Value, password: &str, told: &str) -> Value {
    if !told.is_empty() {
        user["password"] = password.into();
    }
    user
}

fn end_of(text: &str, now: Timestamp) -> Result<i64> {
    let end = match parse_duration(text) {
        Ok(millis) => now.millis().saturating_add(millis),
        Err(_) => parse_time(text, now).context("--expires")?.millis(),
    };
    if end <= now.millis() {
        bail!(Failure::Usage(
            "--expires: the token would have ended already".to_owned()
        ));
    }
    Ok(end)
}

fn list(answer: &Value, json: bool) -> Result<()> {
    let users = answer["users"].as_array().cloned().unwrap_or_default();
    if json {
        say!("{:#}", Value::from(users));
        return Ok(());
    }
    let mut table = Table::new(&["USER", "LOGS IN BY", "ABOUT", "MADE", "ENDS"]);
    for user in &users {
        let name = text(user, "name");
        let mechanisms = user["mechanisms"].as_array().into_iter().flatten();
        let mechanisms: Vec<&str> = mechanisms.filter_map(Value::as_str).collect();
        if !mechanisms.is_empty() {
            table.row([name, &mechanisms.join(","), "", "", ""]);
        }
        for token in user["tokens"].as_array().into_iter().flatten() {
            table.row([
                name.to_owned(),
                format!("token {}", text(token, "id")),
                text(token, "about").to_owned(),
                time_text(&token["created_ms"], ""),
                time_text(&token["expires_ms"], "never"),
            ]);
        }
    }
    print(false, || Value::Null, || table.to_string())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
