# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every target sets its machine up by itself (tests/setup.sh: a Debian 12, as root).
#
#   make check   the linters and all tests that need no guest: minutes
#   make test    everything, the upgrade story in a QEMU guest included
#   make test-full  what takes longer than that: every unit of an upgrade, an hour at first
#   make demo    the story, told step by step; build/demo/result.json has its figures
#   make bench   what it costs
#   make soak    1000 cycles of apply and undo under load; CYCLES=N for another number

PYTHON = build/venv/bin/python3
PYTEST = $(PYTHON) -m pytest
# A process for each processor, each with a file of tests at a time: guests wait a lot.
SHARED = -n $(shell nproc) --dist loadfile
CYCLES = 1000

.PHONY: check clean demo bench lint setup soak test test-full torture

check: lint
	$(PYTEST) $(SHARED) -m "not vm" tests

test: lint
	$(PYTEST) $(SHARED) tests

test-full: lint
	$(PYTEST) -m full tests

lint: setup
	build/venv/bin/ruff check .
	build/venv/bin/ruff format --check .
	build/venv/bin/mypy

demo: setup
	$(PYTHON) -m tests.vm.demo

bench: setup
	$(PYTHON) -m bench

soak: setup
	$(PYTHON) -m tests.vm.soak $(CYCLES)

torture: setup
	$(PYTHON) -m tests.torture

setup:
	@tests/setup.sh

clean:
	rm -rf build
