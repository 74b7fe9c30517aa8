# SPDX-License-Identifier: GPL-2.0-or-later
"""The running kernel: memory, symbols, modules, the core's sysfs interface."""
