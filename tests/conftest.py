# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests share."""

from hypothesis import settings

# Emulated and shared machines have no use for a deadline; speed belongs in bench/.
settings.register_profile("kspliced", deadline=None)
settings.load_profile("kspliced")
