//! Where AMQP is asked for: at its path, and by clients whose URI has none at `/`.
//! Callers: `connection`, for each request before its route is found; `web_socket`, where the path leads.

use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{Method, Request};

/// The subprotocol of AMQP, and where it is spoken.
pub(super) const AMQP: &str = "amqp";
pub(super) const AMQP_PATH: &str = "/amqp";

/// Makes a request to go over to AMQP that names no path one for `/amqp`: clients ask at the path of the URI that they were given, and
/// `amqpws://host:8080` has none. It is then guarded, counted and answered as one. Any other request stays what it is.
pub(super) fn find_path<B>(request: &mut Request<B>) {
    let has_no_path = request.uri().path() == "/" && request.method() == Method::GET;
    if !has_no_path || !asks_for(request.headers(), AMQP) {
        return;
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(AMQP_PATH));
    *request.uri_mut() = Uri::from_parts(parts).expect("another path makes no URI a wrong one");
}

/// Whether a request is one to go over to this subprotocol.
fn asks_for(headers: &HeaderMap, protocol: &str) -> bool {
    let lists = |name: HeaderName, is_it: &dyn Fn(&str) -> bool| {
        let values = headers.get_all(name).into_iter();
        let mut values = values.filter_map(|value| value.to_str().ok());
        values.any(|value| value.split(',').map(str::trim).any(is_it))
    };
    lists(header::UPGRADE, &|it| it.eq_ignore_ascii_case("websocket"))
        && lists(header::SEC_WEBSOCKET_PROTOCOL, &|it| it == protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).expect("a request");
        find_path(&mut request);
        request.uri().to_string()
    }

    #[test]
    fn only_who_asks_for_amqp_without_a_path_is_led_to_it() {
        const UPGRADE: (&str, &str) = ("upgrade", "WebSocket");
        let wanted = |protocols| ("sec-websocket-protocol", protocols);
        let amqp = [UPGRADE, wanted("other, amqp")];
        assert_eq!(path_of("GET", "/", &amqp), "/amqp");
        assert_eq!(path_of("GET", "http://a:1/", &amqp), "http://a:1/amqp");
        for (method, uri, headers) in [
            ("GET", "/", &[UPGRADE][..]),
            ("GET", "/", &[wanted("amqp")]),
            ("GET", "/", &[UPGRADE, wanted("mqtt")]),
            ("GET", "/", &[("upgrade", "h2c"), wanted("amqp")]),
            ("POST", "/", &amqp),
            ("GET", "/metrics", &amqp),
            ("GET", "/mqtt", &amqp),
        ] {
            assert_eq!(path_of(method, uri, headers), uri, "{method} {headers:?}");
        }
    }
}
