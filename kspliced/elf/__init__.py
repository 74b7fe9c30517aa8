# SPDX-License-Identifier: GPL-2.0-or-later
"""Object files as typed values: read, write, x86 details, special sections."""
