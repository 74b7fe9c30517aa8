# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon on D-Bus: api.py says what it offers, daemon.py how it works."""
