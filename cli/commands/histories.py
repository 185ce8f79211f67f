"""buildctl's verbs over builds on record: ``debug histories``, ``debug ctl``, ``prune-histories`` (HSY)."""

from __future__ import annotations

from builder.build import history
from builder.errors import UsageError
from cli.app import App
from cli.commands.build_history import GIVEN_REFS, HEADS, LS_FLAGS, list_builds, row_of
from cli.flags import Args, Command, switch
from cli.render.listing import listing

_COLUMNS = ("Type", "Ref", "Created", "Completed", "Generation", "Pinned")
_HEADS = {**HEADS, "Ref": "REF"}
_DEEDS = ("pin", "unpin", "delete", "finalize")


def histories(app: App, args: Args) -> int:
    """List the builds, running ones first."""
    return list_builds(app, args, _COLUMNS, _HEADS)


def ctl(app: App, args: Args) -> int:
    """Change records."""
    deeds = [deed for deed in _DEEDS if args.on(deed)]
    if len(deeds) != 1:
        given = " and ".join(f"--{deed}" for deed in deeds) or "nothing"
        raise UsageError(
            f"{given}: want one of --pin, --unpin, --delete, --finalize", hint="debug ctl --pin REF"
        )
    (deed,) = deeds
    if deed == "delete":
        history.remove(app.store, args.words)
        return 0
    for record in [history.find(app.store, ref) for ref in args.words]:
        if deed == "finalize":
            history.trace(app.store, record)
        else:
            app.store.builds.pin(record.ref, pinned=deed == "pin")
    return 0


def prune(app: App, _args: Args) -> int:
    """Forget every build that is neither running nor pinned, and say which."""
    found = {record.ref: record for record in history.records(app.store)}
    rows = [row_of(found[ref], whole=True) for ref in history.remove_all(app.store) if ref in found]
    if rows:
        app.write(listing(rows, _COLUMNS, _HEADS, "").encode("utf-8", "surrogateescape"))
    return 0


COMMANDS = (
    Command(
        "debug histories",
        "[OPTIONS]",
        "List the builds on record as buildctl does",
        histories,
        flags=LS_FLAGS,
    ),
    Command(
        "debug ctl",
        "--pin|--unpin|--delete|--finalize REF...",
        "Pin, unpin or delete builds on record, or write their traces",
        ctl,
        flags=(
            switch("pin", "", "Keep from being removed by age"),
            switch("unpin", "", "Let age remove them again"),
            switch("delete", "", "Forget them, with their logs"),
            switch("finalize", "", "Write their traces now"),
        ),
        words=(1, None),
        details=GIVEN_REFS,
    ),
    Command("prune-histories", "", "Forget all builds on record but pinned and running ones", prune),
)
