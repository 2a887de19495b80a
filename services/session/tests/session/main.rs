//! The nine promises of a subscription, held against a model that knows the whole tape.

mod reader;
mod simulation;
mod tape;
mod upstream;
mod world;
