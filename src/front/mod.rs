//! The fronts: each speaks one protocol and calls the broker. They never know each other.
//! What lies beside their folders is what they share: listeners and places of connections, memory of requests and answers,
//! and who is connected.

mod administered;
pub mod amqp;
mod audit;
mod budget;
pub mod http;
pub mod kafka;
pub mod listener;
pub mod mqtt;
mod pace;
pub mod peers;
mod places;
pub mod sasl;
mod settings;
mod websocket;
mod written;

pub use administered::Administered;
pub use listener::TLS_SETTINGS;
pub use places::{Limits, Places};
pub use settings::{SETTINGS, Settings};
pub use websocket::WebSockets;
