//! Case 53: a user's right is taken away while she produces and reads: what she asks for afterwards is refused, at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use model::codec::Codec;
use wire::ErrorCode;
use wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use wire::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};

use crate::exam::ledger::Payload;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};
use crate::secured::{PASSWORD, Secured};

/// The case.
pub const CASE: Case = Case {
    number: 53,
    name: "revoked",
    about: "the right of a user who produces and reads on four connections is taken away and given back, again and again",
    rounds: Rounds {
        full: 100,
        short: 8,
    },
    run,
};

const TOPIC: &str = "readings";
const PRODUCERS: usize = 2;
const READERS: usize = 2;
const READ: i8 = 3;
const WRITE: i8 = 4;

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let secured = Secured::make(&exam.work.join("secured"))?;
    let mut plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work)
        .with("listeners", "SASL_PLAINTEXT://127.0.0.1:0")
        .with(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )
        .with("super.users", "User:admin");
    plan.settings.extend(secured.settings());
    let mut victim = plan.start()?;
    let mut admin = entered(&victim.kafka, "admin")?;
    admin.create_topic(TOPIC, 1, &[])?;
    let mut random = Random::new(exam.seed);
    let (mut before, mut refused) = (0, 0);
    for round in 1..=exam.rounds {
        allow(&mut admin)?;
        let told = attempt(&victim.kafka, &mut admin, random.between(0, 20))?;
        outcome.require(told.after == 0, || {
            format!(
                "round {round}: {} requests were served after the right was gone",
                told.after
            )
        });
        before += told.before;
        refused += told.refused;
        outcome.times = round;
    }
    outcome.require(before > 0 && refused > 0, || {
        format!("{before} requests served and {refused} refused: nothing was tried")
    });
    outcome.notes.push(format!(
        "{before} requests served while she had the right, {refused} refused after it was gone, none served then"
    ));
    victim.terminate()?;
    Ok(outcome)
}

/// Requests that were sent after the right was gone, and served; served before; and refused.
#[derive(Default)]
struct Told {
    after: u64,
    before: u64,
    refused: u64,
}

fn attempt(address: &str, admin: &mut Probe, millis: u64) -> Result<Told> {
    let gone = AtomicBool::new(false);
    let work = |writes: bool| -> Result<Told> {
        let mut alice = entered(address, "alice")?;
        let mut told = Told::default();
        loop {
            let was_gone = gone.load(Ordering::SeqCst);
            let served = match writes {
                true => produce(&mut alice)?,
                false => read(&mut alice)?,
            };
            match (served, was_gone) {
                (true, true) => told.after += 1,
                (true, false) => told.before += 1,
                (false, _) => told.refused += 1,
            }
            if was_gone {
                return Ok(told);
            }
        }
    };
    thread::scope(|scope| {
        let work = &work;
        let clients: Vec<_> = (0..PRODUCERS + READERS)
            .map(|number| scope.spawn(move || work(number < PRODUCERS)))
            .collect();
        thread::sleep(Duration::from_millis(millis));
        let denied = deny(admin);
        gone.store(true, Ordering::SeqCst);
        let mut told = Told::default();
        for client in clients {
            let one = client.join().expect("no client panics")?;
            told.after += one.after;
            told.before += one.before;
            told.refused += one.refused;
        }
        denied.map(|()| told)
    })
}

fn entered(address: &str, user: &str) -> Result<Probe> {
    let mut probe = Probe::connect(address)?;
    let refused = probe.log_in(user, PASSWORD)?;
    ensure!(refused.is_none(), "{user} is not let in: {refused:?}");
    Ok(probe)
}

fn produce(probe: &mut Probe) -> Result<bool> {
    let payload = Payload {
        id: 0,
        key: b"press4".to_vec(),
        value: b"a reading".to_vec(),
    };
    let batch = batch_of(&[payload], Codec::None, None)?;
    match probe.produce(TOPIC, 0, batch)? {
        Answer::Acknowledged(_) => Ok(true),
        Answer::Refused(ErrorCode::TopicAuthorizationFailed) => Ok(false),
        Answer::Refused(error) => anyhow::bail!("produce: {}", error.name()),
    }
}

fn read(probe: &mut Probe) -> Result<bool> {
    let fetched = probe.fetch(TOPIC, 0, 0, 4096, 0)?;
    match fetched.error {
        ErrorCode::None => Ok(true),
        ErrorCode::TopicAuthorizationFailed => Ok(false),
        error => anyhow::bail!("fetch: {}", error.name()),
    }
}

fn allow(admin: &mut Probe) -> Result<()> {
    let rule = |operation| AclCreation {
        resource_type: 2,
        resource_name: TOPIC.to_owned(),
        resource_pattern_type: 3,
        principal: "User:alice".to_owned(),
        host: "*".to_owned(),
        operation,
        permission_type: 3,
    };
    let request = CreateAclsRequest {
        creations: vec![rule(READ), rule(WRITE)],
    };
    let answer = admin.call(3, &request)?;
    ensure!(
        answer.results.iter().all(|result| result.error_code == 0),
        "{answer:?}"
    );
    Ok(())
}

fn deny(admin: &mut Probe) -> Result<()> {
    let request = DeleteAclsRequest {
        filters: vec![DeleteAclsFilter {
            resource_type_filter: 2,
            resource_name_filter: Some(TOPIC.to_owned()),
            pattern_type_filter: 3,
            principal_filter: None,
            host_filter: None,
            operation: 1,
            permission_type: 1,
        }],
    };
    let answer = admin.call(3, &request)?;
    let deleted: usize = answer
        .filter_results
        .iter()
        .map(|result| result.matching_acls.len())
        .sum();
    ensure!(deleted == 2, "{answer:?}");
    Ok(())
}
