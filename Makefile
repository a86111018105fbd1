# What a person types: `make demo` to see it, `make test` to run everything that CI runs.
# Needed beforehand: a Rust toolchain and build-essential. What else is needed gets installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# A step says what it does before it does it, and when.
ifdef NO_COLOR
SAY := say() { printf '\n==> [%s] %s\n' "$$(date +%T)" "$$1"; }; say
else
SAY := say() { printf '\n\033[1m==> [%s] %s\033[0m\n' "$$(date +%T)" "$$1"; }; say
endif

PACKAGES_DEMO := fuse3
PACKAGES_TEST := acl fuse3 attr coreutils e2fsprogs fio git iproute2 mount procps python3 rsync sqlite3 strace stress-ng tar util-linux
DENY_VERSION := 0.20.2
DENY := $(shell command -v cargo-deny || echo target/tools/bin/cargo-deny)
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := $(shell command -v cargo-fuzz || echo $(CURDIR)/target/tools/bin/cargo-fuzz)
# Where a target is, and its name.
FUZZ_TARGETS ?= store:decoders mount-core:mount fuse-daemon:daemon merge:state merge:node merge:log merge:text
# Of each.
FUZZ_SECONDS ?= 60
# Most tests wait for a disk or a daemon, so a few more than there are cores run at once.
E2E_THREADS ?= 4

.DEFAULT_GOAL := help
.PHONY: help demo test deps fmt lint doc unit budget deny e2e posix stress loom cuts fuzz miri tsan powercut soak

help:
	@echo "make demo    builds cairnfs and shows the main job in a throw-away home"
	@echo "make test    everything that CI runs"
	@echo "make posix   pjdfstest and fsx on a real mount (long)"
	@echo "make stress  stress-ng, fio and dbench with many workers on a real mount (ten minutes)"
	@echo "make loom    the locks and atomics of the save path under a model checker for threads (builds long, runs half a minute)"
	@echo "make fuzz    every decoder under a fuzzer, a minute for each target (FUZZ_SECONDS=3600 for an hour)"
	@echo "make miri    the merge under an interpreter that sees undefined behaviour (needs a nightly toolchain with miri)"
	@echo "make tsan    crates and daemon under a sanitizer that sees races of threads (needs a nightly toolchain with rust-src; half an hour)"
	@echo "make cuts    the power goes on a simulated disk, a million times under a store and 30,000 times under a mount (the million: half an hour of an idle core, two hours of a busy one)"
	@echo "make powercut  the power goes under a bucket on ext4, 500 times for each test"
	@echo "make soak    the random tests for an hour or two: more kills, steps, bytes, and what a daemon holds"
	@echo "one step of make test: make deps fmt lint doc unit budget deny e2e"

demo:
	@$(SAY) "Installing what the demo needs: $(PACKAGES_DEMO)"
	@.ci/install $(PACKAGES_DEMO)
	@$(SAY) "Building the release binary"
	cargo build --locked --release -p cairnfs
	@$(SAY) "Showing it: cairnfs demo"
	@target/release/cairnfs demo

# The order is from quick to slow, so that what is wrong is said early.
test:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory fmt
	@$(MAKE) --no-print-directory budget
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory doc
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory e2e
	@$(MAKE) --no-print-directory deny
	@$(SAY) "make test: all passed"

deps:
	@$(SAY) "Installing what the tests need: $(PACKAGES_TEST)"
	@.ci/install $(PACKAGES_TEST)

fmt:
	@$(SAY) "Checking the formatting"
	cargo fmt --all --check

budget:
	@$(SAY) "Counting dependencies and looking for an async runtime"
	@.ci/dependencies

lint:
	@$(SAY) "Reading the lints of every target: a warning is an error"
	cargo clippy --locked --workspace --all-targets -- -D warnings

doc:
	@$(SAY) "Building the documentation: a warning is an error"
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

unit:
	@$(SAY) "Testing the crates (units, laws, models, merge scenarios, simulated crashes)"
	cargo test --locked --workspace --exclude cairnfs-tests

e2e:
	@$(SAY) "Testing the binary through real mounts"
	@test -c /dev/fuse || { echo "/dev/fuse is missing: these tests mount for real and fail without it" >&2; exit 1; }
	cargo build --locked -p cairnfs
	cargo test --locked -p cairnfs-tests -- --test-threads=$(E2E_THREADS)

deny: $(DENY)
	@$(SAY) "Checking licences, bans and sources of all dependencies"
	$(DENY) --locked --log-level error check bans licenses sources

target/tools/bin/cargo-deny:
	@$(SAY) "Building cargo-deny $(DENY_VERSION) into target/tools (two or three minutes, once)"
	cargo install --quiet --locked cargo-deny --version $(DENY_VERSION) --root target/tools --target-dir target/tools/build
	@rm -rf target/tools/build

posix:
	@$(SAY) "Running pjdfstest and fsx on a real mount"
	@tests/posix/run

stress:
	@$(SAY) "Running stress-ng, fio and dbench on a real mount"
	@tests/stress/run

