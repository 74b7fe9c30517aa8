# SPDX-License-Identifier: GPL-2.0-or-later
"""The commits of an upgrade, where a site has them, and which hunks each of them made."""
