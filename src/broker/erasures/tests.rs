//! Erasures on a broker over a small store.
