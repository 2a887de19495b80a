//! What is ready, and what it waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Components that one process registers at most: they are services and sources, never readers.
pub const COMPONENTS_MAX: usize = 256;

/// The parts of a process, each ready or waiting. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// By name; `None` where ready, else what it waits for.
    components: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

/// One part of a process. Clones are the same part.
#[derive(Clone, Debug)]
pub struct Component {
    health: Health,
    name: String,
}

/// What `/readyz` tells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Readiness {
    /// Is every component ready (and the process not draining)?
    pub ready: bool,
    /// Each component, by name.
    pub components: Vec<ComponentState>,
}

/// One component in [`Readiness`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ComponentState {
    /// Its name.
    pub name: String,
    /// Is it ready?
    pub ready: bool,
    /// What it waits for, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

impl Health {
    /// An empty registry, which counts as ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a component, which waits for its `start`; one that is registered already is returned as it is.
    ///
    /// Beyond [`COMPONENTS_MAX`] it is logged and not shown.
    pub fn component(&self, name: &str) -> Component {
        let mut components = self.lock();
        if components.len() < COMPONENTS_MAX {
            components.entry(name.to_owned()).or_insert_with(|| Some("start".to_owned()));
        } else if !components.contains_key(name) {
            tracing::error!(name, COMPONENTS_MAX, "too many components: this one is not shown by /readyz");
        }
        Component { health: self.clone(), name: name.to_owned() }
    }

    /// Everything as it is now.
    pub fn readiness(&self) -> Readiness {
        let components: Vec<_> = self
            .lock()
            .iter()
            .map(|(name, waiting)| ComponentState {
                name: name.clone(),
                ready: waiting.is_none(),
                waiting: waiting.clone(),
            })
            .collect();
        Readiness { ready: components.iter().all(|c| c.ready), components }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<String>>> {
        // Every change is one assignment, so a panic elsewhere cannot leave the map half changed.
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component {
    /// It works.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// It does not work yet, or no more: it waits for `why`.
    pub fn set_waiting(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is it ready?
    pub fn is_ready(&self) -> bool {
        self.health.lock().get(&self.name).is_some_and(Option::is_none)
    }

    fn set(&self, waiting: Option<String>) {
        let mut components = self.health.lock();
        let Some(known) = components.get_mut(&self.name) else { return };
        if *known != waiting {
            match &waiting {
                None => tracing::debug!(component = self.name, "ready"),
                Some(why) => tracing::debug!(component = self.name, why, "waiting"),
            }
            *known = waiting;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_component_is() {
        let health = Health::new();
        assert!(health.readiness().ready);
        let one = health.component("publish");
        let other = health.component("tape");
        assert!(!health.readiness().ready);
        one.set_ready();
        other.set_waiting("a disk");
        let readiness = health.readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.components[1].waiting.as_deref(), Some("a disk"));
        other.set_ready();
        assert!(health.readiness().ready && one.is_ready());
        assert!(health.component("publish").is_ready(), "registering again does not reset it");
    }

    #[test]
    fn the_registry_is_bounded() {
        let health = Health::new();
        for i in 0..2 * COMPONENTS_MAX {
            health.component(&i.to_string()).set_waiting("x");
        }
        assert_eq!(health.readiness().components.len(), COMPONENTS_MAX);
    }
}
