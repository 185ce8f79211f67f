"""``pybuild events`` (rows IO-EVENTS-1 … IO-EVENTS-4)."""

from __future__ import annotations

import sys
import time
from typing import Any

from cli.app import App
from cli.filters import Filters, filters, label_matches
from cli.flags import Args, Command, many, text
from cli.render.text import printable
from cli.units import point_in_time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.history import Event

FLAGS = (
    many("filter", "f", "Show only some (container, image, volume, event, type, label)"),
    text("format", "", "Template, or json"),
    text("since", "", "Show also what happened since (time, or how long ago)"),
    text("until", "", "Stop at (time, or how long ago)"),
)
_KEYS = ("container", "event", "image", "label", "type", "volume")


def run(app: App, args: Args) -> int:
    """Print events, the past ones asked for and then live ones."""
    now = time.time_ns()
    wanted = filters(args.many("filter"), _KEYS)
    since = point_in_time_ns(args.text("since"), now, "--since") if args.text("since") else None
    until = point_in_time_ns(args.text("until"), now, "--until") if args.text("until") else None
    show = _shower(args.text("format"))
    for event in app.store.events.follow(since, until_ns=until):
        if matches(event, wanted):
            app.say(show(event))
            sys.stdout.flush()
    return 0


def matches(event: Event, wanted: Filters) -> bool:
    """Whether an event passes the filters."""
    for key, values in wanted.items():
        if key == "label":
            found = label_matches(event.attrs, values)
        elif key == "event":
            found = any(event.action.partition(":")[0] == value for value in values)
        elif key == "type":
            found = event.kind in values
        else:
            found = any(_is_about(event, key, value) for value in values)
        if not found:
            return False
    return True


def _is_about(event: Event, kind: str, value: str) -> bool:
    if kind == "image":
        names = (event.id, event.attrs.get("name", ""), event.attrs.get("image", ""))
        repositories = tuple(name.rpartition("/")[2].partition(":")[0] for name in names)
        hexes = tuple(name.removeprefix("sha256:") for name in names)
        return value in names or value in repositories or any(h.startswith(value) for h in hexes if h)
    if event.kind != kind:
        return False
    return event.attrs.get("name") == value or (len(value) > 0 and event.id.startswith(value))


def _shower(form: str) -> Any:
    if not form:
        return line
    from cli.render.format import structs
    from cli.render.template_run import Template, to_json

    if form == "json":
        return lambda event: to_json(structs(_document(event)))
    template = Template(form)
    return lambda event: template.render(structs(_document(event)))


def _document(event: Event) -> dict[str, Any]:
    """An event in docker's keys; ``status``, ``id`` and ``from`` are the old ones."""
    return {
        "status": event.action,
        "id": event.id,
        "from": event.attrs.get("image", ""),
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(event.attrs)},
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }


def line(event: Event) -> str:
    """``2024-05-01T10:00:00.000000000+02:00 container start <id> (image=…, name=…)``."""
    seconds, rest = divmod(event.time_ns, 1_000_000_000)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{rest:09d}{zone[:3]}:{zone[3:]}"
    attrs = ", ".join(f"{key}={value}" for key, value in sorted(event.attrs.items()))
    return printable(f"{stamp} {event.kind} {event.action} {event.id}" + (f" ({attrs})" if attrs else ""))


COMMANDS = (Command("events", "[OPTIONS]", "Show events, live or from the record", run, flags=FLAGS),)
