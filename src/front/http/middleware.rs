//! What every request passes, whatever its route: its id, the guard, the login, the limits, and the count and line of it when it has ended.
//!
//! Callers: `http::routes`, around all routes. Invariants: a request that the guard refuses reaches no route; each answer has an
//! `X-Request-Id`; who asks whether the server lives needs no place among those that are answered; an answer that goes on for as
//! long as its reader likes ends whole, between two pieces, when the server stops.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Extension, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use model::quota::Quota;

use super::connection::OfConnection;
use super::ended::{Ended, Entry};
use super::errors::{self, ASKED, Asked, Form, Turned};
use super::guard::{self, Asker};
use super::login;
use super::operation::{Errors, Reach};
use super::quota::{Charge, Pace};
use super::state::Front;
use super::table::{Row, methods};
use super::traffic::Counted;

/// The header with a request's id.
const REQUEST_ID: &str = "x-request-id";
/// Ids of clients are taken up to this length.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// The longest path with its query.
const URI_BYTES_MAX: usize = 16 * 1024;
/// All headers together at most.
const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// One request, as far as its head says.
struct Head<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    host: Option<&'a str>,
    rows: &'a [Row],
    row: Option<&'a Row>,
}

/// Passes a request to its route, or turns it away.
pub(super) async fn handle(
    State(front): State<Arc<Front>>,
    connection: Option<Extension<OfConnection>>,
    mut request: Request,
    next: Next,
) -> Response {
    let connection = connection.map(|Extension(connection)| connection);
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map(MatchedPath::as_str);
    let rows = front.table.rows(path);
    let method = request.method().clone();
    let wanted = if method == Method::HEAD {
        &Method::GET
    } else {
        &method
    };
    let row = rows.iter().find(|row| row.method == *wanted);
    let charge = Charge::of(row.and_then(|row| row.quota), &front.broker);
    let counted = front.traffic.of(path, &method);
    let id = id_of(request.headers());
    let mut ended = Ended::begin(front.clone(), counted, &request, id.clone());
    let asked = Asked {
        id: id.clone(),
        form: form_of(rows, &request),
    };
    let answer = ASKED.scope(asked, async {
        let head = Head {
            method: &method,
            headers: request.headers(),
            host: host_of(&request),
            rows,
            row,
        };
        let asker = match front.check(&head, &request, connection.as_ref()) {
            Ok(asker) => asker,
            Err(turned) => return turned,
        };
        let entered = match login::enter(&front, row, &mut request).await {
            Ok(()) => front.enter(row, connection.as_ref()),
            Err(failed) => Err(errors::turned(&failed)),
        };
        match entered {
            Ok(entry) => ended.keep(entry),
            Err(turned) => return readable(turned, asker),
        }
        let (mut parts, body) = request.into_parts();
        if let Some(charge) = &charge {
            parts.extensions.insert(Arc::clone(charge));
        }
        let body = Received {
            body,
            pace: Pace::of(Quota::ProducerByteRate, charge.as_ref()),
            front: front.clone(),
            counted,
        };
        request = Request::from_parts(parts, Body::new(body));
        readable(next.run(request).await, asker)
    });
    let answer = answer.await;
    let pace = Pace::of(Quota::ConsumerByteRate, charge.as_ref());
    finish(answer, (ended, pace), row, connection, id)
}

/// The same answer, as one that the page may read.
fn readable(mut answer: Response, asker: Asker) -> Response {
    if let Asker::Allowed(origin) = asker {
        guard::allow(answer.headers_mut(), origin);
    }
    answer
}

