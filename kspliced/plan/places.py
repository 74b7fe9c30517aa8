# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files the prefix of a subject names, by the words of their paths.

"net/sched: sch_htb" names net/sched/sch_htb.c by three words. What is called otherwise in subjects
than in paths stands in a table, by directory. A word that names some changed files speaks
against the others.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from kspliced.lines import split_lines
from kspliced.plan.passages import ChangedFile
from kspliced.plan.subject import WORD, Subject, says_something

# What subsystems are called in subjects, and where they are: beginnings of paths.
_DIRECTORIES = {
    line.split()[0]: tuple(line.split()[1:])
    for line in split_lines(
        """
    acpi drivers/acpi/ include/acpi/ arch/x86/kernel/acpi/ drivers/pci/pci-acpi
    acpica drivers/acpi/acpica/ include/acpi/
    alsa sound/ include/sound/
    asoc sound/soc/ include/sound/soc
    block block/ drivers/block/ include/linux/blk
    bluetooth net/bluetooth/ drivers/bluetooth/ include/net/bluetooth/
    bpf kernel/bpf/ net/core/filter net/core/skmsg net/core/sock_map include/linux/bpf
        kernel/trace/bpf_trace arch/x86/net/bpf tools/lib/bpf/ tools/bpf/
        tools/testing/selftests/bpf/
    bpftool tools/bpf/bpftool/
    btf kernel/bpf/btf tools/lib/bpf/btf
    cifs fs/smb/client/ fs/smb/common/
    crypto crypto/ drivers/crypto/ include/crypto/ lib/crypto/
    dm drivers/md/dm drivers/md/persistent-data/
    dmaengine drivers/dma/ include/linux/dma
    drm drivers/gpu/drm/ include/drm/
    fs fs/
    hid drivers/hid/ include/linux/hid
    ib drivers/infiniband/ include/rdma/
    input drivers/input/ drivers/hid/ include/linux/input
    iommu drivers/iommu/ include/linux/iommu
    ipv4 net/ipv4/ include/net/
    ipv6 net/ipv6/ include/net/
    ksmbd fs/smb/server/ fs/smb/common/
    kvm arch/x86/kvm/ virt/kvm/ arch/powerpc/kvm/ arch/s390/kvm/ arch/arm64/kvm/
    libbpf tools/lib/bpf/
    libceph net/ceph/
    lockdep kernel/locking/lockdep include/linux/lockdep
    md drivers/md/
    media drivers/media/ include/media/ drivers/staging/media/
    memcg mm/memcontrol
    mm mm/ include/linux/mm arch/x86/mm/
    net net/ drivers/net/ include/net/ include/linux/net
    netfilter net/netfilter/ net/ipv4/netfilter/ net/ipv6/netfilter/ net/bridge/netfilter/
        include/net/netfilter/ include/linux/netfilter
    nfs fs/nfs/ include/linux/nfs
    nfsd fs/nfsd/
    nfsv4 fs/nfs/ include/linux/nfs
    nsvm arch/x86/kvm/svm/
    nvmet drivers/nvme/target/
    nvmx arch/x86/kvm/vmx/
    pci drivers/pci/ include/linux/pci arch/x86/pci/
    perf tools/perf/ kernel/events/ arch/x86/events/ drivers/perf/
    pm kernel/power/ drivers/base/power/
    pnfs fs/nfs/
    rcu kernel/rcu/ include/linux/rc
    rdma drivers/infiniband/ include/rdma/
    sched kernel/sched/ net/sched/
    scsi drivers/scsi/ include/scsi/ drivers/target/ drivers/ufs/
    sunrpc net/sunrpc/ include/linux/sunrpc/
    svcrdma net/sunrpc/xprtrdma/ include/linux/sunrpc/svc_rdma
    tcp net/ipv4/tcp net/ipv6/tcp include/net/tcp include/linux/tcp
    tracing kernel/trace/ include/linux/trace include/trace/
    usb drivers/usb/ include/linux/usb
    vfs fs/
    wifi drivers/net/wireless/ net/mac80211/ net/wireless/ include/net/mac80211 include/net/cfg80211
    xfrm net/xfrm/ net/ipv4/xfrm net/ipv6/xfrm include/net/xfrm include/net/netns/xfrm
    """.replace("\n        ", " ").strip()
    )
}
# Words of subjects that paths have otherwise.
_ALIASES = {
    "sockmap": ("skmsg", "sock"),
    "nfsv4": ("nfs4",),
    "writeback": ("backing",),
    "prctl": ("sys",),
    "sr": ("seg6", "exthdrs"),
    "xsk": ("xdp", "xskmap"),
    "esp": ("esp4", "esp6"),
    "tunnels": ("tunnel",),
}
_SUFFIXES = frozenset({"c", "h", "s", "dts", "dtsi", "rst", "yaml", "py", "sh", "txt"})
# In nats: what a prefix's word costs files that it does not name, and is worth at most to others.
_PENALTY = 3.5
_MOST = 6.0
_WORTH = 0.8
# What a word of the text is worth that a path has, and how common it may be.
_IN_TEXT = 0.5
_COMMON = 80


