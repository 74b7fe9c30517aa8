# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects on the bus: reading them, their signals, their introspection. Calls go to a Handler.

dbus-next's own service classes are not used: they hide who calls, emit ObjectManager's signals
from the wrong path, send tracebacks to callers and never close the file descriptors they get.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from functools import partial
from typing import Any, Protocol

from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from kspliced.errors import Code, KsplicedError
from kspliced.public import public_text
from kspliced.service import interface as standard
from kspliced.service.interface import Emits, Interface, Method
from kspliced.service.replies import Replies

ERROR_PREFIX = "org.kspliced1.Error."
_DBUS_ERROR = "org.freedesktop.DBus.Error."
# Reads whose answer is kept for the next one who asks.
_REPEATED = {"Introspect", "GetManagedObjects", "GetAll", "Get"}
_MOST_UNSENT = 1 << 20


class BusObject(ABC):
    """An object with one interface of ours. ``path`` and ``interface`` never change."""

    path: str
    interface: Interface

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """The value of each property; one that cannot be had now is left out."""

    def missing(self) -> KsplicedError:
        """Why a property cannot be had now."""
        return KsplicedError(Code.FAILED, "the property has no value now", "see the journal")


class Handler(Protocol):
    """Who carries out the methods of our interfaces, and is asked before anything is read."""

    def before_read(self) -> None:
        """Bring the objects up to date."""
        ...

    def call(self, target: BusObject, method: Method, message: Any) -> None:
        """Carry out a call and answer it, now or later; the descriptors in it are the handler's."""
        ...


class Connection(Protocol):
    """What is used of dbus_next.aio.MessageBus."""

    def send(self, message: Any) -> Any:
        """Queue a message."""
        ...


