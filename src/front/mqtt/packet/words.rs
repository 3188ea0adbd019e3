//! The words that packets share.

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V311,
    /// 5.0.
    V5,
}

/// How often a message may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// Once or not at all.
    AtMostOnce,
    /// Once or more.
    AtLeastOnce,
    /// Once.
    ExactlyOnce,
}

impl Qos {
    /// By its number; None for 3, which is none.
    pub fn of(number: u8) -> Option<Qos> {
        match number {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Its number as text.
    pub fn digit(self) -> &'static str {
        match self {
            Qos::AtMostOnce => "0",
            Qos::AtLeastOnce => "1",
            Qos::ExactlyOnce => "2",
        }
    }
}
