//! The nine promises of a subscription, held against a model that knows the whole tape.

mod limits;
mod reader;
mod scenarios;
mod simulation;
mod tape;
mod upstream;
mod world;
