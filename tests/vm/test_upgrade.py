# SPDX-License-Identifier: GPL-2.0-or-later
"""A part of a real upgrade, live: all that 6.1.190-1 changes in three subsystems.

The guest runs 6.1.187-1 with their modules; what may go live does, packets flow and files are
written before, with and after it. The whole upgrade: tests/whole/live.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from kspliced.build.fates import Decision
from kspliced.build.pipeline import build
from kspliced.build.request import BuildRequest, BuildResult
from kspliced.pack import Pack, read_pack, write_pack
from kspliced.plan.safety import Policy
from tests.corpus import kernels, stages
from tests.vm import guest_tools
from tests.vm.scenario_guest import ScenarioGuest
from tests.whole import live
from tests.whole.kernels import UPGRADES

pytestmark = pytest.mark.vm

UPGRADE = UPGRADES["6.1.187-1"]
SUBSYSTEMS = ("net/sched/*", "net/netfilter/*", "fs/ext4/*")
MODULES = (
    # libcrc32c asks for it by the name of the algorithm.
    "crc32c_generic",
    "ext4", "nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nf_nat", "nf_nat_sip", "nft_ct",
    "nft_nat", "nft_chain_nat", "nft_log", "nf_log_syslog", "nft_synproxy", "nfnetlink_log",
    "nfnetlink_queue", "nf_flow_table", "ip_vs", "ip_vs_ftp", "ip_set_hash_ip", "xt_CHECKSUM",
    "xt_cgroup", "xt_hl", "act_csum", "act_ct", "act_gate", "act_skbmod", "cls_route", "cls_u32",
    "sch_codel", "sch_drr", "sch_ets", "sch_fq_pie", "sch_hfsc", "sch_hhf", "sch_htb",
    "sch_ingress", "sch_pie", "sch_sfq", "sch_teql", "loop", "overlay", "bridge", "veth",
    "virtio_net",
)  # fmt: skip
SCRIPT = Path(guest_tools.__file__).with_name("network.sh").read_text()
WORK = f"{live.WORK}\n{guest_tools.NETWORK}\n{SCRIPT}"


@dataclass(frozen=True)
class Made:
    """What was built, and its pack."""

    result: BuildResult
    pack: Pack


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("upgrade")
    old, new = (kernels.source(version) for version in (UPGRADE.name, UPGRADE.new_version))
    headers = kernels.headers(UPGRADE.name)
    request = BuildRequest(
        from_source=old,
        to_source=new,
        config=headers.top / ".config",
        headers=headers.top,
        targets=("vmlinux", *MODULES),
        only=SUBSYSTEMS,
        jobs=stages.jobs(),
        workdir=folder,
        policy=Policy.NORMAL,
    )
    result = build(request, lambda _: None)
    assert result.manifest is not None
    write_pack(folder / "pack", result.manifest, result.blobs)
    return Made(result, read_pack(folder / "pack"))


@pytest.fixture(scope="module")
def guest() -> Iterator[ScenarioGuest]:
    with live.guest(UPGRADE, MODULES, guest_tools.network()) as machine:
        yield machine


def test_most_of_it_may_go_live(made: Made) -> None:
    fates = {fate.component.id: fate for fate in made.result.fates}
    print({name: fate.decision.value for name, fate in fates.items()})
    for fate in fates.values():
        waits = fate.decision in (Decision.REBOOT, Decision.ASK, Decision.LATER)
        assert bool(fate.reasons) == waits, fate
    for fate in fates.values():
        files = fate.component.files
        asked = any(fnmatch(path, glob) for path in files for glob in SUBSYSTEMS)
        assert asked or files[0].endswith(".h"), fate
    decisions = [fate.decision for fate in fates.values()]
    assert decisions.count(Decision.LIVE) > 25


def test_it_goes_live_and_the_guest_works(made: Made, guest: ScenarioGuest) -> None:
    result = live.cycle(guest, made.pack, WORK)
    print(result)
    assert result.spans == sum(len(group.spans) for group in made.pack.manifest.groups) > 50
    assert (result.waiting, result.held) == ((), ())
    assert not result.faults
