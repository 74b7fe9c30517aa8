# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts about C functions, read from the compiler's own representation (docs/facts.md)."""
