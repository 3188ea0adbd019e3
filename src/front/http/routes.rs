//! Routes, each with its description: the router and the OpenAPI document are made of the same table, so nothing is served
//! that is not described, and nothing described that is not served.
//!
//! Callers: each part's `routes()`; `http` puts them together. Adding a route is a line in one of those, with an [`Operation`].
//! Invariants: an operation's id is unique; each name in a path is described; each route says which right it asks for, or none.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};

use super::operation::Described;
pub(super) use super::operation::Operation;
use super::state::Front;

/// Routes and what they are for.
pub(super) struct Routes {
    router: Router<Arc<Front>>,
    described: Vec<Described>,
}

impl Routes {
    /// None yet.
    pub(super) fn new() -> Routes {
        Routes {
            router: Router::new(),
            described: Vec::new(),
        }
    }

    /// `GET`, and with it `HEAD`.
    pub(super) fn get<H: Handler<T, Arc<Front>>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        about: Operation,
    ) -> Routes {
        self.on(Method::GET, MethodFilter::GET, path, handler, about)
    }

    /// `POST`.
    pub(super) fn post<H: Handler<T, Arc<Front>>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        about: Operation,
    ) -> Routes {
        self.on(Method::POST, MethodFilter::POST, path, handler, about)
    }

    /// `PATCH`.
    pub(super) fn patch<H: Handler<T, Arc<Front>>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        about: Operation,
    ) -> Routes {
        self.on(Method::PATCH, MethodFilter::PATCH, path, handler, about)
    }

    /// `DELETE`.
    pub(super) fn delete<H: Handler<T, Arc<Front>>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        about: Operation,
    ) -> Routes {
        self.on(Method::DELETE, MethodFilter::DELETE, path, handler, about)
    }

    fn on<H: Handler<T, Arc<Front>>, T: 'static>(
        mut self,
        method: Method,
        filter: MethodFilter,
        path: &'static str,
        handler: H,
        about: Operation,
    ) -> Routes {
        self.router = self.router.route(path, on(filter, handler));
        self.described.push(Described {
            method,
            path,
            about,
        });
        self
    }

    /// These and those.
    pub(super) fn merge(mut self, other: Routes) -> Routes {
        self.router = self.router.merge(other.router);
        self.described.extend(other.described);
        self
    }

    /// The router, and the description of everything in it.
    pub(super) fn into_parts(self) -> (Router<Arc<Front>>, Vec<Described>) {
        (self.router, self.described)
    }
}
