# SPDX-License-Identifier: GPL-2.0-or-later
"""D-Bus interfaces as values, and their introspection XML.

One description serves the dispatcher, the introspection at run time and the files in data/.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from xml.sax.saxutils import escape, quoteattr


class Emits(str, Enum):
    """What PropertiesChanged says of a property (org.freedesktop.DBus.Property.EmitsChangedSignal).

    CONST: it never changes. INVALIDATES: that it changed, without the value.
    """

    TRUE = "true"
    CONST = "const"
    INVALIDATES = "invalidates"


@dataclass(frozen=True)
class Arg:
    """An argument: ``signature`` is one complete D-Bus type."""

    name: str
    signature: str


@dataclass(frozen=True)
class Method:
    """A method. ``action`` is the polkit action that it needs, "" for none."""

    name: str
    doc: str
    action: str = ""
    inputs: tuple[Arg, ...] = ()
    outputs: tuple[Arg, ...] = ()

    @property
    def signature(self) -> str:
        """The signature of its call."""
        return "".join(arg.signature for arg in self.inputs)


@dataclass(frozen=True)
class Property:
    """A read-only property."""

    name: str
    signature: str
    doc: str
    emits: Emits = Emits.TRUE


@dataclass(frozen=True)
class Signal:
    """A signal."""

    name: str
    doc: str
    args: tuple[Arg, ...] = ()


@dataclass(frozen=True)
class Interface:
    """An interface."""

    name: str
    doc: str
    methods: tuple[Method, ...] = ()
    properties: tuple[Property, ...] = ()
    signals: tuple[Signal, ...] = ()


_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"
_DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    '  "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)

PEER = Interface(
    "org.freedesktop.DBus.Peer",
    "",
    (Method("Ping", ""), Method("GetMachineId", "", outputs=(Arg("machine_uuid", "s"),))),
)
INTROSPECTABLE = Interface(
    "org.freedesktop.DBus.Introspectable",
    "",
    (Method("Introspect", "", outputs=(Arg("xml_data", "s"),)),),
)
PROPERTIES = Interface(
    "org.freedesktop.DBus.Properties",
    "",
    (
        Method(
            "Get",
            "",
            inputs=(Arg("interface_name", "s"), Arg("property_name", "s")),
            outputs=(Arg("value", "v"),),
        ),
        Method("GetAll", "", inputs=(Arg("interface_name", "s"),), outputs=(Arg("all", "a{sv}"),)),
        Method(
            "Set",
            "",
            inputs=(Arg("interface_name", "s"), Arg("property_name", "s"), Arg("value", "v")),
        ),
    ),
    signals=(
        Signal(
            "PropertiesChanged",
            "",
            (
                Arg("interface_name", "s"),
                Arg("changed_properties", "a{sv}"),
                Arg("invalidated_properties", "as"),
            ),
        ),
    ),
)
OBJECT_MANAGER = Interface(
    "org.freedesktop.DBus.ObjectManager",
    "",
    (
        Method(
            "GetManagedObjects",
            "",
            outputs=(Arg("object_paths_interfaces_and_properties", "a{oa{sa{sv}}}"),),
        ),
    ),
    signals=(
        Signal(
            "InterfacesAdded",
            "",
            (Arg("object_path", "o"), Arg("interfaces_and_properties", "a{sa{sv}}")),
        ),
        Signal("InterfacesRemoved", "", (Arg("object_path", "o"), Arg("interfaces", "as"))),
    ),
)


def interface_xml(interface: Interface) -> str:
    """The ``<interface>`` element, indented by two blanks, documentation as comments."""
    lines = [*_comment(interface.doc, "  "), f"  <interface name={quoteattr(interface.name)}>"]
    for method in interface.methods:
        lines += _comment(method.doc, "    ")
        args = [_arg(arg, "in") for arg in method.inputs]
        args += [_arg(arg, "out") for arg in method.outputs]
        lines += _element("method", f"name={quoteattr(method.name)}", args)
    for signal in interface.signals:
        lines += _comment(signal.doc, "    ")
        args = [_arg(arg, "") for arg in signal.args]
        lines += _element("signal", f"name={quoteattr(signal.name)}", args)
    for prop in interface.properties:
        lines += _comment(prop.doc, "    ")
        note = f'      <annotation name="{_EMITS}" value="{prop.emits.value}"/>'
        attributes = f'name={quoteattr(prop.name)} type={quoteattr(prop.signature)} access="read"'
        lines += _element("property", attributes, [] if prop.emits is Emits.TRUE else [note])
    return "\n".join([*lines, "  </interface>\n"])


def node_xml(interfaces: tuple[Interface, ...], children: tuple[str, ...]) -> str:
    """A whole introspection document."""
    nodes = "".join(f"  <node name={quoteattr(child)}/>\n" for child in children)
    return f"{_DOCTYPE}<node>\n{''.join(map(interface_xml, interfaces))}{nodes}</node>\n"


def file_xml(interface: Interface) -> str:
    """The file that is shipped in /usr/share/dbus-1/interfaces."""
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    licence = "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->\n"
    return head + licence + node_xml((interface,), ())


def _arg(arg: Arg, direction: str) -> str:
    side = f' direction="{direction}"' if direction else ""
    return f"      <arg name={quoteattr(arg.name)} type={quoteattr(arg.signature)}{side}/>"


def _element(tag: str, attributes: str, children: list[str]) -> list[str]:
    if not children:
        return [f"    <{tag} {attributes}/>"]
    return [f"    <{tag} {attributes}>", *children, f"    </{tag}>"]


def _comment(doc: str, indent: str) -> list[str]:
    assert "--" not in doc, "XML comments cannot hold that"
    return [f"{indent}<!-- {escape(doc)} -->"] if doc else []
