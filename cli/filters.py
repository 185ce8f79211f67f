"""``--filter KEY=VALUE``: values of one key are alternatives, different keys must all hold (IO-EVENTS-3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from builder.errors import InvalidValue, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.filters import Predicate

Filters = dict[str, tuple[str, ...]]


def filters(values: Iterable[str], known: Iterable[str]) -> Filters:
    """Read ``--filter`` values; raises UsageError on a key that is not known."""
    keys = tuple(known)
    found: Filters = {}
    for item in values:
        key, equals, value = item.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"invalid filter {item!r}", hint="want KEY=VALUE")
        if key not in keys:
            from cli.suggest import did_you_mean

            raise UsageError(
                f"Invalid filter '{key}'{did_you_mean(key, keys)}", hint=f"known are {', '.join(keys)}"
            )
        found[key] = (*found.get(key, ()), value)
    return found


def label_matches(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether all of ``key`` or ``key=value`` are among the labels."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def boolean(text: str, key: str) -> bool:
    """A filter's yes or no."""
    if text.lower() in ("1", "true", "t"):
        return True
    if text.lower() in ("0", "false", "f"):
        return False
    raise UsageError(f"Invalid filter '{key}={text}'", hint="want true or false")


def usage_filter(texts: Sequence[str], where: str = "") -> Predicate:
    """Filters over what the build cache keeps (GC-03); ``where`` begins the message. Raises UsageError."""
    from builder.cache.filters import parse_filters

    try:
        return parse_filters(texts)
    except InvalidValue as error:
        raise UsageError(f"{where}{error.message}", hint=error.hint) from error
