# Two commands matter: `make test` does everything there is to check, and installs what that
# takes; `make check` is its quick part, for the inner loop.

.PHONY: test check tools lint unit doc docs browsers conformance soak chaos bench compare plots deny

CARGO ?= cargo

test: tools lint unit doc browsers

check: lint
	$(CARGO) test --lib --quiet
	$(CARGO) test --test it --quiet -- layers docs subscribe replay publish control

# What the tests need and the machine lacks, by package name.
tools:
	tests/browser/install.sh

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

unit:
	$(CARGO) test --locked --lib --bins --test it
	$(CARGO) test --locked --lib --features model -- hub::tests::model
	$(CARGO) test --locked --bench allocations
	$(CARGO) run --profile count --locked --quiet --example instructions

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked --document-private-items
	$(CARGO) test --locked --doc

# Real Chromium and real Firefox, over HTTP/2 and HTTP/3.
browsers:
	$(CARGO) build --locked
	cd tests/browser && node --test --test-concurrency=1 --test-reporter=spec

# HTTP/2 by h2spec, which `make tools` installs where Go is.
conformance: tools
	$(CARGO) test --locked --test it -- --ignored --nocapture conformance

# What takes too long for every run.
soak: tools
	$(CARGO) build --locked
	$(CARGO) test --locked --test it -- --ignored --skip conformance --skip durable --skip cluster
	cd tests/browser && node --test --test-concurrency=1 --test-reporter=spec demo.soak.mjs

# What history promises, on bad days: processes that are killed 600 times, 10,000 disks whose power is cut, a thousand
# readers who are a million events behind; and three edges with three NATS servers, of which something goes for ten minutes.
chaos: tools
	$(CARGO) test --locked --lib -- --ignored history
	$(CARGO) test --locked --test it -- --ignored --nocapture durable
	$(CARGO) test --locked --test it -- --ignored --nocapture cluster

# Writes the pages that are made of the code.
docs:
	UPDATE_DOCS=1 $(CARGO) test --test it --quiet -- docs

bench:
	$(CARGO) build --release --locked
	target/release/seventh bench --http 2 -d 40s
	target/release/seventh bench --http 3 -d 40s
	target/release/seventh bench --http 2 -c 100 -s 1000 -r 0 -d 1s
	$(CARGO) bench --locked

# The edge beside its peers, one after the other and again: a table, a chart and all reports in target/compare.
# With what to measure: make compare COMPARE='--only h2 --rounds 3'
compare:
	benches/compare/install.sh
	$(CARGO) build --release --locked
	$(CARGO) run --locked --quiet --example compare -- $(COMPARE)

# How costs grow: the charts of docs/performance.md.
plots:
	$(CARGO) build --release --locked
	benches/plots.sh

# Licences, duplicates and advisories; takes `cargo install cargo-deny`.
deny:
	$(CARGO) deny check
