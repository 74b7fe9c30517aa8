# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between distributions in the story: the guest, and how packages come to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.vm import cache, case, image, packages, repo
from tests.vm.guest import Guest


@dataclass(frozen=True)
class Kernel:
    """A kernel: the version of its package, and its uname -r."""

    version: str
    release: str


@dataclass(frozen=True)
class Repository:
    """A disk with a repository; ``attach`` tells a guest of it, in its state ``before``."""

    disk: Path
    attach: Callable[[Guest], None]


@dataclass(frozen=True)
class World:
    """A distribution. What is not said otherwise is a command for the guest's shell."""

    name: str  # of the guest
    old: Kernel
    new: Kernel
    image: Callable[[], image.Image]
    repository: Callable[[], AbstractContextManager[Repository]]
    refresh: str
    install: str  # kspliced and its core
    remove: str  # kspliced without its core
    again: str  # installs what ``remove`` removed
    upgrade: str
    newest: str  # prints the version of the newest kernel that is installed


@contextmanager
def _debian_repository() -> Iterator[Repository]:
    before = (*cache.debs(*case.BEFORE), *packages.own_debs())
    with repo.repository(before, cache.debs(*case.AFTER)) as made:
        yield Repository(made.disk, partial(repo.attach, repo=made))


DEBIAN = World(
    name="story",
    old=Kernel(case.OLD_VERSION, case.OLD_RELEASE),
    new=Kernel(case.NEW_VERSION, case.NEW_RELEASE),
    image=image.base,
    repository=_debian_repository,
    refresh="apt-get -q update",
    install="apt-get -q -y install kspliced kspliced-dkms",
    remove="apt-get -q -y remove kspliced",
    again="apt-get -q -y install kspliced",
    upgrade="apt upgrade -y",
    newest=f"dpkg-query -W -f '${{Version}}' {case.META}",
)
