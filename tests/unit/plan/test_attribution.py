# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries and the files they are in, on trees small enough to know the answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.model import ChangelogEntry
from kspliced.plan.attribution import CERTAIN, Attribution, attribute
from kspliced.plan.passages import read_changes
from kspliced.plan.subject import parts, read_subject, stem
from kspliced.source.compare import ChangeType, FileChange

Files = dict[str, tuple[str, str]]


def function(name: str, *lines: str) -> str:
    body = "".join(f"\t{line}\n" for line in lines)
    return f"static int {name}(struct thing *t)\n{{\n{body}\treturn 0;\n}}\n\n"


def change(name: str, *lines: str) -> tuple[str, str]:
    """A file with one function that gets ``lines``."""
    return function(name), function(name, *lines)


def told(tmp_path: Path, files: Files, *subjects: str) -> tuple[Attribution, ...]:
    """What becomes of ``subjects``; files by path: (old text, new text), '' where there is none."""
    changes = []
    for path, both in sorted(files.items()):
        for side, text in zip(("old", "new"), both, strict=True):
            if text:
                place = tmp_path / side / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text)
        kind = ChangeType.MODIFIED if all(both) else ChangeType.ADDED
        changes.append(FileChange(path, kind))
    entries = [ChangelogEntry("1", subject, (), ()) for subject in subjects]
    return attribute(entries, read_changes(tmp_path / "old", tmp_path / "new", changes))


def noise(count: int = 40) -> Files:
    """Other changes, so that words of the ones in question are rare."""
    return {
        f"drivers/other/part{n}.c": change(f"part{n}_probe", f"part{n}_enable(t, {n});")
        for n in range(count)
    }


NETWORK: Files = {
    "net/sctp/stream.c": change("sctp_process_reconf", "if (!chunk->transport)", "\treturn 1;"),
    "net/sctp/socket.c": change("sctp_getsockopt_peer", "memset(&params, 0, 4);"),
    "net/sched/sch_hfsc.c": change("hfsc_classify", "drift++;"),
}


SUBJECTS = (
    "sctp: fix a NULL dereference in sctp_process_reconf()",
    "[x86] sctp: clear the params in peer getsockopt (CVE-2026-1)",
    "net/sched: sch_hfsc: bound the drift",
)


def test_the_words_tell(tmp_path: Path) -> None:
    found = told(tmp_path, {**noise(), **NETWORK}, *SUBJECTS)
    assert [one.files for one in found] == [(path,) for path in NETWORK]
    assert all(one.confidence >= CERTAIN and not one.reason for one in found)


def test_a_hunk_that_is_no_entrys_may_be_that_of_its_neighbours(tmp_path: Path) -> None:
    found = told(tmp_path, {**noise(), **NETWORK}, *SUBJECTS[1:])
    assert found[0].files == ("net/sctp/socket.c", "net/sctp/stream.c")
    assert found[1].files == ("net/sched/sch_hfsc.c",)


def test_what_cannot_be_told_apart_stays(tmp_path: Path) -> None:
    (one,) = told(tmp_path, {**noise(), **NETWORK}, "sctp: fix a crash")
    assert {"net/sctp/stream.c", "net/sctp/socket.c"} <= set(one.files)


def test_words_that_name_nothing_are_not_certain(tmp_path: Path) -> None:
    (one,) = told(tmp_path, {**noise(), **NETWORK}, "frobnicator: never heard of it")
    assert one.confidence < CERTAIN


def test_a_hunk_that_another_entry_claims_is_that_entrys(tmp_path: Path) -> None:
    files: Files = {
        **noise(),
        "fs/afs/rotate.c": change("afs_rotate_server", "afs_put_serverlist(t, cursor);"),
        "fs/afs/write.c": change("afs_store_data", "folio_unlock(page);"),
    }
    vague, sure = "afs: fix a leak", "afs: put the serverlist in afs_rotate_server()"
    alone = told(tmp_path / "alone", files, vague)[0]
    assert "fs/afs/rotate.c" in alone.files
    both = told(tmp_path / "both", files, vague, sure)
    assert both[1].files == ("fs/afs/rotate.c",)
    assert "fs/afs/write.c" in both[0].files
    assert alone.confidence <= both[1].confidence


