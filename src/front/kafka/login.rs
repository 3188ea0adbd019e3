//! Login: how far a connection is with showing who it is, by SASL.
//! Callers: `connection`, which asks whether a request may pass; the handlers of SaslHandshake and SaslAuthenticate, which take it
//! on. Invariants: where it is demanded, nothing but ApiVersions, SaslHandshake and SaslAuthenticate passes before it has succeeded, and
//! nothing but a new login after its session ended. A failed login is answered late and ends the connection. A login anew
//! is the same user's, by the same mechanism (KIP-368).
//! Source: Kafka's `SaslServerAuthenticator` and `KafkaChannel`.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use model::sasl::{Bearer, ClientFirst, Exchange, Plain, SaslMechanism, ScramMechanism};
use tokio::time::Instant;
use wire::ApiKey;

use crate::broker::Broker;
use crate::broker::access::Principal;
use crate::broker::credentials::{LoginKind, Proven};
use crate::front::listener::Transport;
use crate::front::sasl::SaslSettings;

/// A connection logs in anew no sooner than this after the last time.
const AGAIN_MIN: Duration = Duration::from_secs(1);

/// Why a step of a login is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::front::kafka) enum Refused {
    /// This connection does not log in, or not now.
    #[error("{0}")]
    State(&'static str),
    /// The mechanism is not offered.
    #[error("mechanism {0:?} is not enabled here")]
    Mechanism(String),
    /// What was shown is not enough. Kafka's words, the same for a wrong password and a user that does not exist.
    #[error("{0}")]
    Failed(String),
}

/// What a step that succeeded answers.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::front::kafka) struct Answered {
    /// What the mechanism says.
    pub(in crate::front::kafka) token: Bytes,
    /// How long the login holds, if it is done and ends.
    pub(in crate::front::kafka) session: Option<Duration>,
}

/// A connection's login.
#[derive(Debug)]
pub(in crate::front::kafka) struct Login {
    /// None: nobody has to log in.
    settings: Option<SaslSettings>,
    address: IpAddr,
    transport: Transport,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    step: Step,
    done: Option<Done>,
    has_failed: bool,
}

#[derive(Debug, Default)]
enum Step {
    /// No mechanism is chosen.
    #[default]
    Idle,
    /// One is; `is_bare` says that its messages come without a header, as after version 0 of SaslHandshake.
    Chosen {
        mechanism: SaslMechanism,
        is_bare: bool,
    },
    /// SCRAM's first message was answered.
    Proof {
        exchange: Box<Exchange>,
        mechanism: ScramMechanism,
        user: Arc<str>,
        is_bare: bool,
    },
    /// A token is not taken, and the client has heard so. Whatever it says, the login has failed.
    Refused { is_bare: bool },
}

/// A login that succeeded.
#[derive(Debug, Clone)]
struct Done {
    user: Arc<str>,
    mechanism: SaslMechanism,
    at: Instant,
    ends: Option<Instant>,
}

impl Login {
    /// Of a new connection from this address, by this listener, which says whether there has to be one.
    pub(in crate::front::kafka) fn new(
        settings: &SaslSettings,
        address: IpAddr,
        transport: Transport,
    ) -> Arc<Login> {
        let is_demanded = transport.listener.protocol.is_sasl();
        Arc::new(Login {
            settings: is_demanded.then(|| settings.clone()),
            address,
            transport,
            state: Mutex::default(),
        })
    }

    /// Of a connection that does not have to.
    #[cfg(test)]
    pub(in crate::front::kafka) fn none() -> Arc<Login> {
        let address = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Login::new(&SaslSettings::default(), address, Transport::plain())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the state")
    }

    /// Whether the connection has to log in.
    pub(in crate::front::kafka) fn is_demanded(&self) -> bool {
        self.settings.is_some()
    }

    /// What is known of the connection without a login.
    pub(in crate::front::kafka) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Who has logged in; where nobody has to, who shows a certificate.
    pub(in crate::front::kafka) fn principal(&self) -> Principal {
        if !self.is_demanded() {
            return self.transport.principal();
        }
        match &self.state().done {
            Some(done) => Principal::User(done.user.clone()),
            None => Principal::Anonymous,
        }
    }

    /// The longest request that is read now, if it is bounded more than others.
    pub(in crate::front::kafka) fn request_bytes_max(&self) -> Option<usize> {
        let settings = self.settings.as_ref()?;
        let is_done = self.state().done.is_some();
        (!is_done).then_some(settings.request_bytes_max)
    }

    /// Whether the next frame is a message of the mechanism, without a header.
    pub(in crate::front::kafka) fn takes_bare(&self) -> bool {
        self.is_demanded()
            && matches!(
                self.state().step,
                Step::Chosen { is_bare: true, .. }
                    | Step::Proof { is_bare: true, .. }
                    | Step::Refused { is_bare: true }
            )
    }

