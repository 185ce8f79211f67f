"""Images for new containers: taken from the store, or pulled when they are missing (row RUN-42)."""

from __future__ import annotations

from builder.errors import NoSuchImage
from builder.oci.reference import Reference
from cli.app import App
from cli.flags import Args
from cli.platforms import platform_of
from runtime.errors import PybuildError

POLICIES = ("always", "missing", "never")


def ensure_image(app: App, args: Args) -> None:
    """Bring ``args.words[0]`` into the store as ``--pull`` says. Raises NoSuchImage and RegistryError."""
    from builder.containers import BadOption

    name, policy = args.words[0], args.text("pull")
    if policy not in POLICIES:
        raise BadOption(f"invalid pull option: {policy!r}", hint="always, missing or never")
    known = app.store.images.resolve(name) is not None
    if known and policy != "always":
        return
    if policy == "never":
        raise _outside(NoSuchImage(f"No such image: {name}", hint="--pull never keeps it from being fetched"))
    quiet = args.on("quiet")
    if not known and not quiet:
        app.note(f"Unable to find image '{Reference.parse(name).with_default_tag().familiar}' locally")
    from builder.images import pull_image
    from cli.render.task import Task

    try:
        platform = platform_of(args)
        with Task(app.settings, f"pull {name}", quiet=quiet) as task:
            pull_image(app.store, name, platform, task.on_event, app.registry_config(), vertex=task.vertex)
    except PybuildError as error:
        raise _outside(error) from None


def _outside(error: PybuildError) -> PybuildError:
    """What keeps a container from being made ends run with 125."""
    error.exit_status = 125
    return error
