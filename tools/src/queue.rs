//! `queue`: topics as groups share them, of a running server: AMQP's queues and subscriptions, Kafka's share groups.
//!
//! Callers: the command line. Talks HTTP to `/api/v1/queues`. What changes something shows its plan first (`--dry-run`), and asks (`--yes`).

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use model::TopicName;
use serde_json::{Value, json};

use crate::cli::Common;
use crate::failure::Failure;
use crate::hold::time_text;
use crate::http::{self, HttpServer};
use crate::output::{confirm, grouped, in_one_line, print};
use crate::table::Table;

/// Shown below `queue --help`.
pub const EXAMPLES: &str = "\
A queue is a topic as a group has it: AMQP's queues are of the group queue, subscriptions and Kafka's share groups are named by --group.

Examples:
  alluvium queue list
  alluvium queue describe orders                   how far it is, and who holds what
  alluvium queue purge orders --dry-run            how many messages nobody holds
  alluvium queue move orders orders-later --yes
  alluvium queue dead orders                       its dead letters, and why they are
  alluvium queue dead orders --requeue --yes       back to the queue";

/// The group of AMQP's queues.
const QUEUES: &str = "queue";
/// Messages that one request moves at most.
const PIECE: u64 = 10_000;

/// `queue` and its options.
#[derive(Debug, Args)]
pub struct QueueArgs {
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, global = true, value_name = "ADDR")]
    http: Option<String>,
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List queues, with how many messages are to be had, held and done.
    List {
        /// Of this group alone
        #[arg(short, long)]
        group: Option<String>,
    },
    /// Show a queue: its partitions, its members, who holds what.
    Describe {
        #[command(flatten)]
        queue: Queue,
    },
    /// Finish all messages that nobody holds: nobody gets them. They stay in the topic.
    Purge {
        #[command(flatten)]
        queue: Queue,
        #[command(flatten)]
        consent: Consent,
    },
    /// Move messages that nobody holds to another topic. Each is in one of both, also at a power cut.
    Move {
        #[command(flatten)]
        queue: Queue,
        /// The topic that they go to
        to: TopicName,
        /// So many at most
        #[arg(long, value_name = "N")]
        max: Option<u64>,
        #[command(flatten)]
        consent: Consent,
    },
    /// List a queue's dead letters, or give them back to it.
    Dead {
        #[command(flatten)]
        queue: Queue,
        /// Give them back, as they were
        #[arg(long)]
        requeue: bool,
        /// Give so many back at most
        #[arg(long, value_name = "N", requires = "requeue")]
        max: Option<u64>,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, Args)]
struct Queue {
    /// The queue: a topic
    #[arg(value_name = "QUEUE")]
    name: TopicName,
    /// The group that shares it
    #[arg(short, long, default_value = QUEUES)]
    group: String,
}

#[derive(Debug, Args)]
struct Consent {
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Queue {
    fn path(&self) -> String {
        path_of(&self.group, self.name.as_str())
    }
}

fn path_of(group: &str, topic: &str) -> String {
    let (group, topic) = (http::escaped(group), http::escaped(topic));
    format!("/api/v1/queues/{group}/{topic}")
}

impl QueueArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common) -> Result<ExitCode> {
        let server = common.http(self.http.as_deref())?;
        let json = common.json;
        match self.command {
            QueueCommand::List { group } => list(&server, json, group.as_deref()).await,
            QueueCommand::Describe { queue } => describe(&server, json, &queue).await,
            QueueCommand::Purge { queue, consent } => purge(&server, json, &queue, &consent).await,
            QueueCommand::Move {
                queue,
                to,
                max,
                consent,
            } => {
                let moving = Moving {
                    from: queue.path(),
                    to: to.as_str(),
                    dead_of: None,
                    max,
                };
                let words = format!("from {} to {to}", queue.name);
                move_all(&server, json, &moving, (&words, &consent)).await
            }
            QueueCommand::Dead {
                queue,
                requeue,
                max,
                consent,
            } => dead(&server, json, (&queue, requeue.then_some(max)), &consent).await,
        }
    }
}

