"""Caches in registries: beside the image, inside it, in every form, and from registries that lie."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import PybuildError, UsageError
from builder.exporter.types import OutputSpec
from builder.registry.auth import Credentials, DockerConfig
from builder.registry.hosts import RegistryConfig
from tests.support.buildlab import Built
from tests.support.machines import Machines, cache, inline_records, ran, statuses, warned
from tests.support.registry import Fault, running_registry
from tests.support.registryd import RegistryDaemon
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]

TEXT = """\
FROM busybox AS one
RUN echo one > /one; touch /more
FROM busybox
COPY src /app
RUN cat /app > /out
COPY --from=one /one /one
ENV COLOR=red
"""
FILES = {"src": "hello", "other": "x"}
NAME = "exporting cache to registry"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The reference registry."""
    running = RegistryDaemon.start(tmp_path_factory.mktemp("registry"))
    yield running.address
    running.stop()


def pushed(name: str) -> tuple[OutputSpec, ...]:
    return (OutputSpec(type="image", names=(name,), push=True),)


@row("RCH-08", "RCH-05")
@pytest.mark.parametrize("form", ["", ",image-manifest=false", ",compression=zstd", ",mode=max"])
def test_a_registry_carries_a_cache(many: Machines, daemon: str, form: str) -> None:
    lab, other = many.new(), many.new()
    place = f"type=registry,ref={daemon}/app/cache:c{len(form)}"
    first = lab.build(lab.context(FILES), TEXT, cache_to=cache(place + form))
    shown = statuses(lab, NAME)
    kind = "cache manifest" if "image-manifest=false" in form else "cache image manifest"
    assert any(text.startswith(f"writing {kind} sha256:") for text in shown)
    second = other.build(other.context(FILES), TEXT, cache_from=cache(place))
    assert ran(other) == []
    assert f"importing cache manifest from {daemon}/app/cache:c{len(form)}" in other.watcher.ran()
    if "zstd" not in form:
        assert (first.image_id, first.digest) == (second.image_id, second.digest)
    again = other.build(other.context(FILES), TEXT, cache_from=cache(place))
    assert again.image_id == second.image_id


@row("RCH-08")
def test_a_bare_name_is_a_registry_and_a_name_is_needed(many: Machines, daemon: str) -> None:
    lab, other = many.new(), many.new()
    ref = f"{daemon}/app/bare"
    lab.build(lab.context(FILES), TEXT, cache_to=cache(ref))
    other.build(other.context(FILES), TEXT, cache_from=cache(ref))
    assert ran(other) == []
    for which in ("cache_from", "cache_to"):
        with pytest.raises(UsageError, match="registry cache requires ref"):
            lab.build(lab.context(FILES), TEXT, **{which: cache("type=registry")})
        with pytest.raises(UsageError, match="unknown cache"):
            lab.build(lab.context(FILES), TEXT, **{which: cache("type=floppy,ref=x")})
    with pytest.raises(UsageError, match="unknown cache mode"):
        lab.build(lab.context(FILES), TEXT, cache_to=cache("type=registry,ref=a,mode=med"))
    with pytest.raises(UsageError, match="type required"):
        cache("ref=a,mode=min")


@row("RCH-07", "RCH-06")
@pytest.mark.parametrize("how", ["argument", "flag"])
def test_an_image_carries_its_cache(many: Machines, daemon: str, how: str) -> None:
    lab, other = many.new(), many.new()
    ref = f"{daemon}/app/inline:{how}"
    wanted: dict[str, Any] = {"cache_to": cache("type=inline")}
    if how == "argument":
        wanted = {"build_args": (("BUILDKIT_INLINE_CACHE", "1"),)}
    built = Built(lab, lab.build(lab.context(FILES), TEXT, outputs=pushed(ref), **wanted))
    records = inline_records(built.json)
    numbers = sorted(result["layer"] for record in records for result in record.get("layers", ()))
    assert numbers == [1, 2, 3], "layers of the image, counted from its bottom"
    second = other.build(other.context(FILES), TEXT, cache_from=cache(ref), **wanted)
    assert ran(other) == []
    assert second.image_id == str(built.id)
    plain = lab.build(
        lab.context(FILES), TEXT + "ENV PLAIN=1\n", build_args=(("BUILDKIT_INLINE_CACHE", "0"),)
    )
    assert "moby.buildkit.cache.v0" not in Built(lab, plain).json


