"""The source policy of one build: asked for every source, before anything of it is fetched (POL-02, POL-03).

Images are judged by name before their metadata is asked for, and once more with the digest that the name
stood for; everything else when the definition is there. URLs are judged without user and password, with
scheme and host in lower case and without a default port, so that another spelling is no way around a rule.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from builder.build.request import BuildRequest
from builder.errors import SolveError, UsageError
from builder.llb.definition import Definition, Edge, Vertex
from builder.llb.gitref import parse_git_ref
from builder.llb.ops import SourceOp
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.solver.planning import attribute
from builder.sources.policy import Judgement, Pairs, evaluate

COMMAND_TIMEOUT_S = 60
_REPLY_LIMIT = 1 << 20


@dataclass(slots=True)
class SourceGate:
    """What may be used: ``policies`` in order, then the answers of ``command``."""

    judges: tuple[object, ...] = ()

    @classmethod
    def of(cls, request: BuildRequest) -> SourceGate:
        """The gate of a request; it lets everything through when the request has no policy."""
        judges: list[object] = list(request.source_policies)
        if request.source_policy_command:
            judges.append(CommandJudge(command=request.source_policy_command))
        return cls(tuple(judges))

    @property
    def open(self) -> bool:
        """Whether there is nothing to ask."""
        return not self.judges

    def passed(self, identifier: str, attrs: Pairs = (), *, one_form: bool = False) -> tuple[str, Pairs]:
        """The source to use for this one, as ``evaluate`` finds it. Raises SourceDenied, InvalidValue."""
        if not self.judges:
            return identifier, attrs
        plain = plain_url(identifier)
        told = tuple((key, plain_url(value) if key == "git.fullurl" else value) for key, value in attrs)
        found, values = evaluate(self.judges, plain, told, one_form=one_form)
        if (found, values) == (plain, told):
            return identifier, attrs
        return found, _same_transport(plain, found, told, values)

    def context(self, text: str) -> str:
        """The build context to use for ``text``, which may be a git or http(s) URL. Raises as ``passed``."""
        if not self.judges or text == "-" or os.path.isdir(text):
            return text
        git = parse_git_ref(text)
        if git is None:
            return self.passed(text)[0] if "://" in text else text
        identifier, attrs = self.passed(git.identifier, git.attrs)
        if (identifier, attrs) == (git.identifier, git.attrs):
            return text
        remote, (_, hash_, fragment) = dict(attrs).get("git.fullurl", ""), identifier.partition("#")
        return f"{remote or identifier.partition('#')[0]}{hash_}{fragment}"

    def definition(
        self, definition: Definition, fetch: Callable[[SourceOp, Platform | None], SourceOp]
    ) -> Definition:
        """The definition with every source as the policy wants it; ``fetch`` pins an image that is new."""
        if not self.judges:
            return definition
        renamed: dict[Digest, Digest] = {}
        vertices: dict[Digest, Vertex] = {}
        for vertex in definition.vertices:
            op = vertex.op
            if isinstance(op, SourceOp):
                op = self._source(op, vertex, fetch)
            inputs = tuple(Edge(renamed[edge.digest], edge.index) for edge in vertex.inputs)
            changed = replace(vertex, op=op, inputs=inputs)
            renamed[vertex.digest] = changed.digest
            vertices.setdefault(changed.digest, changed)
        head = definition.head
        return Definition.of(vertices, Edge(renamed[head.digest], head.index) if head is not None else None)

    def _source(
        self, op: SourceOp, vertex: Vertex, fetch: Callable[[SourceOp, Platform | None], SourceOp]
    ) -> SourceOp:
        try:
            identifier, attrs = self.passed(op.identifier, op.attrs)
            if (identifier, attrs) == (op.identifier, op.attrs):
                return op
            return fetch(SourceOp(identifier=identifier, attrs=attrs), vertex.platform)
        except SolveError as error:
            raise attribute(error, vertex) from error


def plain_url(url: str) -> str:
    """A URL as policies see it; what is no URL of a network place is left as it is."""
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in ("http", "https", "git", "ssh") or not separator:
        return url
    place, slash, path = rest.partition("/")
    host, colon, port = place.rpartition("@")[2].partition(":")
    default = {"http": "80", "https": "443", "ssh": "22"}.get(scheme.lower())
    if colon and port != default:
        host = f"{host}:{port}"
    return f"{scheme.lower()}://{host.lower()}{slash}{path}"


def _same_transport(old: str, new: str, before: Pairs, after: Pairs) -> Pairs:
    """Attributes of a replaced git source: its full URL follows, unless the policy gives one."""
    was = dict(before).get("git.fullurl", "")
    if old == new or not new.startswith("git://") or not was or dict(after).get("git.fullurl") != was:
        return after
    scheme = was.partition("://")[0] if "://" in was else "ssh"
    place = new.removeprefix("git://").partition("#")[0]
    return tuple((key, f"{scheme}://{place}" if key == "git.fullurl" else value) for key, value in after)


@dataclass(slots=True, kw_only=True)
class CommandJudge:
    """Asks a program (POL-04): JSON on its standard input, JSON from its standard output.

    It gets ``{"source": {"identifier", "attrs"}}`` and answers with ``action`` (ALLOW, DENY or CONVERT),
    ``message``, and ``updates`` as in a rule. Equal questions are asked once. A program that fails denies.
    """

    command: tuple[str, ...]
    _known: dict[str, Judgement] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, identifier: str, attrs: Mapping[str, str]) -> Judgement:
        """What the program says. Raises UsageError when it cannot be run or does not answer."""
        question = json.dumps({"source": {"identifier": identifier, "attrs": dict(attrs)}})
        with self._lock:
            if question not in self._known:
                self._known[question] = self._ask(question, identifier, attrs)
            return self._known[question]

    def _ask(self, question: str, identifier: str, attrs: Mapping[str, str]) -> Judgement:
        from builder.sources.command import ask

        name = self.command[0]
        try:
            status, said = ask(
                self.command,
                question.encode("utf-8", "surrogateescape"),
                limit=_REPLY_LIMIT,
                timeout_s=COMMAND_TIMEOUT_S,
            )
        except UsageError as error:
            raise UsageError(f"source policy command {name}: {error.message}") from error
        except OSError as error:
            raise UsageError(f"source policy command {name}: {error}") from error
        if status != 0:
            return Judgement(reason=f"{name} ended with status {status}")
        try:
            answer = json.loads(said)
            action, updates = str(answer["action"]).upper(), answer.get("updates") or {}
            message = str(answer.get("message") or "")
            new = {**attrs, **{str(k): str(v) for k, v in (updates.get("attrs") or {}).items()}}
            target = str(updates.get("identifier") or identifier)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"source policy command {name}: no valid answer") from error
        if action == "DENY":
            return Judgement(reason=f"{name}: {message}" if message else f"{name}: DENY")
        if action == "CONVERT" and (target, new) != (identifier, dict(attrs)):
            return Judgement(identifier=target, attrs=new)
        if action not in ("ALLOW", "CONVERT"):
            raise UsageError(f"source policy command {name}: unknown action {action[:40]!r}")
        return Judgement()
