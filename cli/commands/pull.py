"""``pybuild pull`` (rows REG-PULL-1, REG-PULL-5)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command, switch, text
from cli.platforms import platform_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.images import PullResult

FLAGS = (
    switch("all-tags", "a", "Fetch every tag of the repository"),
    switch("disable-content-trust", "", "Accepted for compatibility", default=True, hidden=True),
    text("platform", "", "Which platform of the image"),
    switch("quiet", "q", "Print only the name"),
)


def run(app: App, args: Args) -> int:
    """Fetch, then say what came."""
    from builder.images import pull_all_tags, pull_image
    from builder.oci.reference import Reference
    from cli.render.task import Task

    name = args.words[0]
    reference = Reference.parse(name)
    platform = platform_of(args)
    registry = app.registry_config()
    quiet = args.on("quiet")
    if not quiet and not args.on("all-tags"):
        if reference.tag is None and reference.digest is None:
            app.say("Using default tag: latest")
        shown = reference.with_default_tag()
        app.say(f"{shown.tag or shown.digest}: Pulling from {reference.familiar_name}")
    with Task(app.settings, f"pull {name}", quiet=quiet) as task:
        if args.on("all-tags"):
            results = pull_all_tags(app.store, name, platform, task.on_event, registry)
        else:
            results = (pull_image(app.store, name, platform, task.on_event, registry, vertex=task.vertex),)
    for result in results:
        _tell(app, result, quiet=quiet)
    return 0


def _tell(app: App, result: PullResult, *, quiet: bool) -> None:
    if not quiet:
        app.say(f"Digest: {result.digest}")
        what = "Downloaded newer image" if result.changed else "Image is up to date"
        app.say(f"Status: {what} for {result.ref.familiar}")
    app.say(str(result.ref))


COMMANDS = (
    Command(
        "pull",
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Fetch an image from a registry",
        run,
        flags=FLAGS,
        words=(1, 1),
    ),
)
