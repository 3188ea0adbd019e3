//! Logins: SASL's mechanisms over the endpoint's steps, and tokens that are put to `$cbs`.
//! Callers: `connection`. Invariants: what is shown is checked whether access is controlled or not, but for tokens, of which some cannot
//! be checked: they say nothing where nobody is asked. PLAIN and tokens are taken only where nobody
//! else reads them, and EXTERNAL only of who showed a certificate; a failure is answered late. One of SASL ends the connection.

use std::net::SocketAddr;
use std::sync::Arc;

use amqp::Value;
use amqp::endpoint::{Endpoint, Login as Step};
use amqp::message::Body;
use amqp::sasl::SaslCode;
use model::sasl::{ClientFirst, Exchange, Plain, ScramMechanism};
use tokio::time::Instant;

use super::errors::{NoAnswer, Status};
use super::requests::{Answer, Request};
use super::state::Front;
use crate::broker::access::Principal;
use crate::broker::credentials::LoginKind;
use crate::front::listener::Transport;

const EXTERNAL: &str = "EXTERNAL";
const PLAIN: &str = "PLAIN";
const ANONYMOUS: &str = "ANONYMOUS";
/// What tokens that can be checked are called: by Azure's clients, and by the draft of the standard.
const JWT: [&str; 2] = ["jwt", "amqp:jwt"];

/// How far a connection is with showing who it is.
pub(super) struct Login {
    front: Arc<Front>,
    transport: Transport,
    peer: SocketAddr,
    proof: Option<Proof>,
    /// Who it is: at first what the connection tells.
    pub(super) principal: Principal,
    /// Whether it has shown nothing yet: it may put a token, and nothing else.
    pub(super) awaits_token: bool,
    /// Until when the token that it has put holds.
    pub(super) holds_until: Option<Instant>,
}

/// SCRAM's first message was answered.
struct Proof {
    exchange: Box<Exchange>,
    user: Arc<str>,
}

/// What a step comes to.
enum Comes {
    /// Something else is asked.
    Asks(Vec<u8>),
    /// It is this one, and this is said last.
    Is(Principal, Option<Vec<u8>>),
    /// It is not.
    Fails,
}

impl Login {
    pub(super) fn new(front: &Arc<Front>, transport: Transport, peer: SocketAddr) -> Login {
        Login {
            front: Arc::clone(front),
            principal: transport.principal(),
            transport,
            peer,
            proof: None,
            awaits_token: false,
            holds_until: None,
        }
    }

    /// Whether one need not log in: a certificate is enough, and without access control everything is.
    pub(super) fn allows_bare(&self) -> bool {
        self.transport.peer_certificate_principal.is_some() || !self.is_controlled()
    }

    fn is_controlled(&self) -> bool {
        self.front.broker.controls_access().is_ok()
    }

    /// What one can log in by.
    pub(super) fn mechanisms(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        if self.transport.peer_certificate_principal.is_some() {
            all.push(EXTERNAL);
        }
        all.extend([ScramMechanism::Sha512, ScramMechanism::Sha256].map(ScramMechanism::name));
        if self.transport.is_private(self.peer.ip()) {
            all.push(PLAIN);
        }
        if !self.is_controlled() || self.takes_tokens() {
            all.push(ANONYMOUS);
        }
        all
    }

    /// Whether one can log in by a token that is put when the connection is open.
    fn takes_tokens(&self) -> bool {
        self.front.broker.takes_jwt() && self.transport.is_private(self.peer.ip())
    }

    /// Takes a step.
    pub(super) async fn take(&mut self, step: Step<'_>, endpoint: &mut Endpoint) {
        let comes = match step {
            Step::Init {
                mechanism,
                response,
            } if self.mechanisms().contains(&mechanism) => {
                self.begin(mechanism, response.unwrap_or_default()).await
            }
            Step::Init { .. } => Comes::Fails,
            Step::Response(said) => self.prove(said),
        };
        match comes {
            Comes::Asks(challenge) => endpoint.challenge(&challenge),
            Comes::Is(principal, last) => {
                self.principal = principal;
                endpoint.logged_in(SaslCode::Ok, last.as_deref());
            }
            Comes::Fails => {
                tokio::time::sleep(self.front.shared.sasl.failed_delay).await;
                endpoint.logged_in(SaslCode::Auth, None);
            }
        }
    }

