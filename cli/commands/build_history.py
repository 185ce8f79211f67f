"""``pybuild history ls``, ``inspect``, ``logs``, ``trace``, ``rm``, ``pin``, ``unpin``, ``export``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from builder.build import history
from builder.build.history import BuildRecord
from builder.errors import UsageError
from cli.app import App
from cli.flags import Args, Command, many, number, switch, text
from cli.render.buildrecord import duration
from cli.render.listing import listing
from cli.render.text import ago, printable, rfc3339

HEADS = {
    "Ref": "BUILD ID",
    "Name": "NAME",
    "Status": "STATUS",
    "CreatedAt": "CREATED AT",
    "Duration": "DURATION",
    "Type": "TYPE",
    "Created": "CREATED",
    "Completed": "COMPLETED",
    "CompletedAt": "COMPLETED AT",
    "Generation": "GENERATION",
    "Pinned": "PINNED",
    "Steps": "STEPS",
    "Cached": "CACHED",
    "Warnings": "WARNINGS",
    "Image": "IMAGE",
    "Error": "ERROR",
}
_COLUMNS = ("Ref", "Name", "Status", "CreatedAt", "Duration")
_WIDTH = 40


def ls(app: App, args: Args) -> int:
    """List the builds, running ones first."""
    return list_builds(app, args, _COLUMNS)


def list_builds(app: App, args: Args, columns: tuple[str, ...], heads: Mapping[str, str] = HEADS) -> int:
    """A table with these columns, or what ``--format`` says; ``heads`` replace the usual titles."""
    from cli.historyfilter import parse_filters

    matches = parse_filters(args.many("filter"))
    found = [record for record in history.records(app.store) if matches(record)]
    limit = args.number("limit")
    if args.given("limit"):
        if limit < 0:
            raise UsageError("--limit must not be negative")
        found = found[:limit]
    if args.on("quiet"):
        for record in found:
            app.say(record.ref)
        return 0
    rows = [row_of(record, whole=args.on("no-trunc")) for record in found]
    shown = listing(rows, columns, heads, args.text("format"))
    app.write(shown.encode("utf-8", "surrogateescape"))
    return 0


def row_of(record: BuildRecord, *, whole: bool) -> dict[str, Any]:
    """What a list shows of a build; what is long is cut off unless it shall be ``whole``."""
    from cli.render.text import ellipsis

    now = time.time_ns()
    error = str(record.data.get("error", ""))
    return {
        "Ref": record.ref,
        "Name": record.name if whole else ellipsis(record.name, _WIDTH),
        "Status": record.status[:1].upper() + record.status[1:],
        "CreatedAt": ago(record.created_ns, now),
        "Duration": duration(record.duration_ns),
        "Type": "active" if record.running else "complete",
        "Created": rfc3339(record.created_ns),
        "Completed": rfc3339(record.completed_ns) if record.completed_ns else "",
        "CompletedAt": ago(record.completed_ns, now) if record.completed_ns else "",
        "Generation": str(record.data.get("generation", 1)),
        "Pinned": str(record.pinned).lower(),
        "Steps": str(record.count("total")),
        "Cached": str(record.count("cached")),
        "Warnings": str(record.count("warnings")),
        "Image": str(record.data.get("image_id", "")),
        "Error": error if whole else ellipsis(error, _WIDTH),
    }


def inspect(app: App, args: Args) -> int:
    """Show one build, or give out one of its attachments."""
    if args.words and args.words[0] == "attachment":
        return _attachment(app, args.words[1:])
    if len(args.words) > 1:
        raise UsageError(f"one build at a time, not {len(args.words)}", hint="history inspect [REF]")
    record = history.find(app.store, *args.words)
    from cli.render.buildrecord import record_json, record_text

    form = args.text("format")
    if not form:
        app.say(record_text(app.store, record))
    elif form == "json":
        app.say(json.dumps(record_json(app.store, record), indent=4))
    else:
        from cli.render.template_run import Template

        app.say(Template(form).render(record_json(app.store, record)))
    return 0


def _attachment(app: App, words: tuple[str, ...]) -> int:
    """``history inspect attachment [REF [DIGEST|TYPE]]``; without the last the definition.

    ``provenance`` is short for its predicate type; of several platforms a type means the first.
    """
    record = history.finalized(app.store, history.find(app.store, *words[:1]))
    wanted = words[1] if len(words) > 1 else history.DEFINITION_TYPE
    if wanted == "provenance":
        wanted = history.PREDICATE_TYPE
    for found in history.attachments(app.store, record):
        if wanted in (found.digest, found.media_type, found.predicate) or (
            len(wanted) > 6 and found.digest.startswith((wanted, f"sha256:{wanted}"))
        ):
            app.write(history.attachment_bytes(app.store, found))
            return 0
    raise UsageError(
        f"build {record.ref} has no attachment {wanted}",
        hint=f"pybuild history inspect {record.ref}",
        code="no-such-attachment",
    )


def trace(app: App, args: Args) -> int:
    """Give out the spans of one build."""
    app.write(history.trace(app.store, history.find(app.store, *args.words)) + b"\n")
    return 0


def logs(app: App, args: Args) -> int:
    """Show the progress of a build again; one that runs is followed to its end."""
    from cli.render.progress import make_progress, renderer_for
    from cli.render.replay import replay

    record = history.find(app.store, *args.words)
    mode = args.text("progress") or "plain"
    shown = history.events(app.store, record)
    if not record.running:
        replay(shown, renderer_for(mode, app.settings, sys.stdout)[0])
        return 0
    with make_progress(mode, app.settings, sys.stdout, clip=False) as progress:
        for event in shown:
            progress(event)
    return 0


def rm(app: App, args: Args) -> int:
    """Forget builds."""
    if args.on("all"):
        if args.words:
            raise UsageError("--all and names of builds do not go together")
        gone = history.remove_all(app.store)
    elif args.words:
        gone = history.remove(app.store, args.words)
    else:
        raise UsageError("which build?", hint="history rm REF... or history rm --all")
    for ref in gone:
        app.say(ref)
    return 0


def pin(app: App, args: Args) -> int:
    """Keep records from being removed by age."""
    return _pin(app, args, pinned=True)


def unpin(app: App, args: Args) -> int:
    """Let age remove them again."""
    return _pin(app, args, pinned=False)


def _pin(app: App, args: Args, *, pinned: bool) -> int:
    found = [history.find(app.store, ref) for ref in args.words]
    for record in found:
        app.store.builds.pin(record.ref, pinned=pinned)
        app.say(record.ref)
    return 0


def export(app: App, args: Args) -> int:
    """Write records with their logs as an archive."""
    from builder.build.historybundle import bundle
    from cli.app import is_terminal

    refs = args.words or ("",)
    found = list(history.records(app.store)) if args.on("all") else [history.find(app.store, r) for r in refs]
    running = [record.ref for record in found if record.running and not args.on("all")]
    if running:
        raise UsageError(f"build {running[0]} is running", hint="wait for its end", code="build-running")
    found = [record for record in found if not record.running]
    if not found:
        raise UsageError("no build is on record", code="no-such-build")
    output = args.text("output")
    if output in ("", "-"):
        if is_terminal(1):
            raise UsageError("refusing to write an archive to a terminal", hint="use -o FILE or redirect")
        bundle(app.store, found, app.stdout)
        return 0
    from cli.files import written

    with written(output) as file:
        bundle(app.store, found, file)
    app.note(f"{printable(output)}: {len(found)} build{'s' if len(found) != 1 else ''}")
    return 0


_REF = "REF is an id or its beginning, ^0 for the last build, ^1 for the one before it"
REFS, GIVEN_REFS = f"{_REF}; the default is ^0.", f"{_REF}."
LS_FLAGS = (
    many("filter", "", "ref=, status=, repository=, startedAt>10m, completedAt<..., duration>=5s"),
    text("format", "", "Template, table TEMPLATE, or json"),
    number("limit", "", "Show only the newest"),
    switch("no-trunc", "", "Show everything"),
    switch("quiet", "q", "Show only ids"),
)
COMMANDS = (
    Command("history ls", "[OPTIONS]", "List the builds on record", ls, flags=LS_FLAGS),
    Command(
        "history inspect",
        "[OPTIONS] [REF] | attachment [REF [DIGEST|TYPE]]",
        "Show everything known about a build",
        inspect,
        flags=(text("format", "", "Template, or json"),),
        words=(0, 3),
        details=REFS,
    ),
    Command(
        "history logs",
        "[OPTIONS] [REF]",
        "Show the whole progress of a build again",
        logs,
        flags=(text("progress", "", '"plain", "rawjson", "tty"', default="plain"),),
        words=(0, 1),
        details=REFS,
    ),
    Command(
        "history rm",
        "[OPTIONS] [REF...]",
        "Forget builds and their logs",
        rm,
        flags=(switch("all", "", "All that are neither running nor pinned"),),
        words=(0, None),
        details=GIVEN_REFS,
    ),
    Command(
        "history trace",
        "[REF]",
        "Print the OpenTelemetry spans of a build (OTLP JSON)",
        trace,
        words=(0, 1),
        details=REFS,
    ),
    Command("history pin", "REF...", "Keep builds on record", pin, words=(1, None), details=GIVEN_REFS),
    Command(
        "history unpin", "REF...", "Let builds go by age again", unpin, words=(1, None), details=GIVEN_REFS
    ),
    Command(
        "history export",
        "[OPTIONS] [REF...]",
        "Write builds with their logs as an archive",
        export,
        flags=(text("output", "o", "File to write", metavar="file"), switch("all", "", "All builds")),
        words=(0, None),
        details=REFS,
    ),
)