def test_a_file_that_only_the_words_fit_is_anothers(tmp_path: Path) -> None:
    files: Files = {
        **noise(),
        "fs/afs/rotate.c": change("afs_rotate_server", "afs_put_serverlist(t, cursor);"),
        "fs/afs/rule.c": change("afs_parse_rule", "afs_check_deadline(t, 2);"),
    }
    mine, its = "afs: put the serverlist for a rotate rule", "afs: check the deadline in parse_rule"
    one, other = told(tmp_path, files, mine, its)
    assert one.files == ("fs/afs/rotate.c",) and one.confidence >= CERTAIN
    assert other.files == ("fs/afs/rule.c",)


def test_what_a_new_name_holds_together_is_one(tmp_path: Path) -> None:
    header = "struct thing;\n"
    files: Files = {
        **noise(),
        "include/net/bar.h": (header, f"{header}int bar_check_start(struct thing *t);\n"),
        "net/bar/output.c": change("bar_output", "if (bar_check_start(t))", "\treturn 1;"),
        "net/queue/queue.c": change("queue_it", "if (bar_check_start(t))", "\treturn 1;"),
    }
    one, other = told(
        tmp_path, files, "bar: validate the start in bar_output()", "other: part1: enable it"
    )
    assert one.files == ("include/net/bar.h", "net/bar/output.c", "net/queue/queue.c")
    assert "net/bar/output.c" not in other.files


def test_where_what_the_entry_names_is_done_may_be_its_file(tmp_path: Path) -> None:
    """Also in a file whose own entry has better words for all of it."""
    files: Files = {
        **noise(),
        "net/ipv6/tunnel.c": change("tunnel_rcv", "DEV_STATS_INC(t, rx);"),
        "net/ipv6/gre.c": change("gre_xmit", "if (!tunnel_info(t))", "\tDEV_STATS_INC(t, tx);"),
    }
    files |= {f"fs/far{n}.c": change(f"far{n}_ops", "DEV_STATS_INC(t, tx);") for n in range(4)}
    entries = (
        "ipv6: use DEV_STATS_INC() in tunnel_rcv()",
        "ipv6: gre: check the tunnel info first",
    )
    one, other = told(tmp_path, files, *entries)
    assert {"net/ipv6/gre.c", "net/ipv6/tunnel.c"} <= set(one.files)
    assert other.files == ("net/ipv6/gre.c",)


def test_where_the_same_is_done_as_in_its_hunk_may_be_its_file(tmp_path: Path) -> None:
    files: Files = {
        **noise(),
        "net/log/log_syslog.c": change("log_syslog_ops", "t->pre_exit = 1;"),
        "net/log/log_netlink.c": change("log_netlink_ops", "t->pre_exit = 1;", "wait_grace(t);"),
    }
    entries = ("log: unregister in log_syslog_ops()", "log: netlink: wait for the grace period")
    one, _ = told(tmp_path, files, *entries)
    assert one.files == ("net/log/log_netlink.c", "net/log/log_syslog.c")


def test_a_new_source_comes_with_its_makefile(tmp_path: Path) -> None:
    makefile = ("obj-y += hci_core.o\n", "obj-y += hci_core.o\nobj-$(CONFIG_D) += core_dump.o\n")
    source = ("", function("dump_register", "dump_start(t);"))
    files: Files = {**noise(), "net/hci/Makefile": makefile, "net/hci/core_dump.c": source}
    (one, _) = told(
        tmp_path, files, "hci: add support for dump_register()", "hci: core_dump: build"
    )
    assert one.files == ("net/hci/Makefile", "net/hci/core_dump.c")


def test_a_bit_that_a_header_adds_is_its_users_too(tmp_path: Path) -> None:
    header = "struct thing {{\n\tu32 stale : 1,{}\n\t\t__unused : 9;\n}};\n"
    files: Files = {
        **noise(),
        "net/flow/protocol.h": (header.format(""), header.format("\n\t\tresetting : 1,")),
        "net/flow/subflow.c": change("subflow_reset", "t->resetting = 1;"),
    }
    # Others have the word too, where nothing changes.
    remark = "/* no resetting */\n"
    files |= {path: (remark + old, remark + new) for path, (old, new) in noise(9).items()}
    entries = ("flow: avoid actions on subflow reset", "flow: no need to copy the protocol")
    one, _ = told(tmp_path, files, *entries)
    assert one.files == ("net/flow/protocol.h", "net/flow/subflow.c")


