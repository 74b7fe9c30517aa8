# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks: what it costs, each figure beside a yardstick of the same run."""