fn count(value: &Value, name: &str) -> String {
    grouped(value[name].as_u64().unwrap_or_default())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

async fn list(server: &HttpServer, json: bool, group: Option<&str>) -> Result<ExitCode> {
    let query = group.map_or_else(String::new, |group| {
        format!("?group={}", http::escaped(group))
    });
    let answer = server.get(&format!("/api/v1/queues{query}")).await?;
    let queues = answer["queues"].as_array().cloned().unwrap_or_default();
    let shown = || {
        let mut table = Table::new(&[
            "GROUP",
            "QUEUE",
            "AVAILABLE",
            "HELD",
            "DYING",
            "FINISHED",
            "OLDEST",
        ]);
        for one in &queues {
            table.row([
                in_one_line(text(one, "group")),
                text(one, "topic").to_owned(),
                count(one, "available"),
                count(one, "held"),
                count(one, "archiving"),
                count(one, "finished"),
                time_text(&one["oldest_ms"], "-"),
            ]);
        }
        match answer["left_out"].as_u64() {
            None | Some(0) => table.to_string(),
            Some(left_out) => format!("{table}and {left_out} more: name a --group\n"),
        }
    };
    print(json, || answer.clone(), shown)?;
    Ok(ExitCode::SUCCESS)
}

async fn describe(server: &HttpServer, json: bool, queue: &Queue) -> Result<ExitCode> {
    let answer = server.get(&queue.path()).await?;
    let shown = || {
        let mut told = format!(
            "{} of group {}: {} available, {} held, {} given up without their dead letters yet, {} finished\n",
            text(&answer, "topic"),
            in_one_line(text(&answer, "group")),
            count(&answer, "available"),
            count(&answer, "held"),
            count(&answer, "archiving"),
            count(&answer, "finished"),
        );
        told.push_str(&format!(
            "oldest: {}\ndead letters: {}\n\n",
            time_text(&answer["oldest_ms"], "-"),
            answer["dead_letter_topic"].as_str().unwrap_or("no topic"),
        ));
        let mut table = Table::new(&[
            "PARTITION",
            "START",
            "END",
            "AVAILABLE",
            "HELD",
            "FINISHED",
            "OLDEST",
        ]);
        let mut held = Table::new(&["PARTITION", "HELD BY", "CLIENT", "HOST", "MESSAGES"]);
        let mut is_held = false;
        for one in answer["partition_list"].as_array().into_iter().flatten() {
            let partition = one["partition"].to_string();
            table.row([
                partition.clone(),
                one["start"].to_string(),
                one["log_end"].to_string(),
                count(one, "available"),
                count(one, "held"),
                count(one, "finished"),
                time_text(&one["oldest_ms"], "-"),
            ]);
            for holder in one["held_by"].as_array().into_iter().flatten() {
                is_held = true;
                let id = text(holder, "member_id");
                let mut members = answer["members"].as_array().into_iter().flatten();
                let member = members.find(|it| text(it, "member_id") == id);
                let of = |name: &str| member.map_or("-", |member| text(member, name));
                held.row([
                    partition.clone(),
                    in_one_line(id),
                    in_one_line(of("client_id")),
                    in_one_line(of("host")),
                    count(holder, "records"),
                ]);
            }
        }
        match is_held {
            true => format!("{told}{table}\n{held}"),
            false => format!("{told}{table}"),
        }
    };
    print(json, || answer.clone(), shown)?;
    Ok(ExitCode::SUCCESS)
}

async fn purge(
    server: &HttpServer,
    json: bool,
    queue: &Queue,
    consent: &Consent,
) -> Result<ExitCode> {
    let path = format!("{}/purge", queue.path());
    let mut answer = server.post(&path, &json!({ "dry_run": true })).await?;
    let planned = messages(&answer["discarded"]);
    if !consent.dry_run {
        if !consent.yes {
            confirm(&format!("finish {planned} of {}", queue.name))?;
        }
        answer = server.post(&path, &json!({ "dry_run": false })).await?;
    }
    let done = messages(&answer["discarded"]);
    let told = match consent.dry_run {
        true => format!("{done} would be finished, and stay in the topic\n"),
        false => format!("{done} finished\n"),
    };
    print(json, || answer, || told)?;
    Ok(ExitCode::SUCCESS)
}

fn messages(count: &Value) -> String {
    let count = count.as_u64().unwrap_or_default();
    let plural = if count == 1 { "" } else { "s" };
    format!("{} message{plural}", grouped(count))
}

/// What is to be moved.
struct Moving<'a> {
    /// The queue that it is in.
    from: String,
    to: &'a str,
    /// Only dead letters of this group.
    dead_of: Option<&'a str>,
    max: Option<u64>,
}