@row("RCH-06")
def test_every_image_of_an_index(many: Machines, daemon: str) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY src /$TARGETARCH\n"
    lab, other = many.new(), many.new()
    ref, both = f"{daemon}/app/multi:1", ("linux/amd64", "linux/arm64")
    inline = cache("type=inline")
    first = lab.build(lab.context(FILES), text, platforms=both, outputs=pushed(ref), cache_to=inline)
    second = other.build(other.context(FILES), text, platforms=both, cache_from=cache(ref), cache_to=inline)
    assert ran(other) == []
    assert first.digest == second.digest


@row("RCH-06")
def test_a_manifest_that_does_not_say_its_type(many: Machines, tmp_path: Path) -> None:
    from tests.support.machines import LayoutCache

    lab, other = many.new(), many.new()
    place = tmp_path / "cache"
    lab.build(lab.context(FILES), TEXT, cache_to=cache(f"type=local,dest={place}"))
    value = LayoutCache(place).manifest
    with running_registry() as registry:
        host = registry.host
        for entry in (value["config"], *value["layers"]):
            registry.put_blob("c", (place / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
        media_type = value.pop("mediaType")
        registry.put_manifest("c", "latest", json.dumps(value).encode(), media_type)
        other.build(other.context(FILES), TEXT, cache_from=cache(f"{host}/c"))
    assert ran(other) == []
    shown = statuses(other, f"importing cache manifest from {host}/c:latest")
    assert f"inferred cache manifest type: {media_type}" in shown


@row("RCH-15")
def test_two_machines_export_to_one_name(many: Machines, daemon: str) -> None:
    place = f"type=registry,ref={daemon}/app/shared"
    two = "FROM busybox\nRUN echo two > /two\n"
    lab, second, third = many.new(), many.new(), many.new()
    lab.build(lab.context(FILES), TEXT, cache_to=cache(place))
    second.build(second.context(FILES), two, cache_to=cache(place))
    for text in (TEXT, two):
        third.build(third.context(FILES), text, cache_from=cache(place))
        assert ran(third) == []


@row("RCH-18")
def test_an_import_is_exported_again(many: Machines, daemon: str) -> None:
    """What the second machine never had to fetch goes on to the third."""
    lab, second, third = many.new(), many.new(), many.new()
    one, two = (f"type=registry,ref={daemon}/app/{name}" for name in ("first", "second"))
    lab.build(lab.context(FILES), TEXT, cache_to=cache(one + ",mode=max"))
    nothing = (OutputSpec(type="cacheonly"),)
    second.build(
        second.context(FILES), TEXT, cache_from=cache(one), cache_to=cache(two + ",mode=max"), outputs=nothing
    )
    assert ran(second) == []
    changed = TEXT.replace("COPY --from=one /one /one", "COPY --from=one /one /two")
    third.build(third.context(FILES), changed, cache_from=cache(two))
    assert ran(third) == ["COPY --from=one /one /two"]


@row("SLV-06", "SLV-08")
def test_the_newest_result_counts_then_the_order_of_imports(many: Machines, daemon: str) -> None:
    text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n"
    seen: dict[str, str] = {}
    for name in ("old", "new"):
        lab = many.new()
        built = Built(lab, lab.build(lab.context(), text, cache_to=cache(f"{daemon}/age/{name}")))
        seen[name] = built.read("id")
    for order in (("old", "new"), ("new", "old")):
        other = many.new()
        built = Built(
            other, other.build(other.context(), text, cache_from=cache(*(f"{daemon}/age/{n}" for n in order)))
        )
        assert built.read("id") == seen["new"]
    own = Built(lab, lab.build(lab.context(), text + "LABEL a=b\n", cache_from=cache(f"{daemon}/age/old")))
    assert own.read("id") == seen["new"], "what is here is not looked for elsewhere"


@row("SLV-08")
def test_nothing_is_asked_when_all_is_here(many: Machines) -> None:
    lab = many.new()
    context = lab.context(FILES)
    lab.build(context, TEXT)
    with running_registry() as registry:
        host = registry.host
        lab.build(context, TEXT, cache_from=cache(f"{host}/c"), outputs=(OutputSpec(type="image"),))
        assert registry.seen == []
        lab.build(context, TEXT + "RUN true\n", cache_from=cache(f"{host}/c"))
        assert ran(lab) == ["RUN true"]
        assert registry.seen != []


@row("RCH-14", "SLV-06")
def test_a_registry_that_breaks_off(many: Machines) -> None:
    lab, other = many.new(), many.new()
    with running_registry() as registry:
        host = registry.host
        lab.build(lab.context(FILES), TEXT, cache_to=cache(f"{host}/c"))
        registry.faults.append(Fault(match="GET .*/blobs/", corrupt=True, times=10_000))
        second = other.build(other.context(FILES), TEXT, cache_from=cache(f"{host}/c"))
        assert len(ran(other)) == 4
        assert second.image_id
        registry.faults.clear()
        registry.faults.append(Fault(match="GET .*/manifests/", status=500, times=10_000))
        third = many.new()
        third.build(third.context(FILES), TEXT, cache_from=cache(f"{host}/c"))
        assert len(ran(third)) == 4
        assert "cannot import the cache" in warned(third)


@row("RCH-13")
def test_a_registry_that_refuses(many: Machines) -> None:
    lab = many.new()
    with running_registry() as registry:
        host = registry.host
        registry.faults.append(Fault(match="(POST|PUT|HEAD) ", status=403, times=10_000))
        context = lab.context(FILES)
        result = lab.build(context, TEXT, cache_to=cache(f"type=registry,ref={host}/c,ignore-error=true"))
        assert result.image_id
        assert "exporting cache to registry failed" in warned(lab)
        with pytest.raises(PybuildError):
            lab.build(context, TEXT, cache_to=cache(f"type=registry,ref={host}/c"))


@row("RCH-08")
def test_credentials(many: Machines) -> None:
    lab = many.new()
    with running_registry() as registry:
        host = registry.host
        registry.auth = "bearer"
        config = RegistryConfig(
            docker=DockerConfig(auths=((host, Credentials(username="ada", password="secret")),)),
            retry_waits_s=(),
        )
        spec = cache(f"type=registry,ref={host}/c")
        lab.build(lab.context(FILES), TEXT, cache_to=spec, registry=lambda: config)
        other = many.new()
        other.build(other.context(FILES), TEXT, cache_from=spec, registry=lambda: config)
        assert ran(other) == []
        third = many.new()
        third.build(third.context(FILES), TEXT, cache_from=spec)
        assert len(ran(third)) == 4


def test_a_hostile_cache(many: Machines) -> None:
    """Links to other addresses are not followed, names of files stay inside, sizes are bounded."""
    lab, other = many.new(), many.new()
    with running_registry() as registry:
        host = registry.host
        lab.build(lab.context(FILES), TEXT, cache_to=cache(f"{host}/c"))
        media_type, data = registry.manifests["c", registry.tags["c", "latest"]]
        for change in ("size", "urls", "type", "annotations"):
            value = json.loads(data)
            for layer in value["layers"]:
                _spoil(layer, change, host)
            registry.put_manifest("c", "latest", json.dumps(value).encode(), media_type)
            registry.seen.clear()
            other = many.new()
            result = other.build(other.context(FILES), TEXT, cache_from=cache(f"{host}/c"))
            assert result.image_id
            assert registry.count("GET", "/evil") == 0
            assert len(ran(other)) == (4 if change in ("size", "annotations") else 0), change


def _spoil(layer: dict[str, Any], change: str, host: str) -> None:
    if change == "size":
        layer["size"] = 1 << 60
    elif change == "urls":
        layer["urls"] = [f"http://{host}/evil"]
    elif change == "type":
        layer["mediaType"] = "application/x-../../etc"
    else:
        layer["annotations"] = {
            "containerd.io/uncompressed": "../../../etc/passwd",
            "buildkit/createdat": "9" * 5000,
        }
