# SPDX-License-Identifier: GPL-2.0-or-later
"""One budget for what is read, remembered and sent: hostile packs, refusals and records."""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspliced import limits
from kspliced.engine import budget, transactions
from kspliced.engine.edges import Built
from kspliced.engine.state import MAX_HISTORY, Stage, State, load_state, problem_of, save_state
from kspliced.engine.status import count_changes
from kspliced.engine.store import opened, record_of
from kspliced.errors import Code, KsplicedError, PackError
from kspliced.model import ChangelogEntry, Refusal
from kspliced.pack import FORMAT, parse_pack
from kspliced.record import encode
from kspliced.worker import Failure, parse_line
from tests.unit.engine.fakes import NEWER, Machine, manifest, pack_content

REPOSITORY = Path(__file__).parents[2]
# What a hostile pack of a few hundred KB may cost: the interpreter, and a little.
_ADDRESS_SPACE = 512 << 20


def packed(manifest_text: bytes, body: bytes) -> bytes:
    """A pack of any manifest, with the right length and digest."""
    import struct

    total = 56 + len(manifest_text) + len(body)
    head = struct.pack("<8sIIQ", b"KSPLPACK", FORMAT, len(manifest_text), total)
    rest = manifest_text + body
    return head + sha256(head + bytes(32) + rest).digest() + rest


def envelope(**changes: Any) -> dict[str, Any]:
    """The JSON of a pack's manifest and table of blobs."""
    return {"manifest": encode(manifest()), "blobs": [], **changes}


def bomb(count: int, size: int) -> bytes:
    """``count`` blobs that unpack to ``size`` zeroes each."""
    compressor = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC32, preset=0)
    piece = bytes(1 << 20)
    blob = b"".join(compressor.compress(piece) for _ in range(size >> 20)) + compressor.flush()
    table = [{"name": f"b{n}", "size": size, "stored": len(blob)} for n in range(count)]
    return packed(json.dumps(envelope(blobs=table)).encode(), blob * count)


def many_values(count: int) -> bytes:
    """A manifest of ``count`` small lists."""
    value = envelope()
    value["manifest"]["functions"] = [[]] * count
    return packed(json.dumps(value, separators=(",", ":")).encode(), b"")


def many_blobs(count: int) -> bytes:
    empty = lzma.compress(b"", lzma.FORMAT_XZ, lzma.CHECK_CRC32)
    table = [{"name": f"b{n}", "size": 0, "stored": len(empty)} for n in range(count)]
    return packed(json.dumps(envelope(blobs=table)).encode(), empty * count)


def huge_dictionary() -> bytes:
    """xz that wants 768 MiB to unpack nothing."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 768 << 20}]
    blob = lzma.compress(b"x" * 100, lzma.FORMAT_XZ, filters=filters)
    table = [{"name": "b", "size": 100, "stored": len(blob)}]
    return packed(json.dumps(envelope(blobs=table)).encode(), blob)


BOMBS = {
    "zeroes": lambda: bomb(8, 256 << 20),
    "values": lambda: many_values(3_000_000),
    "blobs": lambda: many_blobs(limits.PACK_BLOBS + 1),
    "text": lambda: packed(json.dumps(envelope(blobs="x" * (limits.PACK_TEXT + 1))).encode(), b""),
}
_READ = """
import resource, sys
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from pathlib import Path
from kspliced.errors import PackError
from kspliced.pack import read_pack
try:
    read_pack(Path(sys.argv[1]))
except PackError as error:
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    print(error.code.value, peak, error.message)
"""


@pytest.mark.parametrize("name", [*BOMBS, "dictionary"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, name: str) -> None:
    content = huge_dictionary() if name == "dictionary" else BOMBS[name]()
    file = tmp_path / "bomb.kspack"
    file.write_bytes(content)
    assert len(content) < 16 << 20
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(file), str(_ADDRESS_SPACE)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code, peak, message = done.stdout.split(" ", 2)
    assert code == "pack_malformed" and len(message) < 1000
    assert int(peak) << 10 < 192 << 20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_hostile_manifest_is_one_clear_error(data: st.DataObject) -> None:
    """Anything in the place of anything: an error of the tree, with a bounded text."""
    value: Any = envelope(blobs=[{"name": "part/glue", "size": 4, "stored": 64}])
    place, key = value, data.draw(st.sampled_from(sorted(value)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
    place[key] = data.draw(JSON | st.just("y" * 100_000) | st.just(-1) | st.just(1 << 70))
    content = packed(json.dumps(value).encode(), data.draw(st.binary(max_size=64)))
    try:
        parse_pack(content, "it")
    except PackError as error:
        assert error.code is Code.PACK_MALFORMED and len(error.message) < 600


def refusals(count: int, length: int) -> tuple[Refusal, ...]:
    return tuple(Refusal("type_changed", f"fs/u{n}.o", f"s{n}", "r" * length) for n in range(count))


def test_a_refusal_of_65_mib_does_not_lose_what_is_live(tmp_path: Path) -> None:
    machine = Machine(tmp_path, NEWER)
    transactions.upgrade(machine.context)
    live = load_state(machine.paths).history[-1]
    assert live.stage is Stage.LIVE
    later = replace(NEWER, release="6.1.0-57-amd64", version="6.1.193-1")
    machine.install(NEWER, later)
    machine.builder.result = Built(None, (), refusals(16_000, 4_100))
    with pytest.raises(KsplicedError) as caught:
        transactions.apply(machine.context, None)
    assert caught.value.code is Code.REFUSED
    state = load_state(machine.paths)
    assert machine.paths.state.stat().st_size < 4 * limits.RECORD_REFUSED
    assert live.digest in [r.digest for r in state.history if r.stage is Stage.LIVE]
    record = state.history[-1]
    assert record.stage is Stage.REFUSED
    told = record.refused[-1]
    assert told.code == budget.MORE and f"{told.evidence} more changes" in told.reason
    assert len(record.refused) - 1 + int(told.evidence) == 16_000
    assert count_changes(record, live=False).total == 16_000
    assert state.problem is not None and "more lines" in state.problem.details[-1]
    # Once more through the disk: nothing is cut twice.
    assert save_state(machine.paths, state) == state == load_state(machine.paths)


def test_a_state_that_cannot_be_read_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a state is made of, and however: it is there again, or the old one is."""
    monkeypatch.setattr(limits, "STATE_BYTES", 512 << 10)
    machine = Machine(tmp_path, NEWER)
    transactions.upgrade(machine.context)
    live = load_state(machine.paths).history[-1]
    functions = tuple(replace(live.functions[0], name=f"name_{n}_" * 4) for n in range(300))
    many = tuple(
        replace(live, digest=f"{n:064x}", stage=Stage.REPLACED, functions=functions)
        for n in range(MAX_HISTORY - 1)
    )
    written = save_state(machine.paths, State(history=(live, *many)))
    assert machine.paths.state.stat().st_size <= limits.STATE_BYTES
    assert load_state(machine.paths) == written
    assert written.history[0] == live and written.history[-1] == many[-1]
    assert 2 < len(written.history) < MAX_HISTORY
    before = machine.paths.state.read_bytes()
    with pytest.raises(KsplicedError):
        save_state(machine.paths, State(history=(replace(live, functions=functions * 30),)))
    assert machine.paths.state.read_bytes() == before


