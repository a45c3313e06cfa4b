//! Which addresses a kind of link is kept up to.

use std::collections::BTreeMap;

use node::link::Address;
use node::resolve::Addresses;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A task for each address of a list that changes. They end with this.
#[derive(Debug)]
pub(crate) struct Dialling {
    addresses: watch::Receiver<Addresses>,
    tasks: BTreeMap<Address, JoinHandle<()>>,
}

impl Dialling {
    pub(crate) fn new(addresses: watch::Receiver<Addresses>) -> Self {
        let tasks = BTreeMap::new();
        Self { addresses, tasks }
    }

    /// Resolves when the list has changed.
    ///
    /// # Errors
    /// Nobody can change it any more.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.addresses.changed().await
    }

    /// Starts `keep` for what is new in the list, and lets go of what has left it. It is given
    /// the address, and the list to look whether the address is wanted still.
    pub(crate) fn dial<F>(&mut self, keep: impl Fn(Address, watch::Receiver<Addresses>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let wanted = self.addresses.borrow_and_update().clone();
        // An address that left the list keeps its link while it is up: a resolver that
        // forgets an origin must not tear down what works. It is only not redialled.
        self.tasks
            .retain(|address, task| wanted.contains(address) || !task.is_finished());
        for address in wanted.iter() {
            self.tasks.entry(address.clone()).or_insert_with(|| {
                let kept = keep(address.clone(), self.addresses.clone());
                tokio::spawn(kept)
            });
        }
    }

    /// How many addresses there are.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}
