# SPDX-License-Identifier: GPL-2.0-or-later
"""kspliced: kernel upgrades that take effect without a reboot."""

__version__ = "0.1.0"
