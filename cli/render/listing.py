"""Lists of things: a table by default, one line per thing with ``--format``, ids only with ``--quiet``.

``--format`` is a template over the fields of a row; ``table TEMPLATE`` puts heads above; ``json`` gives an
object per line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.render.tables import table


def listing(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    heads: Mapping[str, str],
    form: str = "",
) -> str:
    """The text of a list. ``columns`` are the fields of the default table, ``heads`` their titles."""
    if form in ("", "table"):
        return table(
            [[heads[name] for name in columns], *([str(row[name]) for name in columns] for row in rows)]
        )
    if form == "json":
        from cli.render.template_run import to_json

        return "".join(f"{to_json(dict(row))}\n" for row in rows)
    from cli.render.template_run import Template

    if form.startswith("table "):
        body = form.removeprefix("table ").replace("\\t", "\t")
        template = Template(body)
        shown = [template.render(head) for head in (heads,)] if rows or heads else []
        shown += [template.render(row) for row in rows]
        return table([line.split("\t") for line in shown])
    template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    return "".join(f"{template.render(row)}\n" for row in rows)
