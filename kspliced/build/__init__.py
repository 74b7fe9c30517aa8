# SPDX-License-Identifier: GPL-2.0-or-later
"""From two trees to a pack: select, compile, diff, close, emit."""
