//! What is told when something fails.
