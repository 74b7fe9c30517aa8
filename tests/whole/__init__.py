# SPDX-License-Identifier: GPL-2.0-or-later
"""Matching on whole kernels: every unit that an upgrade changes, against a running kernel."""