    /// Whether the connection ends, as its login failed.
    pub(in crate::front::kafka) fn has_failed(&self) -> bool {
        self.is_demanded() && self.state().has_failed
    }

    /// Whether a request of this key passes now; or why the connection ends.
    pub(in crate::front::kafka) fn admits(&self, key: Option<ApiKey>) -> Result<(), &'static str> {
        if !self.is_demanded() {
            return Ok(());
        }
        let state = self.state();
        match (key, &state.done) {
            (Some(ApiKey::SaslHandshake | ApiKey::SaslAuthenticate), _) => Ok(()),
            (Some(ApiKey::ApiVersions), None) => Ok(()),
            (_, None) => Err("a request before the login"),
            (_, Some(done)) => match done.ends {
                Some(end) if Instant::now() >= end => Err("the login's session has ended"),
                _ => Ok(()),
            },
        }
    }

    /// The names of the mechanisms that this connection may choose.
    pub(in crate::front::kafka) fn mechanisms(&self) -> Vec<String> {
        let settings = self.settings.iter();
        let all = settings.flat_map(|it| &it.mechanisms);
        let offered =
            all.filter(|one| self.transport.is_private(self.address) || !one.tells_secret());
        offered.map(|one| one.name().to_owned()).collect()
    }

    /// Chooses a mechanism. A failure is answered late.
    pub(in crate::front::kafka) async fn choose(
        &self,
        name: &str,
        version: i16,
    ) -> Result<(), Refused> {
        let chosen = self.try_choose(name, version);
        if let Err(Refused::Mechanism(_)) = chosen {
            self.fail().await;
        }
        chosen
    }

    fn try_choose(&self, name: &str, version: i16) -> Result<(), Refused> {
        if !self.is_demanded() {
            return Err(Refused::State("this listener does not authenticate"));
        }
        let mut state = self.state();
        let is_early = |done: &Done| done.ends.is_none() || done.at.elapsed() < AGAIN_MIN;
        if state.done.as_ref().is_some_and(is_early) {
            return Err(Refused::State("the connection has logged in"));
        }
        if !matches!(state.step, Step::Idle) {
            return Err(Refused::State("a mechanism is chosen"));
        }
        let offered = self.mechanisms();
        let mechanism =
            SaslMechanism::of_name(name).filter(|_| offered.iter().any(|it| it == name));
        let Some(mechanism) = mechanism else {
            let name = name.chars().take(64).collect();
            return Err(Refused::Mechanism(name));
        };
        let is_bare = version == 0;
        state.step = Step::Chosen { mechanism, is_bare };
        Ok(())
    }

    /// Takes the next message of the mechanism. A failure is answered late.
    pub(in crate::front::kafka) async fn take(
        &self,
        broker: &Broker,
        message: &[u8],
    ) -> Result<Answered, Refused> {
        let step = std::mem::take(&mut self.state().step);
        let taken = match step {
            Step::Idle => Err(Refused::State("no mechanism is chosen")),
            Step::Chosen { mechanism, is_bare } => match mechanism {
                SaslMechanism::Plain => self.plain(broker, message).await,
                SaslMechanism::Scram(scram) => self.begin(broker, message, scram, is_bare),
                SaslMechanism::OauthBearer => self.bear(broker, message, is_bare),
            },
            Step::Refused { .. } => Err(Refused::Failed(Bearer::REFUSAL.to_owned())),
            Step::Proof {
                exchange,
                mechanism,
                user,
                ..
            } => self.prove(broker, *exchange, mechanism, user, message),
        };
        let is_harmless = |refused: &Refused| {
            let is_done = !self.is_demanded() || self.state().done.is_some();
            matches!(refused, Refused::State(_)) && is_done
        };
        if taken.as_ref().is_err_and(|refused| !is_harmless(refused)) {
            self.fail().await;
        }
        taken
    }

    async fn plain(&self, broker: &Broker, message: &[u8]) -> Result<Answered, Refused> {
        const WRONG: &str = "Authentication failed: Invalid username or password";
        let wrong = || Refused::Failed(WRONG.to_owned());
        let said = Plain::parse(message).ok();
        let is_own = |said: &Plain| {
            said.authorization
                .as_ref()
                .is_none_or(|it| *it == said.user)
        };
        let Some(said) = said.filter(is_own) else {
            broker.refuse_login(LoginKind::Plain, self.address);
            return Err(wrong());
        };
        let (user, password) = (said.user, said.password);
        let logged_in = broker.log_in(LoginKind::Plain, &user, password, self.address);
        let proven = logged_in.await.map_err(|_| wrong())?;
        self.succeed(proven, SaslMechanism::Plain, Bytes::new())
    }

    /// Takes a token. One that is no good is answered by what RFC 7628 has for it; the client answers, and then hears the error.
    fn bear(&self, broker: &Broker, message: &[u8], is_bare: bool) -> Result<Answered, Refused> {
        const MECHANISM: SaslMechanism = SaslMechanism::OauthBearer;
        let kind = LoginKind::OauthBearer;
        let Ok(said) = Bearer::parse(message) else {
            broker.refuse_login(kind, self.address);
            return Err(self.wrong(MECHANISM));
        };
        let Ok(proven) = broker.log_in_by_jwt(kind, said.token, self.address) else {
            self.state().step = Step::Refused { is_bare };
            return Ok(Answered {
                token: Bytes::from_static(Bearer::REFUSAL.as_bytes()),
                session: None,
            });
        };
        match said.authorization {
            Some(other) if *other != **proven.user() => Err(Refused::Failed(format!(
                "Authentication failed: Client requested an authorization id ({other}) that is different from the token's \
                 principal name ({})",
                proven.user()
            ))),
            _ => self.succeed(proven, MECHANISM, Bytes::new()),
        }
    }

    fn begin(
        &self,
        broker: &Broker,
        message: &[u8],
        mechanism: ScramMechanism,
        is_bare: bool,
    ) -> Result<Answered, Refused> {
        let Ok(first) = ClientFirst::parse(message) else {
            broker.refuse_login(LoginKind::Scram(mechanism), self.address);
            return Err(self.wrong(SaslMechanism::Scram(mechanism)));
        };
        let user: Arc<str> = first.user.as_str().into();
        // Whoever asks for more than there is — another's identity, a delegation token — is not let in for less.
        let is_asking_more = first
            .authorization
            .as_ref()
            .is_some_and(|it| *it != first.user)
            || first
                .extensions
                .iter()
                .any(|(_, field)| field.starts_with("tokenauth"));
        let (credential, is_known) = broker.scram_credential(mechanism, &user);
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let (exchange, answer) =
            Exchange::begin(first, credential, is_known && !is_asking_more, &nonce);
        self.state().step = Step::Proof {
            exchange: Box::new(exchange),
            mechanism,
            user,
            is_bare,
        };
        Ok(Answered {
            token: answer.into(),
            session: None,
        })
    }

    fn prove(
        &self,
        broker: &Broker,
        exchange: Exchange,
        mechanism: ScramMechanism,
        user: Arc<str>,
        message: &[u8],
    ) -> Result<Answered, Refused> {
        let kind = LoginKind::Scram(mechanism);
        let attempt = broker.attempt_login(kind, Some(&user), self.address);
        let mechanism = SaslMechanism::Scram(mechanism);
        let attempt = attempt.map_err(|_| self.wrong(mechanism))?;
        let answer = exchange
            .finish(message)
            .map_err(|_| self.wrong(mechanism))?;
        self.succeed(attempt.proves(user), mechanism, answer.into())
    }

    fn wrong(&self, mechanism: SaslMechanism) -> Refused {
        let again = match self.state().done {
            Some(_) => "re-authentication",
            None => "authentication",
        };
        let name = mechanism.name();
        Refused::Failed(format!(
            "Authentication failed during {again} due to invalid credentials with SASL mechanism {name}"
        ))
    }

    fn succeed(
        &self,
        proven: Proven,
        mechanism: SaslMechanism,
        token: Bytes,
    ) -> Result<Answered, Refused> {
        let holds = proven.holds();
        let session_max = self.settings.as_ref().and_then(|it| it.session_max);
        // As long as what was shown, and never longer than the settings say (KIP-368).
        let session = match (session_max, holds) {
            (Some(most), Some(holds)) => Some(most.min(holds)),
            (most, holds) => most.or(holds),
        };
        let mut state = self.state();
        let is_other = |done: &Done| done.user != *proven.user() || done.mechanism != mechanism;
        if state.done.as_ref().is_some_and(is_other) {
            let words = "Cannot change principals or mechanisms during re-authentication";
            return Err(Refused::Failed(words.to_owned()));
        }
        let at = Instant::now();
        state.done = Some(Done {
            user: proven.accept(),
            mechanism,
            at,
            ends: session.and_then(|time| at.checked_add(time)),
        });
        Ok(Answered { token, session })
    }

    /// Notes the failure, and waits before it is answered.
    async fn fail(&self) {
        self.state().has_failed = true;
        let delay = self.settings.as_ref().map(|it| it.failed_delay);
        tokio::time::sleep(delay.unwrap_or_default()).await;
    }
}

#[cfg(test)]
mod tests;
