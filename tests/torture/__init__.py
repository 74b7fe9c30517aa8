# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile campaign: what nobody sends by accident, in numbers (``make torture``)."""