@pytest.mark.parametrize(("word", "there"), [("tracepoint", True), ("checksum", False)])
def test_the_header_of_a_tracepoint(tmp_path: Path, word: str, there: bool) -> None:
    event = "TRACE_EVENT(out,\n\tTP_PROTO(int {}),\n);\n"
    files: Files = {
        **noise(),
        "include/trace/events/flow.h": (event.format("one"), event.format("two")),
        "include/trace/events/flood.h": (event.format("one"), event.format("two")),
        "net/tcp/send.c": change("tcp_send", "t->one = 1;"),
        "net/tcp/more.c": change("tcp_more", "t->two = 1;"),
    }
    (one,) = told(tmp_path, files, f"net: tcp: fix the {word} of flow_send in tcp_send")
    assert ("include/trace/events/flow.h" in one.files) is there
    assert "include/trace/events/flood.h" not in one.files


def test_sources_that_a_commit_changed_as_one_are_named(tmp_path: Path) -> None:
    files: Files = {
        **noise(),
        "net/ipv4/foo4.c": change("foo4_head", "foo_downgrade_managed(t);"),
        "net/ipv6/foo6.c": change("foo6_head", "foo_downgrade_managed(t);"),
        "net/ipv6/apart.c": change("apart_init", "apart_reset(t);"),
    }
    one, other = told(
        tmp_path, files, "net: downgrade managed frags in foo heads", "net: apart: reset it"
    )
    (group,) = one.together
    assert [spot.path for spot in group] == ["net/ipv4/foo4.c", "net/ipv6/foo6.c"]
    assert other.together == ()


def test_a_commit_and_its_revert_are_nowhere(tmp_path: Path) -> None:
    files, revert = {**noise(), **NETWORK}, f'Revert "{SUBJECTS[0]}"'
    found = told(tmp_path, files, SUBJECTS[0], revert)
    assert [one.files for one in found] == [(), ()]
    assert all("takes it back" in one.reason and not one.confidence for one in found)
    lone = told(tmp_path / "lone", files, revert, *SUBJECTS[1:])
    assert lone[0].files == ("net/sctp/stream.c",)


def test_options_and_objects_are_what_their_files_are_about(tmp_path: Path) -> None:
    options = "config ONE_THING\n\tbool\n\nconfig FOO_MATCH_QUUX\n\tselect A\n"
    files: Files = {
        **noise(),
        **NETWORK,
        "net/foo/Kconfig": (options, options.replace("select A", "select B")),
        "net/foo/foo_quux.c": change("quux_match", "t->quux = 1;"),
    }
    (one,) = told(tmp_path, files, "net: foo_quux: match without it")
    assert set(one.files) == {"net/foo/Kconfig", "net/foo/foo_quux.c"}


def test_files_of_which_nothing_is_known_do_no_harm(tmp_path: Path) -> None:
    files = {**noise(), **NETWORK, "Documentation/sctp.rst": ("", "sctp\n")}
    place = tmp_path / "new/net/sctp/image.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"\xff\xfe\0sctp\n")
    found = told(tmp_path, files, *SUBJECTS, "Documentation: sctp: say more")
    assert found[0].files == ("net/sctp/stream.c",)
    changes = [
        FileChange("net/sctp/image.bin", ChangeType.MODIFIED),
        FileChange("net/sctp/gone.c", ChangeType.REMOVED),
    ]
    for file in read_changes(tmp_path / "old", tmp_path / "new", changes):
        assert len(file.passages) == 1 and not file.passages[0].owners
    assert attribute([], read_changes(tmp_path / "old", tmp_path / "new", changes)) == ()


def test_the_order_of_files_and_entries_does_not_matter(tmp_path: Path) -> None:
    files = {**noise(), **NETWORK}
    subjects = ["sctp: fix a crash", "net/sched: bound the drift", "other: part7: enable it"]
    found = told(tmp_path / "a", files, *subjects)
    turned = told(tmp_path / "b", files, *reversed(subjects))
    assert found == tuple(reversed(turned))


def test_a_subject_is_taken_apart() -> None:
    subject = read_subject("[x86] hwmon: (pmbus/core) fix foo_bar() (CVE-2026-1) (Closes: #5)")
    assert subject.prefix == ("hwmon", "pmbus/core")
    assert (subject.text, subject.tags) == ("fix foo_bar()", ("x86",))
    assert subject.names("foo_bar") and not subject.names("fix")
    assert read_subject("Input: atkbd - skip it").prefix == ("Input", "atkbd")
    reverted = read_subject('Revert "[arm64] a: b"')
    assert reverted.reverts and reverted.body == "a: b"


@pytest.mark.parametrize(
    ("one", "other"),
    [("allocation", "alloc"), ("validating", "validates"), ("lengths", "length"), ("IRQs", "irqs")],
)
def test_forms_of_a_word_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_identifiers_have_parts() -> None:
    assert parts("hci_leConnFailed2") == {"hci", "leconnfailed2", "le", "conn", "fail", "2"}