/// Adds what every answer has, and watches it to its end.
fn finish(
    mut answer: Response,
    (mut ended, pace): (Ended, Pace),
    row: Option<&Row>,
    connection: Option<OfConnection>,
    id: String,
) -> Response {
    let is_public = row.is_some_and(|row| row.reach == Reach::Everybody);
    let wants_login = errors::wants_login(&answer);
    let headers = answer.headers_mut();
    if wants_login {
        for challenge in login::CHALLENGES {
            headers.append(header::WWW_AUTHENTICATE, challenge);
        }
    }
    let id = HeaderValue::from_str(&id).expect("an id is letters");
    headers.insert(REQUEST_ID, id);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if !is_public
        && !headers.contains_key(header::CACHE_CONTROL)
        && !headers.contains_key(header::ETAG)
    {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let follows = row.is_some_and(|row| row.follows) && answer.status().is_success();
    ended.answered(answer.status().as_u16(), follows);
    let is_streamed = answer.body().size_hint().exact().is_none();
    let is_long = is_streamed || answer.headers().contains_key(header::ETAG);
    let mut stop = None;
    if let Some(connection) = connection {
        connection.may_pause(is_long);
        // One whose length was said already goes as it is.
        let ends_early = follows && is_streamed;
        stop = ends_early
            .then(|| Box::pin(connection.stopped()) as Pin<Box<dyn Future<Output = ()> + Send>>);
    }
    answer.map(|body| {
        let body = Sent {
            body,
            pace,
            ended,
            stop,
        };
        Body::new(body)
    })
}

impl Front {
    /// Looks at a request's head: an answer is why its route does not get it, or what is said in the route's place.
    #[allow(
        clippy::result_large_err,
        reason = "an answer is what it is, and made once a request"
    )]
    fn check(
        &self,
        head: &Head<'_>,
        request: &Request,
        connection: Option<&OfConnection>,
    ) -> Result<Asker, Response> {
        let turned = |why: Turned| Err(errors::turned(&why));
        let is_public = head.row.is_some_and(|row| row.reach == Reach::Everybody);
        if !is_public && connection.is_some_and(OfConnection::is_stopping) {
            return turned(Turned::Stopping);
        }
        if head.host.is_none() && request.version() >= Version::HTTP_11 {
            return turned(Turned::NoHost);
        }
        if !self.guard.knows_host(head.host) {
            return turned(Turned::UnknownHost(
                head.host.unwrap_or_default().to_owned(),
            ));
        }
        let uri = request.uri().path_and_query();
        if uri.is_some_and(|uri| uri.as_str().len() > URI_BYTES_MAX) {
            return turned(Turned::LongUri {
                bytes_max: URI_BYTES_MAX,
            });
        }
        let headers = head.headers.iter();
        let bytes: usize = headers
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if bytes > HEADERS_BYTES_MAX {
            return turned(Turned::LongHeaders {
                bytes_max: HEADERS_BYTES_MAX,
            });
        }
        let asker = self.guard.asker(head.headers, head.host);
        let is_preflight = guard::is_preflight(head.method, head.headers);
        if let Asker::Other(origin) = &asker
            && !head.rows.is_empty()
            && (is_preflight || !is_public)
        {
            return turned(Turned::CrossSite(origin.clone()));
        }
        if *head.method == Method::OPTIONS && !head.rows.is_empty() {
            return Err(self.options(head, asker, is_preflight));
        }
        let accept = head.headers.get(header::ACCEPT);
        if let (Some(row), Some(accept)) = (head.row, accept)
            && !is_public
            && !is_accepted(accept.to_str().unwrap_or("*/*"), &row.types)
        {
            return turned(Turned::NotAcceptable(row.types.join(", ")));
        }
        Ok(asker)
    }

    /// What may be done with a path.
    fn options(&self, head: &Head<'_>, asker: Asker, is_preflight: bool) -> Response {
        let methods = methods(head.rows);
        let mut answer = errors::no_content();
        answer.headers_mut().insert(header::ALLOW, methods.clone());
        if let Asker::Allowed(origin) = asker {
            guard::allow(answer.headers_mut(), origin);
            if is_preflight {
                guard::allow_preflight(head.headers, methods, answer.headers_mut());
            }
        }
        answer
    }

    /// Gives a request its place among those that are answered.
    #[allow(
        clippy::result_large_err,
        reason = "an answer is what it is, and made once a request"
    )]
    fn enter(
        &self,
        row: Option<&Row>,
        connection: Option<&OfConnection>,
    ) -> Result<Entry, Response> {
        let mut entry = Entry::of(connection.map(OfConnection::busy));
        let Some(row) = row.filter(|row| row.reach != Reach::Everybody) else {
            return Ok(entry);
        };
        let places = if row.follows {
            &self.followers
        } else {
            &self.requests
        };
        let Ok(permit) = places.clone().try_acquire_owned() else {
            self.traffic.overloaded.fetch_add(1, Relaxed);
            return Err(errors::turned(&Turned::Overloaded));
        };
        entry.permit = Some(permit);
        entry.stay = connection.map(OfConnection::stay);
        Ok(entry)
    }
}