impl Moving<'_> {
    async fn ask(&self, server: &HttpServer, max: u64, dry_run: bool) -> Result<Value> {
        let mut body = json!({ "to": self.to, "max": max.clamp(1, PIECE), "dry_run": dry_run });
        if let Some(group) = self.dead_of {
            body["dead_of"] = group.into();
        }
        Ok(server.post(&format!("{}/move", self.from), &body).await?)
    }
}

/// The plan, and then piece by piece what is wanted.
async fn move_all(
    server: &HttpServer,
    json: bool,
    moving: &Moving<'_>,
    (words, consent): (&str, &Consent),
) -> Result<ExitCode> {
    let max = moving.max.unwrap_or(u64::MAX);
    if max == 0 {
        bail!(Failure::Usage("--max: nothing would be moved".to_owned()));
    }
    let plan = moving.ask(server, max, true).await?;
    let planned = plan["moved"].as_u64().unwrap_or_default();
    let more = if planned == PIECE && max > PIECE {
        " or more"
    } else {
        ""
    };
    let planned = format!("{}{more}", messages(&plan["moved"]));
    let mut moved = plan["moved"].as_u64().unwrap_or_default();
    if !consent.dry_run {
        if !consent.yes {
            confirm(&format!("move {planned} {words}"))?;
        }
        moved = 0;
        while moved < max {
            let answer = moving.ask(server, max - moved, false).await?;
            match answer["moved"].as_u64() {
                None | Some(0) => break,
                Some(some) => moved += some,
            }
        }
    }
    let done = messages(&moved.into());
    let told = match consent.dry_run {
        true => format!("{planned} would be moved {words}\n"),
        false => format!("{done} moved {words}\n"),
    };
    let empty = plan["empty"].as_u64().unwrap_or_default();
    let value = || json!({ "moved": moved, "empty": empty, "dry_run": consent.dry_run });
    let left = match empty {
        0 => String::new(),
        _ => format!("{} without their messages stay\n", messages(&empty.into())),
    };
    print(json, value, || told + &left)?;
    Ok(ExitCode::SUCCESS)
}

async fn dead(
    server: &HttpServer,
    json: bool,
    (queue, requeue): (&Queue, Option<Option<u64>>),
    consent: &Consent,
) -> Result<ExitCode> {
    let described = server.get(&queue.path()).await?;
    let Some(topic) = described["dead_letter_topic"].as_str() else {
        bail!(Failure::NotFound(format!(
            "the group {} has no topic for dead letters (errors.deadletterqueue.topic.name)",
            queue.group
        )));
    };
    let moving = Moving {
        // Whoever consumes dead letters over AMQP takes them from there, too.
        from: path_of(QUEUES, topic),
        to: queue.name.as_str(),
        dead_of: Some(&queue.group),
        max: requeue.flatten(),
    };
    if requeue.is_some() {
        let words = format!("from {topic} back to {}", queue.name);
        return move_all(server, json, &moving, (&words, consent)).await;
    }
    let answer = moving.ask(server, PIECE, true).await?;
    let letters = answer["letters"].as_array().cloned().unwrap_or_default();
    let value = || {
        json!({
            "dead_letter_topic": topic, "count": answer["moved"], "empty": answer["empty"], "letters": letters.clone(),
        })
    };
    let shown = || {
        let mut table = Table::new(&["LETTER", "WRITTEN", "WAS", "DELIVERIES", "REASON"]);
        for one in &letters {
            table.row([
                format!("{topic}-{}@{}", one["partition"], one["offset"]),
                time_text(&one["time_ms"], "-"),
                format!(
                    "{}-{}@{}",
                    queue.name,
                    in_one_line(text(one, "of_partition")),
                    in_one_line(text(one, "of_offset"))
                ),
                in_one_line(text(one, "delivery_count")),
                in_one_line(text(one, "reason")),
            ]);
        }
        let all = messages(&answer["moved"]);
        let shown = match answer["moved"].as_u64() == Some(letters.len() as u64) {
            true => String::new(),
            false => format!(", of which {} are shown", letters.len()),
        };
        format!(
            "{table}\n{all} to be had in {topic}{shown}; {} without their messages\n",
            count(&answer, "empty")
        )
    };
    print(json, value, shown)?;
    Ok(ExitCode::SUCCESS)
}
