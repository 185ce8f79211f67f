"""The command line's grammar, with docker's habits (rows CLI-05, CLI-06, CLI-12 of the requirements).

Short booleans may be joined (``-it``), a value may follow its flag as a word, after ``=`` or, for short
flags, directly; booleans take ``=true``/``=false``; list flags repeat; ``--`` ends the flags; for commands
that run something, the first word that is not a flag ends them too. The module imports nothing, since every
start pays for it.
"""

from __future__ import annotations

from builder.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cli.app import App

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})

Value = bool | str | int | tuple[str, ...]


class Flag:
    """One flag: ``kind`` is ``bool``, ``text``, ``int``, ``list`` (repeated) or ``csv`` (repeated and split).

    ``bare`` is what a text flag means when it stands without ``=value``; empty = the next word is its value.
    """

    __slots__ = ("aliases", "bare", "default", "help", "hidden", "kind", "metavar", "name", "short")

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        help: str,  # noqa: A002 - the word for it
        *,
        metavar: str = "",
        default: Value = "",
        aliases: tuple[str, ...] = (),
        bare: str = "",
        hidden: bool = False,
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        self.metavar = metavar
        self.default = default
        self.aliases = aliases
        self.bare = bare
        self.hidden = hidden

    @property
    def shown(self) -> str:
        """How messages name the flag."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


def switch(
    name: str,
    short: str = "",
    help: str = "",  # noqa: A002
    *,
    default: bool = False,
    aliases: tuple[str, ...] = (),
    hidden: bool = False,
) -> Flag:
    """A boolean flag."""
    return Flag(name, short, "bool", help, default=default, aliases=aliases, hidden=hidden)


def text(
    name: str,
    short: str = "",
    help: str = "",  # noqa: A002
    *,
    default: str = "",
    metavar: str = "string",
    aliases: tuple[str, ...] = (),
    bare: str = "",
    hidden: bool = False,
) -> Flag:
    """A flag with one value; the last one given counts."""
    return Flag(
        name, short, "text", help, default=default, metavar=metavar, aliases=aliases, bare=bare, hidden=hidden
    )


def number(
    name: str,
    short: str = "",
    help: str = "",  # noqa: A002
    *,
    default: int = 0,
    aliases: tuple[str, ...] = (),
    hidden: bool = False,
) -> Flag:
    """A flag with a whole number."""
    return Flag(name, short, "int", help, default=default, metavar="int", aliases=aliases, hidden=hidden)


def many(
    name: str,
    short: str = "",
    help: str = "",  # noqa: A002
    *,
    metavar: str = "list",
    aliases: tuple[str, ...] = (),
    split: bool = False,
    hidden: bool = False,
) -> Flag:
    """A flag that may be repeated; with ``split`` each value is a comma list."""
    kind = "csv" if split else "list"
    return Flag(name, short, kind, help, default=(), metavar=metavar, aliases=aliases, hidden=hidden)


class Args:
    """A parsed command line: flag values by name, and the words that are not flags."""

    __slots__ = ("_given", "_values", "after_dashes", "words")

    def __init__(
        self,
        values: dict[str, Value],
        given: set[str],
        words: tuple[str, ...],
        after_dashes: tuple[str, ...] = (),
    ) -> None:
        self._values = values
        self._given = given
        self.words = words
        self.after_dashes = after_dashes

    def changed(self, values: dict[str, Value], words: tuple[str, ...]) -> Args:
        """A copy with other words, and with these values as if they had been given."""
        return Args({**self._values, **values}, self._given | set(values), words)

    def given(self, name: str) -> bool:
        """Whether the flag was on the command line."""
        return name in self._given

    def on(self, name: str) -> bool:
        """Value of a switch."""
        return bool(self._values[name])

    def text(self, name: str) -> str:
        """Value of a text flag, its default when not given."""
        return str(self._values[name])

    def optional(self, name: str) -> str | None:
        """Value of a text flag, None when not given."""
        return str(self._values[name]) if name in self._given else None

    def number(self, name: str) -> int:
        """Value of a number flag."""
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def many(self, name: str) -> tuple[str, ...]:
        """Values of a list flag, in the order given."""
        value = self._values[name]
        assert isinstance(value, tuple)
        return value


class Command:
    """A verb: its flags, how many words it takes, and the function that carries it out.

    ``words`` is (at least, at most or None); ``interspersed`` False = the first word ends the flags;
    ``usage_status`` is the exit status of a wrong command line; ``after_dashes``: what follows ``--`` is a
    command of its own.
    """

    __slots__ = (
        "after_dashes",
        "aliases",
        "details",
        "flags",
        "interspersed",
        "name",
        "run",
        "summary",
        "usage",
        "usage_status",
        "words",
    )

    def __init__(
        self,
        name: str,
        usage: str,
        summary: str,
        run: Callable[[App, Args], int],
        *,
        flags: Iterable[Flag] = (),
        words: tuple[int, int | None] = (0, 0),
        interspersed: bool = True,
        usage_status: int = 2,
        details: str = "",
        after_dashes: bool = False,
    ) -> None:
        self.name = name
        self.usage = usage
        self.summary = summary
        self.run = run
        self.flags = tuple(flags)
        self.words = words
        self.interspersed = interspersed
        self.usage_status = usage_status
        self.details = details
        self.after_dashes = after_dashes


COMMON = (
    text("root", "", "State directory", metavar="dir", hidden=True),
    text("error-format", "", 'How errors are shown ("text" or "json")', hidden=True),
    text("log-level", "", "Accepted for compatibility", hidden=True),
    text("config", "", "Location of docker's client configuration", metavar="dir", hidden=True),
    switch("debug", "", "Show what a failure came from", hidden=True),
    switch("help", "", "Print usage", hidden=True),
)


def wrong(command: Command, message: str) -> UsageError:
    """The error for a wrong command line of ``command``."""
    error = UsageError(
        message,
        context=(f"Usage:  pybuild {command.name} {command.usage}".rstrip(),),
        hint=f"Run 'pybuild {command.name} --help' for more information",
    )
    error.exit_status = command.usage_status
    return error


def parse(command: Command, argv: list[str]) -> Args:
    """Read ``argv`` (without the verb); raises UsageError. ``--help`` stops the reading."""
    parser = _Parser(command)
    parser.read(argv)
    args = Args(parser.values, parser.given, tuple(parser.words), tuple(parser.after))
    if not args.on("help"):
        _check_words(command, len(args.words))
    return args


def _check_words(command: Command, count: int) -> None:
    least, most = command.words
    if count >= least and (most is None or count <= most):
        return
    if most is None:
        want = f"at least {least} argument{'s' if least != 1 else ''}"
    elif least == most:
        want = f"{least or 'no'} argument{'s' if least != 1 else ''}"
    elif count < least:
        want = f"at least {least} argument{'s' if least != 1 else ''}"
    else:
        want = f"at most {most} argument{'s' if most != 1 else ''}"
    raise wrong(command, f"'pybuild {command.name}' requires {want}")


class _Parser:
    def __init__(self, command: Command) -> None:
        self.command = command
        self.values: dict[str, Value] = {}
        self.given: set[str] = set()
        self.words: list[str] = []
        self.after: list[str] = []
        self._long: dict[str, Flag] = {}
        self._short: dict[str, Flag] = {}
        for flag in (*COMMON, *command.flags):
            self.values[flag.name] = flag.default
            self._long[flag.name] = flag
            for alias in flag.aliases:
                table = self._short if len(alias) == 1 else self._long
                table[alias] = flag
            if flag.short:
                self._short[flag.short] = flag
        self._short.setdefault("h", self._long["help"])
        self._short.setdefault("D", self._long["debug"])

    def read(self, argv: list[str]) -> None:
        rest = list(reversed(argv))
        while rest:
            word = rest.pop()
            if word == "--":
                (self.after if self.command.after_dashes else self.words).extend(reversed(rest))
                return
            if word.startswith("--"):
                self._read_long(word[2:], rest)
            elif word.startswith("-") and word != "-":
                self._read_short(word[1:], rest)
            else:
                self.words.append(word)
                if not self.command.interspersed:
                    self.words += reversed(rest)
                    return

    def _read_long(self, word: str, rest: list[str]) -> None:
        name, equals, value = word.partition("=")
        flag = self._long.get(name)
        if flag is None:
            from cli.suggest import did_you_mean

            known = [known for known, found in self._long.items() if not found.hidden]
            raise wrong(self.command, f"unknown flag: --{name}{did_you_mean(name, known, '--')}")
        if equals:
            self._set(flag, value)
        elif flag.kind == "bool":
            self._set(flag, "true")
        elif flag.bare:
            self._set(flag, flag.bare)
        elif rest:
            self._set(flag, rest.pop())
        else:
            raise wrong(self.command, f"flag needs an argument: --{name}")

    def _read_short(self, letters: str, rest: list[str]) -> None:
        whole = letters
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None:
                raise wrong(self.command, f"unknown shorthand flag: '{letter}' in -{whole}")
            if flag.kind == "bool" and not letters.startswith("="):
                self._set(flag, "true")
                continue
            if letters:
                self._set(flag, letters.removeprefix("="))
            elif flag.bare:
                self._set(flag, flag.bare)
            elif rest:
                self._set(flag, rest.pop())
            else:
                raise wrong(self.command, f"flag needs an argument: '{letter}' in -{whole}")
            return

    def _set(self, flag: Flag, value: str) -> None:
        self.given.add(flag.name)
        if flag.kind == "bool":
            if value not in _TRUE and value not in _FALSE:
                raise self._invalid(flag, value, "want true or false")
            self.values[flag.name] = value in _TRUE
        elif flag.kind == "int":
            try:
                self.values[flag.name] = int(value)
            except ValueError:
                raise self._invalid(flag, value, "want a whole number") from None
        elif flag.kind == "text":
            self.values[flag.name] = value
        else:
            found = self.values[flag.name]
            assert isinstance(found, tuple)
            added = tuple(value.split(",")) if flag.kind == "csv" else (value,)
            self.values[flag.name] = (*found, *added)

    def _invalid(self, flag: Flag, value: str, why: str) -> UsageError:
        return wrong(self.command, f'invalid argument "{value}" for "{flag.shown}" flag: {why}')