def test_what_must_be_whole_is_a_bound_on_the_pack(tmp_path: Path) -> None:
    machine = Machine(tmp_path, NEWER)
    small = manifest()
    function = small.functions[0]
    functions = tuple(replace(function, name=f"f{n:0100}") for n in range(12_000))
    units = tuple(f"drivers/{n:0100}.o" for n in range(5_000))
    group = replace(small.groups[0], units=units)
    for large in (replace(small, functions=functions), replace(small, groups=(group,))):
        with opened(machine.paths, machine.journal, 0) as store, pytest.raises(PackError) as caught:
            store.take_pack(pack_content(large), "it", small.kernel)
        assert (
            caught.value.code is Code.PACK_MALFORMED and "than any upgrade" in caught.value.message
        )
    assert not machine.paths.packs.exists()


def test_a_pack_of_a_whole_point_release_is_taken(tmp_path: Path) -> None:
    """Far more than the largest that was measured (1941 files, 2305 functions, 2056 entries)."""
    machine = Machine(tmp_path, NEWER)
    small = manifest()
    function = small.functions[0]
    functions = tuple(replace(function, name=f"some_function_{n}") for n in range(5_000))
    entry = ChangelogEntry(
        "6.1.192-1", "net: fix a use after free in some_function()", ("CVE-1-2",), ()
    )
    large = replace(
        small,
        functions=functions,
        entries=(entry,) * 3000,
        refused=refusals(2000, 100),
    )
    with opened(machine.paths, machine.journal, 0) as store:
        pack = store.take_pack(pack_content(large), "it", small.kernel)
        store.put(record_of(pack))
    assert load_state(machine.paths).history[-1] == record_of(pack)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=60).map(lambda t: t * 9), max_size=80), st.integers(2048, 9000))
def test_lists_are_cut_once_and_say_how_much_is_missing(texts: list[str], limit: int) -> None:
    items = tuple(Refusal("a", text, "b", "c") for text in texts)
    fitted = budget.fit_list(items, limit, budget.more_refused)
    assert len(json.dumps(encode(fitted))) < limit
    assert budget.fit_list(fitted, limit, budget.more_refused) == fitted
    kept = [item for item in fitted if item.code != budget.MORE]
    assert tuple(kept) == items[: len(kept)] and len(kept) + budget.unlisted(fitted) == len(items)
    lines = limits.cut_lines(tuple(texts), limit)
    assert limits.cut_lines(lines, limit) == lines
    assert sum(len(line.encode("utf-8", "replace")) for line in lines) < limit


def test_errors_have_bounded_texts() -> None:
    error = KsplicedError(Code.REFUSED, "m" * 100_000, "r" * 100_000, ("d" * 100_000,) * 10_000)
    problem = problem_of(error, 0)
    assert len(json.dumps(encode(problem))) < 2 * limits.DETAILS
    assert problem.details[-1].endswith("more lines") and "more characters" in problem.details[0]
    line = json.dumps({"error": {**encode(problem), "details": ["d" * 5000] * 3000}})
    value = json.loads(line)
    del value["error"]["time"]
    parsed = parse_line(json.dumps(value).encode())
    assert isinstance(parsed, Failure) and "more lines" in parsed.details[-1]
    assert sum(map(len, parsed.details)) < limits.DETAILS


def test_a_job_without_memory_says_so(tmp_path: Path) -> None:
    """The worker itself, with a limit that its work does not fit into."""
    code = (
        "import sys; from kspliced import limits; limits.WORKER_MEMORY = 96 << 20\n"
        "from kspliced.engine import __main__ as m\n"
        "m._bound_memory(); m.perform = lambda *_: bytearray(1 << 28)\n"
        f"sys.exit(m.main(['--root', {str(tmp_path)!r}, 'match', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert error["code"] == "failed" and "96 MiB of memory" in error["message"]
    assert done.returncode == 1 and "Traceback" not in done.stderr