    async fn begin(&mut self, mechanism: &str, said: &[u8]) -> Comes {
        match (mechanism, ScramMechanism::of_name(mechanism)) {
            (_, Some(scram)) => self.scram(scram, said),
            (PLAIN, None) => self.plain(said).await,
            // Whoever wants to be somebody else is not let in as who it is.
            (EXTERNAL, None) => match (self.transport.principal(), said) {
                (Principal::User(name), said) if said.is_empty() || said == name.as_bytes() => {
                    Comes::Is(Principal::User(name), None)
                }
                _ => Comes::Fails,
            },
            (ANONYMOUS, None) => {
                let principal = self.transport.principal();
                self.awaits_token = principal == Principal::Anonymous && self.is_controlled();
                Comes::Is(principal, None)
            }
            _ => Comes::Fails,
        }
    }

    async fn plain(&self, said: &[u8]) -> Comes {
        let (broker, address) = (&self.front.broker, self.peer.ip());
        let said = Plain::parse(said).ok();
        let is_own = |said: &Plain| {
            said.authorization
                .as_ref()
                .is_none_or(|it| *it == said.user)
        };
        let Some(said) = said.filter(is_own) else {
            broker.refuse_login(LoginKind::Amqp, address);
            return Comes::Fails;
        };
        let (user, password) = (said.user, said.password);
        let logged_in = broker.log_in(LoginKind::Amqp, &user, password, address);
        match logged_in.await {
            Ok(proven) => Comes::Is(Principal::User(proven.accept()), None),
            Err(_) => Comes::Fails,
        }
    }

    fn scram(&mut self, mechanism: ScramMechanism, said: &[u8]) -> Comes {
        let Ok(first) = ClientFirst::parse(said) else {
            return Comes::Fails;
        };
        let user: Arc<str> = first.user.as_str().into();
        let other = first.authorization.as_ref();
        let asks_more = other.is_some_and(|it| *it != first.user);
        let (credential, is_known) = self.front.broker.scram_credential(mechanism, &user);
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let (exchange, answer) = Exchange::begin(first, credential, is_known && !asks_more, &nonce);
        self.proof = Some(Proof {
            exchange: Box::new(exchange),
            user,
        });
        Comes::Asks(answer.into())
    }

    /// Takes a token that is put to `$cbs`. Where nobody is asked any is good.
    pub(super) async fn put_token(&mut self, request: &Request<'_>) -> Answer {
        let became = match request.operation {
            "put-token" => self.token(request),
            _ => Err(NoAnswer::Unknown),
        };
        if matches!(became, Err(NoAnswer::Token)) {
            tokio::time::sleep(self.front.shared.sasl.failed_delay).await;
        }
        let status = match became {
            Ok(()) => Status::of_done(202, "Accepted"),
            Err(why) => why.status(),
        };
        Answer { status, body: None }
    }

    fn token(&mut self, request: &Request<'_>) -> Result<(), NoAnswer> {
        if !self.is_controlled() {
            return Ok(());
        }
        let (broker, address) = (&self.front.broker, self.peer.ip());
        let refused = || {
            broker.refuse_login(LoginKind::Amqp, address);
            Err(NoAnswer::Token)
        };
        let token = match request.message.body {
            Body::Value(Value::String(text)) => text.as_bytes(),
            Body::Value(Value::Binary(bytes)) => bytes,
            _ => return refused(),
        };
        // What somebody else has signed with a key that only both of them know cannot be checked.
        if !(JWT.contains(&request.kind) && self.takes_tokens()) {
            return refused();
        }
        let proven = broker.log_in_by_jwt(LoginKind::Amqp, token, address);
        let proven = proven.map_err(|_| NoAnswer::Token)?;
        // A connection is one user's, as with logins that are renewed over Kafka.
        let is_other = match &self.principal {
            Principal::User(user) => *user != *proven.user(),
            Principal::Anonymous => false,
        };
        if is_other {
            return Err(NoAnswer::Token);
        }
        // Who has logged in otherwise is who it is for as long as it is there.
        if self.principal == Principal::Anonymous || self.holds_until.is_some() {
            self.holds_until = proven.holds().and_then(|it| Instant::now().checked_add(it));
        }
        self.awaits_token = false;
        self.principal = Principal::User(proven.accept());
        Ok(())
    }

    fn prove(&mut self, said: &[u8]) -> Comes {
        let Some(proof) = self.proof.take() else {
            return Comes::Fails;
        };
        let (broker, address) = (&self.front.broker, self.peer.ip());
        let attempt = broker.attempt_login(LoginKind::Amqp, Some(&proof.user), address);
        let Ok(attempt) = attempt else {
            return Comes::Fails;
        };
        let Ok(answer) = proof.exchange.finish(said) else {
            return Comes::Fails;
        };
        let user = attempt.proves(proof.user).accept();
        Comes::Is(Principal::User(user), Some(answer.into()))
    }
}