class StandardError(Exception):
    """A failure with a name of org.freedesktop.DBus.Error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name
        self.text = text


def error_name(code: Code) -> str:
    """The D-Bus error name of a code: ``org.kspliced1.Error.CodeBusy`` of ``code_busy``."""
    return ERROR_PREFIX + "".join(word.capitalize() for word in code.value.split("_"))


def error_reply(message: Any, error: KsplicedError) -> Any:
    """The error reply: message, remedy and lines of evidence."""
    return Message(
        message_type=MessageType.ERROR,
        reply_serial=message.serial,
        destination=message.sender,
        error_name=error_name(error.code),
        signature="ssas",
        body=sendable([error.message, error.remedy, list(error.details)]),
    )


def sendable(value: Any) -> Any:
    """``value`` with what D-Bus strings cannot hold replaced: NUL, and half surrogate pairs.

    The bus disconnects who sends them, and changelogs, file names and packs are not ours. Everybody
    may read it, so it is public_text().
    """
    if isinstance(value, str):
        text = public_text(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
        return text.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [sendable(item) for item in value]
    return value


class ObjectTree:
    """The objects below an ObjectManager at ``root.path``."""

    def __init__(self, connection: Connection, root: BusObject, handler: Handler) -> None:
        self._connection = connection
        self._root = root
        self._handler = handler
        self._objects = {root.path: root}
        self._told = {root.path: root.values()}
        self._replies = Replies()
        # Bytes of replies to reads that the bus has not taken, by who asked.
        self._unsent: Counter[str] = Counter()

    def add(self, item: BusObject) -> None:
        """Put an object on the bus."""
        values = item.values()
        self._objects[item.path] = item
        self._told[item.path] = values
        self._replies.forget(item.path)
        added = {item.interface.name: _variants(item.interface, values)}
        self._emit(self._root.path, standard.OBJECT_MANAGER, "InterfacesAdded", [item.path, added])

    def remove(self, path: str) -> None:
        """Take an object off the bus; nothing happens if it is not there."""
        item = self._objects.pop(path, None)
        if item is not None:
            del self._told[path]
            self._replies.forget(path)
            body = [path, [item.interface.name]]
            self._emit(self._root.path, standard.OBJECT_MANAGER, "InterfacesRemoved", body)

    def changed(self, item: BusObject) -> None:
        """Tell what has changed of an object's properties since it was last told."""
        if item.path not in self._objects:
            return
        self._replies.forget(item.path)
        old, new = self._told[item.path], item.values()
        self._told[item.path] = new
        differ = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        sent: dict[str, Any] = {}
        invalidated: list[str] = []
        for prop in item.interface.properties:
            if prop.name not in differ:
                continue
            if prop.emits is Emits.INVALIDATES or prop.name not in new:
                invalidated.append(prop.name)
            else:
                sent[prop.name] = Variant(prop.signature, sendable(new[prop.name]))
        if sent or invalidated:
            body = [item.interface.name, sent, invalidated]
            self._emit(item.path, standard.PROPERTIES, "PropertiesChanged", body)

    def signal(self, item: BusObject, name: str, body: list[Any]) -> None:
        """Emit a signal of the object's own interface."""
        self._emit(item.path, item.interface, name, sendable(body))

    def reply(self, message: Any, method: Method, body: list[Any]) -> None:
        """Answer a call."""
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            signature = "".join(arg.signature for arg in method.outputs)
            self._send(Message.new_method_return(message, signature, body))

    def fail(self, message: Any, error: KsplicedError) -> None:
        """Answer a call with an error of ours."""
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._send(error_reply(message, error))

    def handle(self, message: Any) -> bool:
        """The message handler for dbus-next: True if nobody else is to look at the message."""
        if message.message_type is not MessageType.METHOD_CALL:
            close_descriptors(message)
            return False
        try:
            if message.signature and not message.body:
                raise StandardError("LimitsExceeded", "the message is too large")
            self._dispatch(message)
        except KsplicedError as error:
            self.fail(message, error)
        except StandardError as error:
            close_descriptors(message)
            if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
                name = _DBUS_ERROR + error.name
                self._send(Message.new_error(message, name, error.text))
        return True

    def _dispatch(self, message: Any) -> None:
        path = message.path
        interfaces = self._interfaces(path)
        if not interfaces:
            raise StandardError("UnknownObject", f"there is no object {path}")
        # A call need not name the interface.
        named = [i for i in interfaces if message.interface in (None, i.name)]
        if not named:
            raise StandardError("UnknownInterface", f"{path} has no {message.interface}")
        found = [(i, m) for i in named for m in i.methods if m.name == message.member]
        if not found:
            raise StandardError("UnknownMethod", f"{path} has no method {message.member}")
        interface, method = found[0]
        if message.signature != method.signature:
            text = f"{method.name} takes '{method.signature}', not '{message.signature}'"
            raise StandardError("InvalidArgs", text)
        target = self._objects.get(path)
        if target is not None and interface is target.interface:
            self._handler.call(target, method, message)
            return
        close_descriptors(message)
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._read(path, method, message)

    def _read(self, path: str, method: Method, message: Any) -> None:
        """Answer a call of a standard interface, which changes nothing."""
        if self._unsent[message.sender] > _MOST_UNSENT:
            raise StandardError("LimitsExceeded", "what was asked for before is not sent yet")
        if method.name not in _REPEATED:
            self.reply(message, method, self._standard(path, method.name, message.body))
            return
        self._handler.before_read()
        asked = (path, method.name, *message.body)
        reply = self._replies.find(message, asked)
        if reply is None and method.name == "GetManagedObjects":
            paths = [path for path in self._objects if path != self._root.path]
            reply = self._replies.keep_managed(message, asked, paths, self._managed)
        elif reply is None:
            body = self._standard(path, method.name, message.body)
            signature = "".join(arg.signature for arg in method.outputs)
            reply = self._replies.keep(message, asked, signature, body)
        self._unsent[message.sender] += reply.size
        sent = self._connection.send(reply)
        sent.add_done_callback(partial(self._sent, message.sender, reply.size))

    def _sent(self, sender: str, size: int, sent: Any) -> None:
        self._unsent[sender] -= size
        if not self._unsent[sender]:
            del self._unsent[sender]
        # That the bus has gone is noticed elsewhere.
        if not sent.cancelled():
            sent.exception()

    def _standard(self, path: str, member: str, arguments: list[Any]) -> list[Any]:
        if member == "Introspect":
            return [standard.node_xml(self._interfaces(path), self._children(path))]
        if member == "GetMachineId":
            return [_machine_id()]
        if member == "Ping":
            return []
        if member == "GetAll":
            item = self._item(path, arguments[0])
            return [_variants(item.interface, item.values()) if item else {}]
        name = arguments[1]
        item = self._item(path, arguments[0])
        known = item.interface.properties if item else ()
        prop = next((p for p in known if p.name == name), None)
        if item is None or prop is None:
            raise StandardError("UnknownProperty", f"{path} has no property {name}")
        if member == "Set":
            raise StandardError("PropertyReadOnly", f"{name} cannot be set")
        values = item.values()
        if name not in values:
            raise item.missing()
        return [Variant(prop.signature, sendable(values[name]))]

    def _item(self, path: str, interface: str) -> BusObject | None:
        """The object whose own interface is named, or None for a standard interface."""
        item = self._objects.get(path)
        # An empty interface name stands for any.
        if item is not None and interface in ("", item.interface.name):
            return item
        if interface and interface not in [i.name for i in self._interfaces(path)]:
            raise StandardError("UnknownInterface", f"{path} has no {interface}")
        return None

    def _managed(self, path: str) -> dict[str, Any]:
        item = self._objects[path]
        return {item.interface.name: _variants(item.interface, item.values())}

    def _interfaces(self, path: str) -> tuple[Interface, ...]:
        item = self._objects.get(path)
        if item is None:
            inner = self._children(path)
            return (standard.PEER, standard.INTROSPECTABLE) if inner else ()
        base = (standard.PEER, standard.INTROSPECTABLE, standard.PROPERTIES)
        managed = (standard.OBJECT_MANAGER,) if item is self._root else ()
        return (*base, *managed, item.interface)

    def _children(self, path: str) -> tuple[str, ...]:
        start = path.rstrip("/") + "/"
        below = {p[len(start) :].split("/")[0] for p in self._objects if p.startswith(start)}
        return tuple(sorted(below))

    def _emit(self, path: str, interface: Interface, name: str, body: list[Any]) -> None:
        signal = next(s for s in interface.signals if s.name == name)
        signature = "".join(arg.signature for arg in signal.args)
        self._send(Message.new_signal(path, interface.name, name, signature, body))

    def _send(self, message: Any) -> None:
        # That the bus has gone is noticed elsewhere.
        self._connection.send(message).add_done_callback(lambda sent: sent.exception())


def close_descriptors(message: Any) -> None:
    """Close the file descriptors that came with a message."""
    for descriptor in message.unix_fds:
        os.close(descriptor)
    message.unix_fds.clear()


def _variants(interface: Interface, values: dict[str, Any]) -> dict[str, Any]:
    return {
        prop.name: Variant(prop.signature, sendable(values[prop.name]))
        for prop in interface.properties
        if prop.name in values
    }


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii") as file:  # noqa: PTH123 (no Path needed)
            return file.read().strip()
    except (OSError, ValueError) as error:
        raise StandardError("Failed", "this machine has no machine id") from error
