"""``pybuild push`` (rows REG-PUSH-1, REG-PUSH-2)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command, switch, text
from cli.platforms import platform_of

FLAGS = (
    switch("all-tags", "a", "Push every tag of the repository"),
    switch("disable-content-trust", "", "Accepted for compatibility", default=True, hidden=True),
    text("platform", "", "Push only this platform of the image"),
    switch("quiet", "q", "Print only the name"),
)


def run(app: App, args: Args) -> int:
    """Send, then say what the registry has now."""
    from builder.images import push
    from builder.oci.reference import Reference
    from cli.render.task import Task

    name, quiet = args.words[0], args.on("quiet")
    reference = Reference.parse(name)
    if not quiet:
        if reference.tag is None and not args.on("all-tags"):
            app.say("Using default tag: latest")
        app.say(f"The push refers to repository [{reference.name}]")
    with Task(app.settings, f"push {name}", quiet=quiet) as task:
        results = push(
            app.store,
            name,
            task.on_event,
            app.registry_config(),
            platform=platform_of(args),
            all_tags=args.on("all-tags"),
            vertex=task.vertex,
        )
    for result in results:
        app.say(
            str(result.ref) if quiet else f"{result.ref.tag}: digest: {result.digest} size: {result.size}"
        )
    return 0


COMMANDS = (
    Command("push", "[OPTIONS] NAME[:TAG]", "Send an image to a registry", run, flags=FLAGS, words=(1, 1)),
)
