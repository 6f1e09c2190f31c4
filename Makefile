# make demo      a disk image crosses an emulated ocean, the paper's way and ours (demo/report.html)
# make xen-demo  two real Xen hosts, 120 ms between them: a guest moves by plain xl through IPsec, then by the plugin
# make deb       the Debian package, in dist/
# make test      lint, types, the tests, a migration on real Xen hosts, the unit tests on Debian's own packages
# make test-fast the same without what needs minutes
# make test-lab  the tests on real Xen hosts, also those by Vagrant: more than an hour under software emulation
# make test-faults  each process of a migration killed in each phase, and random deaths (DEATHS=20, SEED=), on fake
#                hosts: 40 minutes
# make check     lint and types alone, as pre-commit runs them
# Each says what it lacks; all but deb make their own virtual environment in .venv.

PY := .venv/bin/python
# Most tests wait more than they work, so two files of them run at a time, those of end_to_end first, as they take
# longest. Real Xen hosts have the machine for themselves.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
DEATHS ?= 20
SEED ?=

.PHONY: demo xen-demo deb test test-lab test-faults test-fast check debian bench clean

demo: .venv/ready
	@packaging/prepare.sh tools demo
	@$(PY) -m demo

xen-demo: .venv/ready
	@packaging/prepare.sh tools lab
	@.venv/bin/xenlab run existing live --rtt 120ms
	@echo 'The lab is still up: .venv/bin/xenlab status, .venv/bin/xenlab ssh host-a, .venv/bin/xenlab down'

deb:
	@packaging/prepare.sh tools deb
	@packaging/deb.sh dist

test: .venv/ready
	@packaging/prepare.sh tools test
	@packaging/prepare.sh tools lab
	@$(MAKE) --no-print-directory check
	$(PY) -m pytest $(TWO) -m "not matrix and not (lab and slow)"
	$(PY) -m pytest tests/end_to_end/lab -m smoke
	@$(MAKE) --no-print-directory debian

test-lab: .venv/ready
	@packaging/prepare.sh tools lab
	@packaging/prepare.sh tools vagrant
	$(PY) -m pytest -m "lab and slow"

test-faults: .venv/ready
	$(PY) -m pytest -m matrix --deaths $(DEATHS) --seed "$(SEED)"

test-fast: .venv/ready check
	$(PY) -m pytest $(TWO) -m "not slow and not lab and not matrix"

check: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check --quiet .
	.venv/bin/mypy

# What runs in dom0 must work with Debian 12's own versions of what it imports.
debian:
	@packaging/prepare.sh debian-tests

bench: .venv/ready
	$(PY) -m benchmarks

.venv/ready: pyproject.toml packaging/prepare.sh
	@packaging/prepare.sh venv

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache demo/report.html demo/times.png
