# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may do what: root, and whom polkit allows (polkit(8), CheckAuthorization)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from kspliced.errors import BusError, Code

_BUS = "org.freedesktop.DBus"
_POLKIT = "org.freedesktop.PolicyKit1"
_AUTHORITY = "/org/freedesktop/PolicyKit1/Authority"
_INTERACTIVE = 1
# A user whose agent never answers must not use up the replies that the bus grants us.
_MAX_WAITING = 4
# There is no polkit on this machine.
_ABSENT = {f"{_BUS}.Error.ServiceUnknown", f"{_BUS}.Error.NameHasNoOwner"}


Describe = Callable[[], Awaitable[dict[str, str]]]


async def _nothing() -> dict[str, str]:
    return {}


class Authority:
    """Asks the bus who a caller is, and polkit whether it may."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._waiting: Counter[int] = Counter()

    async def uid(self, message: Any) -> int:
        """The user id of a message's sender, of the bus's own statement.

        :raises BusError: NOT_AUTHORIZED when the sender is gone.
        """
        reply = await self._bus.call(
            Message(
                destination=_BUS,
                path="/org/freedesktop/DBus",
                interface=_BUS,
                member="GetConnectionUnixUser",
                signature="s",
                body=[message.sender],
            )
        )
        if reply.message_type is not MessageType.METHOD_RETURN or reply.signature != "u":
            raise BusError(Code.NOT_AUTHORIZED, "the bus does not know who asked")
        return int(reply.body[0])

    async def require(self, message: Any, action: str, describe: Describe = _nothing) -> int:
        """The user id of a sender that may do ``action``.

        ``describe``: what polkit is told of it, and thereby its rules and who authenticates
        ("polkit.message" is the text); root is not asked.

        :raises BusError: NOT_AUTHORIZED; BUSY when the user has too many questions open. What
            ``describe`` raises passes to the caller.
        """
        uid = await self.uid(message)
        if uid == 0:
            return uid
        if self._waiting[uid] >= _MAX_WAITING:
            raise BusError(Code.BUSY, "too many requests wait for authentication", "answer them")
        self._waiting[uid] += 1
        try:
            reply = await self._bus.call(_question(message, action, await describe()))
        finally:
            self._waiting[uid] -= 1
            if not self._waiting[uid]:
                del self._waiting[uid]
        if reply.message_type is MessageType.METHOD_RETURN and reply.signature == "(bba{ss})":
            allowed, challenge, _ = reply.body[0]
            if allowed is True:
                return uid
            remedy = "run it as root" if not challenge else "run it as root, or authenticate"
            raise BusError(Code.NOT_AUTHORIZED, f"{action} is not allowed", remedy)
        if reply.error_name in _ABSENT:
            text = f"{action} is for root only: there is no polkit on this machine"
            raise BusError(Code.NOT_AUTHORIZED, text, "run it as root")
        raise BusError(Code.NOT_AUTHORIZED, f"polkit gave no answer on {action}", "run it as root")


def _question(message: Any, action: str, details: dict[str, str]) -> Any:
    interactive = bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
    subject = ["system-bus-name", {"name": Variant("s", message.sender)}]
    return Message(
        destination=_POLKIT,
        path=_AUTHORITY,
        interface=f"{_POLKIT}.Authority",
        member="CheckAuthorization",
        signature="(sa{sv})sa{ss}us",
        body=[subject, action, details, _INTERACTIVE if interactive else 0, ""],
    )
