"""``pybuild inspect`` (rows IC-INSP-1, IC-INSP-2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from builder.errors import NoSuchImage, PybuildError, UsageError
from cli.app import App
from cli.flags import Args, Command, switch, text
from runtime.errors import NoSuchContainer

Finder = Callable[[App, str], dict[str, Any]]

FLAGS = (
    text("format", "f", "Template, or json"),
    switch("size", "s", "Show sizes of containers too"),
    text("type", "", 'Look only for one kind ("container", "image", "volume")'),
)


def container_document(app: App, name: str) -> dict[str, Any]:
    """A container in docker's keys. Raises NoSuchContainer."""
    from builder.containers import inspect_container

    return inspect_container(app.store, name)


def image_document(app: App, name: str) -> dict[str, Any]:
    """An image in docker's keys. Raises NoSuchImage."""
    from builder.images import inspect_image

    return inspect_image(app.store, name)


def anything(app: App, args: Args) -> int:
    """Print what is found: containers first, then images, then volumes."""
    from cli.commands.volume import volume_document

    finders: dict[str, Finder] = {
        "container": container_document,
        "image": image_document,
        "volume": volume_document,
    }
    kind = args.text("type")
    if kind and kind not in finders:
        raise UsageError(f"unknown type: {kind!r}", hint=f"known are {', '.join(finders)}")
    return print_documents(app, args, (finders[kind],) if kind else tuple(finders.values()), kind)


def containers(app: App, args: Args) -> int:
    """Print containers."""
    return print_documents(app, args, (container_document,), "container")


def images(app: App, args: Args) -> int:
    """Print images."""
    return print_documents(app, args, (image_document,), "image")


def print_documents(app: App, args: Args, finders: Sequence[Finder], kind: str = "") -> int:
    """A JSON array of what was found, or a line each with ``--format``; what is missing is told last."""
    from cli.render.format import formatted, pretty_json

    form = args.text("format")
    missing: list[str] = []
    found: list[dict[str, Any]] = []
    for name in args.words:
        try:
            found.append(_find(app, name, finders))
        except (NoSuchContainer, NoSuchImage, LookupFailed) as error:
            what = (
                error.message
                if len(finders) == 1
                else f"Error: No such {kind or 'image or container'}: {name}"
            )
            missing.append(what)
    if form and form != "json":
        for document in found:
            app.say(formatted(form, document))
    elif form == "json":
        app.say(formatted(form, found))
    else:
        app.say(pretty_json(found))
    for line in missing:
        app.note(line)
    return 1 if missing else 0


class LookupFailed(PybuildError):
    """Nothing has that name."""

    code = "not-found"


def _find(app: App, name: str, finders: Sequence[Finder]) -> dict[str, Any]:
    from cli.commands.volume import NoSuchVolume

    last: PybuildError | None = None
    for finder in finders:
        try:
            return finder(app, name)
        except (NoSuchContainer, NoSuchImage, NoSuchVolume) as error:
            last = error
    raise LookupFailed(last.message if last is not None else f"No such thing: {name}")


def _command(name: str, summary: str, what: str, run: Callable[[App, Args], int]) -> Command:
    return Command(name, f"[OPTIONS] {what} [{what}...]", summary, run, flags=FLAGS, words=(1, None))


COMMANDS = (
    _command("inspect", "Show everything known about containers, images or volumes", "NAME|ID", anything),
    _command("container inspect", "Show everything known about containers", "CONTAINER", containers),
    _command("image inspect", "Show everything known about images", "IMAGE", images),
)
