# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest harness: a Debian 12 guest under QEMU, a repository of real packages, and the story."""
