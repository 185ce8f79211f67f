"""``pybuild commit`` (rows IC-COMMIT-1, IC-COMMIT-2)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command, many, switch, text

FLAGS = (
    text("author", "a", "Author of the image"),
    many("change", "c", "Apply a Dockerfile instruction to the image"),
    text("message", "m", "Comment of the image"),
    switch("pause", "p", "Freeze the container meanwhile", default=True),
)


def run(app: App, args: Args) -> int:
    """Make the image and print its id."""
    from builder.containers import CommitRequest, commit

    request = CommitRequest(
        reference=args.words[1] if len(args.words) > 1 else "",
        message=args.text("message"),
        author=args.text("author"),
        changes=args.many("change"),
        pause=args.on("pause"),
    )
    app.say(str(commit(app.store, args.words[0], request)))
    return 0


COMMANDS = (
    Command(
        "commit",
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Create an image from a container's changes",
        run,
        flags=FLAGS,
        words=(1, 2),
    ),
)
