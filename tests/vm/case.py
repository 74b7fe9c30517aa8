# SPDX-License-Identifier: GPL-2.0-or-later
"""The real upgrade that the story is about, and the packages it consists of.

The versions are those of the Debian archive; 6.1.192-2 changes one file, fs/ext4/mballoc.c.
"""

from __future__ import annotations

OLD_VERSION = "6.1.192-1"
OLD_RELEASE = "6.1.0-55-amd64"
NEW_VERSION = "6.1.192-2"
NEW_RELEASE = "6.1.0-56-amd64"

# The metapackage of the stable suite. With the old kernel installed beside it, this is a state
# from which a plain `apt upgrade` pulls the new kernel in as a new package.
META = "linux-image-amd64"
META_OLD_VERSION = "6.1.176-1"

FAULTY_FUNCTION = "ext4_mb_load_buddy_gfp"

# What the archive offers before the upgrade, and what joins it. The sources are those that the
# daemon builds the update from; it takes them from where the kernels are from.
BEFORE = (f"linux-image-{OLD_RELEASE}={OLD_VERSION}", f"linux-source-6.1={OLD_VERSION}")
AFTER = (
    f"{META}={NEW_VERSION}",
    f"linux-image-{NEW_RELEASE}={NEW_VERSION}",
    f"linux-source-6.1={NEW_VERSION}",
)
