# What a person types; CI runs the same (.ci/run).

# Lists the recipes.
default:
    @just --list

# Origins and edges in one process: `just dev --origins 2 --edges 2`.
dev *args:
    cargo run --release -- dev {{args}}

# Everything that is looked at without running a test.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Every test, after installing the programs that the tests talk to.
test *args:
    cluster-tests/run {{args}}

# The Helm chart: lint, render, and what reviewers look for.
chart *args:
    helm/tests/run {{args}}

# Licences, sources and banned crates.
deny:
    cargo deny check bans licenses sources

# Known vulnerabilities; fetches the RustSec database.
advisories:
    cargo deny check advisories

# One fuzz target (see proto/fuzz) for so many seconds; needs cargo-fuzz and nightly.
fuzz target seconds="600":
    cargo +nightly fuzz run --fuzz-dir proto/fuzz {{target}} -- -max_total_time={{seconds}}

# What CI runs.
ci:
    .ci/run
