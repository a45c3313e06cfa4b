//! One origin's seat in the cluster.
