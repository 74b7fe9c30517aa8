# SPDX-License-Identifier: GPL-2.0-or-later
"""An upgrade taken apart: declarations, components, safety rules, changelog entries."""
