//! Case 52: SASL frames that were changed at random, before any login, beside an honest load.

use std::slice;

use anyhow::Result;
use bytes::Bytes;
use fuzz::mutate;
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use wire::messages::sasl_handshake::SaslHandshakeRequest;
use wire::{Request, RequestHeader};

use crate::exam::hostile::{self, Siege, Tally, attack};
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};
use crate::secured::{PASSWORD, Secured};

/// The case.
pub const CASE: Case = Case {
    number: 52,
    name: "sasl-frames",
    about: "SASL handshakes and messages of all mechanisms, changed at random, before any login, beside an honest load",
    rounds: Rounds { full: 20, short: 1 },
    run,
};

/// Inputs of a round.
const INPUTS: usize = 1_000;
const FRAME_BYTES_MAX: usize = 64 << 10;

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let secured = Secured::make(&exam.work.join("secured"))?;
    let listeners = "PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0";
    let mut plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work)
        .with("listeners", listeners)
        .with("connection.failed.authentication.delay.ms", 0)
        .with("failed.logins.per.ip.max", 1_000_000_000);
    plan.settings.extend(secured.settings());
    let siege = Siege::of(exam, &plan)?;
    let asking = siege.victim.other("SASL_PLAINTEXT")?;
    let logins = logins()?;
    let mut random = mutate::Random::new(exam.seed);
    let (mut all, mut most) = (Tally::default(), 0);
    for _ in 0..exam.rounds {
        let inputs: Vec<Vec<u8>> = (0..INPUTS)
            .map(|_| {
                // One that is right up to some frame, which is changed within its length, or as a whole.
                let login = &logins[random.below(logins.len())];
                let changed = random.below(login.len());
                let frames = login.iter().enumerate().take(changed + 1);
                let bytes =
                    frames.map(|(index, frame)| match (index == changed, random.below(4)) {
                        (false, _) => frame.clone(),
                        (true, 0) => {
                            mutate::mutated(slice::from_ref(frame), FRAME_BYTES_MAX, &mut random)
                        }
                        (true, _) => hostile::framed(&mutate::mutated(
                            &[frame[4..].to_vec()],
                            FRAME_BYTES_MAX,
                            &mut random,
                        )),
                    });
                bytes.collect::<Vec<_>>().concat()
            })
            .collect();
        let (tally, highest) = siege.endure(|| attack(&asking, &inputs))?;
        most = most.max(highest);
        all += tally;
    }
    outcome.times = u32::try_from(all.sent)?;
    all.require(&mut outcome);
    outcome.notes.push(format!(
        "{all}; memory {} MiB, before {} MiB",
        most >> 20,
        siege.calm_bytes >> 20
    ));
    siege.end(&mut outcome)?;
    Ok(outcome)
}

/// The frames of logins by each mechanism, as far as they go without the server's answer.
fn logins() -> Result<Vec<Vec<Vec<u8>>>> {
    let plain = format!("\0alice\0{PASSWORD}");
    let scram = "n,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL";
    let last = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
    let mut logins = Vec::new();
    for (mechanism, messages) in [
        ("PLAIN", &[plain.as_str()][..]),
        ("SCRAM-SHA-256", &[scram, last]),
        ("SCRAM-SHA-512", &[scram, last]),
    ] {
        let mut frames = vec![
            framed(3, &ApiVersionsRequest::default())?,
            framed(
                1,
                &SaslHandshakeRequest {
                    mechanism: mechanism.to_owned(),
                },
            )?,
        ];
        for message in messages {
            let request = SaslAuthenticateRequest {
                auth_bytes: Bytes::copy_from_slice(message.as_bytes()),
            };
            frames.push(framed(2, &request)?);
        }
        logins.push(frames);
    }
    Ok(logins)
}

fn framed<R: Request>(version: i16, request: &R) -> Result<Vec<u8>> {
    let header = RequestHeader {
        key: R::KEY,
        version,
        correlation_id: 1,
        client_id: Some("exam".to_owned()),
    };
    Ok(wire::frame::request(&header, request)?.concat())
}
