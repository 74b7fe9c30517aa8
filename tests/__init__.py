# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests: unit (no root), corpus (real packages), dbus (a private bus), vm (a QEMU guest)."""
