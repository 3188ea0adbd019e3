//! Case 50: thousands of TLS handshakes that stall, beside an honest load and honest handshakes.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use client::{Client, ClientConfig, Tls, TlsFiles};

use crate::exam::hostile::{Siege, from_address};
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};
use crate::secured::Secured;

/// The case.
pub const CASE: Case = Case {
    number: 50,
    name: "handshakes",
    about: "10,000 TLS handshakes that stall (1,500 in the short form), beside an honest load and honest handshakes",
    rounds: Rounds {
        full: 10_000,
        short: 1_500,
    },
    run,
};

/// The addresses that the attackers come from.
const ADDRESSES: u32 = 16;
/// Attackers that connect at the same time.
const THREADS: u32 = 8;
/// What the stalled handshakes may cost in memory, beyond the calm: those under way, at most 1,024, each with its buffers.
const BYTES_MAX: u64 = 128 << 20;

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        times: exam.rounds,
        ..Outcome::default()
    };
    let secured = Secured::make(&exam.work.join("secured"))?;
    let mut plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work)
        .with("listeners", "PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0");
    plan.settings.extend(secured.settings());
    let siege = Siege::of(exam, &plan)?;
    let encrypted = siege.victim.other("SSL")?;
    let tls = Tls::open(&TlsFiles {
        truststore: Some(secured.path("ca.pem")),
        ..TlsFiles::default()
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let hello = runtime.block_on(client_hello(&tls))?;
    let honest = || handshake(&runtime, &encrypted, &tls);
    let calm: Vec<Duration> = (0..20).map(|_| honest()).collect::<Result<_>>()?;
    let ((during, stalled), highest) =
        siege.endure(|| stall(exam.rounds, &encrypted, &hello, &honest))?;
    outcome.require(!during.is_empty(), || {
        "no honest handshake was made meanwhile".to_owned()
    });
    outcome.require(highest < siege.calm_bytes + BYTES_MAX, || {
        format!(
            "{} MiB of memory, after {} MiB in the calm",
            highest >> 20,
            siege.calm_bytes >> 20
        )
    });
    outcome.notes.push(format!(
        "{stalled} stood at the end; {} honest handshakes meanwhile, the slowest {:.0?} (before: {:.0?}); memory {} MiB, before {} MiB",
        during.len(),
        during.iter().max().copied().unwrap_or_default(),
        calm.iter().max().copied().unwrap_or_default(),
        highest >> 20,
        siege.calm_bytes >> 20
    ));
    drop(runtime);
    siege.end(&mut outcome)?;
    Ok(outcome)
}

/// Opens connections that begin a handshake and go no further: a third say nothing, a third half a hello, a third a whole one.
/// Honest handshakes are made meanwhile. Answers what those took, and how many of the connections the broker kept.
fn stall(
    count: u32,
    address: &str,
    hello: &[u8],
    honest: &(dyn Fn() -> Result<Duration> + Sync),
) -> Result<(Vec<Duration>, usize)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let attackers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || -> Result<Vec<TcpStream>> {
                    let mine = (0..count).filter(|number| number % THREADS == thread);
                    mine.map(|number| stalled(number, address, hello)).collect()
                })
            })
            .collect();
        let honest = scope.spawn(|| -> Result<Vec<Duration>> {
            let mut took = vec![honest()?];
            while !over.load(Ordering::Relaxed) {
                took.push(honest()?);
            }
            Ok(took)
        });
        let mut held = Vec::new();
        for attacker in attackers {
            held.extend(attacker.join().expect("no attacker panics")?);
        }
        // Some honest ones while all of them stand.
        thread::sleep(Duration::from_secs(1));
        over.store(true, Ordering::Relaxed);
        let took = honest.join().expect("no honest client panics")?;
        let standing = held.iter().filter(|stream| is_open(stream)).count();
        Ok((took, standing))
    })
}

fn stalled(number: u32, address: &str, hello: &[u8]) -> Result<TcpStream> {
    use std::io::Write as _;
    let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 3, 1)) + number % ADDRESSES);
    let mut stream = from_address(from, address)?;
    let part = match number % 3 {
        0 => &[][..],
        1 => &hello[..hello.len() / 2],
        _ => hello,
    };
    // The broker may have ended it already.
    let _ = stream.write_all(part);
    Ok(stream)
}

/// Whether the broker has not closed it; what it said may be read first.
fn is_open(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 16 << 10];
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// A whole handshake and a question, and how long both took.
fn handshake(runtime: &tokio::runtime::Runtime, address: &str, tls: &Tls) -> Result<Duration> {
    let mut config = ClientConfig::new(address);
    config.tls = Some(tls.clone());
    config.retry_timeout = Duration::from_secs(10);
    let began = Instant::now();
    runtime
        .block_on(Client::connect(config))
        .context("an honest handshake")?;
    Ok(began.elapsed())
}

/// The first bytes of a real handshake.
async fn client_hello(tls: &Tls) -> Result<Vec<u8>> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?.to_string();
    let stream = tokio::net::TcpStream::connect(&address).await?;
    let (mut accepted, _) = listener.accept()?;
    let tls = tls.clone();
    let connecting = tokio::spawn(async move { tls.connect(stream, &address).await.is_ok() });
    let hello = tokio::task::spawn_blocking(move || -> Result<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        accepted.set_read_timeout(Some(Duration::from_secs(10)))?;
        let length = accepted.read(&mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    });
    let hello = hello.await??;
    connecting.abort();
    Ok(hello)
}