/// The client's id for its request if it is one that can be written everywhere, or a new one.
fn id_of(headers: &HeaderMap) -> String {
    let is_sane = |id: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain)
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    match given.filter(is_sane) {
        Some(id) => id.to_owned(),
        None => uuid::Uuid::new_v4().simple().to_string(),
    }
}

/// By which name the server was called.
fn host_of(request: &Request) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str());
    }
    let host = request.headers().get(header::HOST)?;
    // What is no text is no name that is known.
    Some(host.to_str().unwrap_or("?"))
}

/// In which form a request is told of errors: its route's, or that of the paths around it.
fn form_of(rows: &[Row], request: &Request) -> Form {
    let path = request.uri().path();
    let begins = |first: &str| {
        path.strip_prefix(first)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_proxy = match rows.first() {
        Some(row) => row.errors == Errors::Proxy,
        None => begins("/topics") || begins("/v3") || begins("/consumers") || begins("/brokers"),
    };
    if !is_proxy {
        return Form::Problem;
    }
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let wants_plain = accept
        .is_some_and(|accept| accept.contains("application/json") && !accept.contains("vnd.kafka"));
    match (begins("/v3"), wants_plain) {
        (true, _) => Form::ProxyThird,
        (false, true) => Form::ProxySecond("application/json"),
        (false, false) => Form::ProxySecond("application/vnd.kafka.v2+json"),
    }
}

/// Whether one of these types may be answered.
fn is_accepted(accept: &str, types: &[&str]) -> bool {
    let mut wanted = accept.split(',').map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|part| {
            let quality = part.to_ascii_lowercase().replace(' ', "");
            quality
                .strip_prefix("q=")
                .and_then(|q| q.parse::<f32>().ok())
                .is_some_and(|q| q <= 0.0)
        });
        (range, is_refused)
    });
    types.is_empty()
        || wanted.any(|(range, is_refused)| {
            let is_in = |kind: &&str| {
                let group = range.strip_suffix("/*");
                range == "*/*"
                    || range.is_empty()
                    || range == **kind
                    || group.is_some_and(|group| kind.split('/').next() == Some(group))
            };
            !is_refused && types.iter().any(is_in)
        })
}

/// A request's body, whose bytes are counted.
struct Received {
    body: Body,
    pace: Pace,
    front: Arc<Front>,
    counted: Counted,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        std::task::ready!(self.pace.poll(context));
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.pace.went(data.len());
            self.front.traffic.received(self.counted, data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which is watched to its end.
struct Sent {
    body: Body,
    pace: Pace,
    ended: Ended,
    /// Ends it between two pieces.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(context).is_ready()
        {
            self.stop = None;
            self.body = Body::empty();
        }
        std::task::ready!(self.pace.poll(context));
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.pace.went(bytes);
                self.ended.sent(bytes as u64);
            }
            Poll::Ready(Some(Err(error))) => self.ended.broke_off(error),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_cannot_be_written_everywhere_are_not_taken() {
        let id = |given: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).expect("a value"));
            id_of(&headers)
        };
        assert_eq!(id(b"trace-1:2/3"), "trace-1:2/3");
        for odd in [&b"two words"[..], b"\"", b"{}", b"\xff", &[b'a'; 129], b""] {
            assert_ne!(id(odd).as_bytes(), odd);
            assert_eq!(id(odd).len(), 32);
        }
    }

    #[test]
    fn a_type_that_is_offered_is_accepted_by_name_by_group_and_by_anything() {
        let json = &["application/json"][..];
        for good in [
            "*/*",
            "application/*",
            "application/json",
            "text/html, */*;q=0.1",
            "APPLICATION/JSON; charset=utf-8",
        ] {
            assert!(is_accepted(good, json), "{good}");
        }
        for bad in [
            "text/html",
            "application/json;q=0",
            "text/*",
            "application/xml, text/csv",
        ] {
            assert!(!is_accepted(bad, json), "{bad}");
        }
        assert!(
            is_accepted("text/html", &[]),
            "there is nothing to be typed"
        );
    }
}