# The flag has everything built anew, so in a place of its own, and without lto, which would take longer than the run.
loom:
	@$(SAY) "What threads may do on the save path, in every interleaving"
	RUSTFLAGS="--cfg loom" cargo clippy --locked -p cairnfs-mount-core --lib --tests --target-dir target/loom -- -D warnings
	RUSTFLAGS="--cfg loom" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		cargo test --locked -p cairnfs-mount-core --release --lib --target-dir target/loom -- --nocapture models::

# Without a sanitizer, so that a stable toolchain will do: there is no unsafe code here. What the decoders may take is
# bounded by tests/decoders.rs more tightly than by the limit here.
fuzz: $(CARGO_FUZZ)
	@for target in $(FUZZ_TARGETS); do \
		$(SAY) "Fuzzing $$target for $(FUZZ_SECONDS) s"; \
		cd "$(CURDIR)/$${target%%:*}/fuzz"; \
		$(CARGO_FUZZ) fuzz run -s none --target-dir "$(CURDIR)/target/fuzz" "$${target##*:}" -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -malloc_limit_mb=64 -print_final_stats=1; \
	done

$(CURDIR)/target/tools/bin/cargo-fuzz:
	@$(SAY) "Building cargo-fuzz $(CARGO_FUZZ_VERSION) into target/tools (a minute, once)"
	cargo install --quiet --locked cargo-fuzz --version $(CARGO_FUZZ_VERSION) --root target/tools --target-dir target/tools/build
	@rm -rf target/tools/build

# Not the store and what is above it: they seal with ring and compress with zstd, which miri cannot run.
miri:
	@$(SAY) "What the merge does, under miri"
	MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 \
		cargo +nightly miri test --locked -p cairnfs-merge --lib --target-dir target/miri

# The standard library is built with the sanitizer too, or what threads hand over through it would pass for races; and
# rustix goes by way of libc, whose calls the sanitizer watches. Of C, zstd and ring have it; assembly it does not see.
TSAN_TARGET := x86_64-unknown-linux-gnu
TSAN := RUSTFLAGS="-Zsanitizer=thread --cfg rustix_use_libc" CFLAGS_$(subst -,_,$(TSAN_TARGET))=-fsanitize=thread cargo +nightly
TSAN_BUILD := --locked -Zbuild-std --target $(TSAN_TARGET) --target-dir target/tsan
TSAN_BIN := $(CURDIR)/target/tsan/$(TSAN_TARGET)/debug/cairnfs
TSAN_REPORT := $(CURDIR)/target/tsan/report

# All is many times as slow, so less of what is random. The daemons' reports are files, one a process that has any.
tsan:
	@$(SAY) "What threads do in the crates, under a sanitizer"
	CAIRNFS_CRASH_SEEDS=4 CAIRNFS_FULL_SEEDS=40 PROPTEST_CASES=8 \
		$(TSAN) test $(TSAN_BUILD) -p cairnfs-store -p cairnfs-mount-core
	@$(SAY) "What they do in a daemon with mounts and peers, under the same"
	$(TSAN) build $(TSAN_BUILD) -p cairnfs
	rm -f $(TSAN_REPORT).*
	TSAN_OPTIONS=log_path=$(TSAN_REPORT) CAIRNFS_BIN=$(TSAN_BIN) CAIRNFS_TEST_BUSY_SECONDS=120 CAIRNFS_TEST_KILLS=30 \
		cargo test --locked -p cairnfs-tests --test e2e -- --test-threads=1 workers:: kill:: random_peers::
	@if cat $(TSAN_REPORT).* 2>/dev/null; then exit 1; fi

# CAIRNFS_CRASH_FIRST=17000 goes on with other seeds. A seed of the store is cut at each of its calls, nearly 60.
cuts:
	@$(SAY) "Cutting the power below a store, a million times"
	CAIRNFS_CRASH_SEEDS=17000 cargo test --locked -p cairnfs-store --test crash -- --nocapture a_power_cut_at_any_call
	@$(SAY) "Cutting the power below a mount, 30000 times"
	CAIRNFS_CRASH_SEEDS=30000 cargo test --locked -p cairnfs-mount-core --lib -- --nocapture crash_tests::what_was
	@$(SAY) "Cutting the power below a mount that merges, 3000 times"
	CAIRNFS_MERGE_SEEDS=3000 cargo test --locked -p cairnfs-mount-core --lib -- --nocapture random_merges::

powercut:
	@$(SAY) "Cutting the power below a bucket on ext4, 1000 times"
	CAIRNFS_TEST_CUTS=500 cargo test --locked -p cairnfs-tests -- --nocapture power:: harness::a_power

soak:
	@$(SAY) "The random tests, long: 3000 kills, 100000 steps a seed, a file of 20 GiB, an hour of what is held"
	CAIRNFS_TEST_KILLS=3000 CAIRNFS_TEST_STEPS=100000 CAIRNFS_TEST_BIG_MIB=20480 CAIRNFS_TEST_SOAK_SECONDS=3600 \
		cargo test --locked -p cairnfs-tests -- --test-threads=2 kill:: model:: memory:: soak::
