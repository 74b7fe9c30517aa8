# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as a real process on a private bus, with a polkit and workers of the tests' own."""
