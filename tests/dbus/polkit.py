# SPDX-License-Identifier: GPL-2.0-or-later
"""A polkit for tests: ``polkit.py ROOT`` allows the actions that ROOT/polkit/allowed lists.

Each question is a line of ROOT/polkit/asked: [kind of subject, name, action, flags, details].
"silence" there: no answer; "patience": the answer comes once ROOT/polkit/answer is there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageType
from dbus_next.message import Message

_SIGNATURE = "(sa{sv})sa{ss}us"


async def serve(root: Path) -> None:
    """Answer until the bus goes."""
    bus: Any = await MessageBus(bus_type=BusType.SYSTEM).connect()

    waiting: set[asyncio.Future[None]] = set()

    async def late(reply: Any) -> None:
        while not (root / "polkit/answer").exists():
            await asyncio.sleep(0.02)
        bus.send(reply)

    def answer(message: Any) -> Any:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if message.member != "CheckAuthorization" or message.signature != _SIGNATURE:
            return Message.new_error(message, "org.freedesktop.DBus.Error.InvalidArgs", "no")
        (kind, subject), action, details, flags, _ = message.body
        with (root / "polkit/asked").open("a", encoding="utf-8") as asked:
            asked.write(json.dumps([kind, subject["name"].value, action, flags, details]) + "\n")
        allowed = (root / "polkit/allowed").read_text("utf-8").split()
        if "silence" in allowed:
            return True
        reply = Message.new_method_return(message, "(bba{ss})", [[action in allowed, False, {}]])
        if "patience" in allowed:
            waiting.add(asyncio.ensure_future(late(reply)))
            return True
        return reply

    bus.add_message_handler(answer)
    await bus.request_name("org.freedesktop.PolicyKit1")
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