@dataclass(frozen=True)
class Place:
    """``gain``: in nats, by file; ``loss`` is what a file that is not among them has."""

    gain: tuple[tuple[int, float], ...]
    loss: float


class Places:
    """The changed files, by the words of their paths."""

    def __init__(self, files: tuple[ChangedFile, ...]) -> None:
        self._paths = [file.path for file in files]
        self._by_word: dict[str, list[int]] = defaultdict(list)
        for number, file in enumerate(files):
            for word in _path_words(file.path) | file.labels:
                self._by_word[word].append(number)

    @cached_property
    def _directories(self) -> dict[str, list[int]]:
        found = {}
        for name, starts in _DIRECTORIES.items():
            files = [n for n, path in enumerate(self._paths) if path.startswith(starts)]
            if files:
                found[name] = files
        return found

    def named(self, word: str) -> frozenset[int]:
        """The files that a word of a prefix names."""
        return frozenset(n for files in self._named(word.lower()) for n in files)

    def place(self, subject: Subject) -> Place:
        """Where a subject says that it is."""
        gain: dict[int, float] = defaultdict(float)
        groups = list(self._groups(subject))
        for group in groups:
            best: dict[int, float] = {}
            for files in group:
                worth = min(self._rarity(len(files)), _MOST) * _WORTH + _PENALTY
                best.update((n, max(worth, best.get(n, 0.0))) for n in files)
            for number, worth in best.items():
                gain[number] += worth
        for word in {word.lower() for word in WORD.findall(subject.text)}:
            files = self._by_word.get(word, [])
            if says_something(word) and len(word) > 2 and len(files) <= _COMMON:
                worth = min(self._rarity(len(files)), _MOST) * _IN_TEXT
                for number in files:
                    gain[number] += worth
        return Place(tuple(gain.items()), _PENALTY * len(groups))

    def _rarity(self, count: int) -> float:
        return math.log((len(self._paths) + 1) / (count + 0.5))

    def _groups(self, subject: Subject) -> Iterator[tuple[list[int], ...]]:
        """For each word of the prefix that names files, these; alternatives apart."""
        seen: set[str] = set()
        for part in subject.prefix:
            words = [word for word in re.split(r"[^a-z0-9]+", part.lower()) if word]
            known = [*words, "_".join(words)]
            known += [a + b for a, b in pairwise(words) if not self._named(a)]
            for word in dict.fromkeys(known):
                found = self._named(word) if word in words else self._exactly(word)
                if found and word not in seen:
                    seen.add(word)
                    yield found
        for tag in subject.tags:
            if tag in self._by_word:
                yield (self._by_word[tag],)

    def _exactly(self, word: str) -> tuple[list[int], ...]:
        return (self._by_word[word],) if word in self._by_word else ()

    def _named(self, word: str) -> tuple[list[int], ...]:
        if word in self._directories:
            return (self._directories[word],)
        names = [name for name in (word, *_ALIASES.get(word, ())) if name in self._by_word]
        if not names and word.removesuffix("s") in self._by_word:
            names = [word.removesuffix("s")]
        if not names:
            # mlx5e is mlx5, gfx6 is gfx: letters and numbers, the last left out first.
            pieces = re.findall(r"[a-z]+|\d+", word)
            shorter = ("".join(pieces[:n]) for n in range(len(pieces) - 1, 0, -1))
            names = [name for name in shorter if len(name) > 2 and name in self._by_word][:1]
        return tuple(self._by_word[name] for name in names)


def _path_words(path: str) -> set[str]:
    """The words of a path; neighbours also as one, and names with a number without it."""
    found: set[str] = set()
    for component in path.split("/"):
        words = [word.lower() for word in re.split(r"[_.,-]", component) if word]
        if len(words) > 1 and words[-1] in _SUFFIXES:
            words.pop()
        found.update(words)
        found.update(_joined(words))
        for word in words:
            pieces = re.findall(r"[a-z]+|\d+", word)
            if len(pieces) > 1:
                found.update(piece for piece in pieces if len(piece) > 2)
                found.add("".join(pieces[:2]))
    return found


def _joined(words: list[str]) -> Iterable[str]:
    yield "_".join(words)
    for one, other in pairwise(words):
        yield one + other
