"""RUN and its mounts: sections 7, 8 and 3 of the rows."""

from __future__ import annotations

import pytest

from builder.frontend.errors import DockerfileError
from builder.frontend.mounts import parse_mount, split_csv
from builder.llb.ops import Mount, SecretEnv, Ulimit
from tests.support.dockerfiles import converted, execs, history, names, ops


def run(line, before="", **changes):
    return execs(converted(f"FROM a\n{before}RUN {line}\n", **changes))[-1]


def mounts(flags, before="", **changes):
    return run(" ".join(f"--mount={flag}" for flag in flags) + " cmd", before, **changes).mounts[1:]


def problem(line, before=""):
    with pytest.raises(DockerfileError) as caught:
        converted(f"FROM a\n{before}RUN {line}\n")
    assert caught.value.span is not None
    return caught.value


def test_forms():
    assert run("echo a").meta.args == ("/bin/sh", "-c", "echo a")
    assert run('["a", "$b"]').meta.args == ("a", "$b")
    assert run("echo a", 'SHELL ["/bin/bash", "-ec"]\n').meta.args == ("/bin/bash", "-ec", "echo a")
    assert run("a \\\n  $b").meta.args == ("/bin/sh", "-c", "a   $b")


def test_defaults():
    op = run("a")
    assert op.mounts == (Mount(dest="/", input=0, output=0),)
    assert (op.network, op.security, op.meta.cwd, op.meta.user) == ("sandbox", "sandbox", "/", "")


def test_options_reach_every_run():
    op = run(
        "a",
        network_mode="none",
        extra_hosts=(("h", "1.2.3.4"),),
        hostname="box",
        shm_size_bytes=9,
        ulimits=(Ulimit(name="nofile", soft=1, hard=2),),
        cgroup_parent="/x",
    )
    assert op.network == "none"
    assert op.meta.extra_hosts == (("h", "1.2.3.4"),)
    assert (op.meta.hostname, op.meta.cgroup_parent) == ("box", "/x")
    assert op.mounts[1] == Mount(dest="/dev/shm", type="tmpfs", size_bytes=9)
    assert run("--network=default a", network_mode="host").network == "sandbox"
    assert run("--network=host a").network == "host"
    assert run("--security=insecure a").security == "insecure"


def test_scratch_as_root():
    found = converted('FROM scratch\nRUN ["/a"]\n')
    assert execs(found)[0].mounts[0].input == -1


# Here-documents


def test_a_lone_heredoc_is_the_shell_s_argument():
    found = converted("FROM a\nRUN <<EOF\n\necho 1\necho $2\nEOF\n")
    assert execs(found)[0].meta.args == ("/bin/sh", "-c", "\necho 1\necho $2\n")
    assert names(found)[-1] == "[2/2] RUN <<EOF (echo 1...)"
    assert history(found) == ["RUN /bin/sh -c \necho 1\necho $2\n # buildkit"]


def test_a_script_is_mounted_and_run():
    op = run("<<'EOF'\n#!/usr/bin/env python\nprint('$x')\nEOF")
    assert op.meta.args == ("/dev/pipes/EOF",)
    assert op.mounts[1] == Mount(dest="/dev/pipes/", input=1, readonly=True)
    found = converted("FROM a\nRUN <<EOF\n#!/bin/x\nEOF\n")
    (action,) = ops(found, "FileOp")[0].actions
    assert (action.action.path, action.action.mode, action.action.data) == ("/EOF", 0o755, b"#!/bin/x\n")
    assert names(found)[1] == "[internal] preparing inline document"


def test_heredocs_in_a_longer_line_are_left_to_the_shell():
    op = run("cat <<A <<-B > f\n1\nA\n\t2\n\tB")
    assert op.meta.args[2] == "cat <<A <<-B > f\n1\nA\n\t2\nB"


# Mounts


def test_bind_mounts():
    assert mounts(["target=/t"]) == (Mount(dest="/t", input=1, readonly=True),)
    assert mounts(["type=bind,source=/a/../b,dst=t,rw"], "WORKDIR /w\n") == (
        Mount(dest="/w/t", input=1, selector="/b"),
    )
    (found,) = mounts(["from=other,src=x,destination=/t,readonly=false"])
    assert (found.selector, found.readonly, found.input) == ("/x", False, 1)


def test_mount_values_are_expanded():
    (found,) = mounts(["type=cache,target=/c/$v,id=$v"], "ARG v=1\n")
    assert (found.dest, found.id) == ("/c/1", "/1")


def test_cache_mounts():
    (found,) = mounts(["type=cache,target=/root/.cache/"])
    assert found == Mount(dest="/root/.cache", type="cache", id="//root/.cache")
    (found,) = mounts(
        ["type=cache,target=/c,id=i,sharing=locked,ro"], build_args=(("BUILDKIT_CACHE_MOUNT_NS", "n"),)
    )
    assert (found.id, found.sharing, found.readonly) == ("n/i", "locked", True)


def test_a_cache_mount_with_an_owner_starts_from_such_a_directory():
    found = converted("FROM a\nRUN --mount=type=cache,target=/c,uid=5,mode=0700 r\n")
    (mount,) = execs(found)[0].mounts[1:]
    assert (mount.selector, mount.input) == ("/cache", 1)
    (action,) = ops(found, "FileOp")[0].actions
    assert (action.action.mode, action.action.owner.user.id, action.action.owner.group.id) == (0o700, 5, 0)
    assert "[internal] setting cache mount permissions" in names(found)


def test_tmpfs_mounts():
    assert mounts(["type=tmpfs,target=/t,size=64m"]) == (Mount(dest="/t", type="tmpfs", size_bytes=64 << 20),)


def test_secret_mounts():
    (found,) = mounts(["type=secret,id=a/tok"])
    assert found == Mount(
        dest="/run/secrets/tok", type="secret", id="a/tok", readonly=True, mode=0o400, optional=True
    )
    (found,) = mounts(["type=secret,target=/x/key,required,mode=0440,uid=1,gid=2"])
    assert (found.id, found.dest, found.optional, found.mode, found.uid, found.gid) == (
        "key",
        "/x/key",
        False,
        0o440,
        1,
        2,
    )
    assert mounts(["type=secret,source=s"])[0].id == "s"


def test_secrets_as_variables():
    op = run("--mount=type=secret,id=t,env=T --mount=type=secret,id=u,env=U,target=/u,required a $T")
    assert op.secret_env == (SecretEnv(id="t", name="T", optional=True), SecretEnv(id="u", name="U"))
    assert [mount.dest for mount in op.mounts[1:]] == ["/u"]
    found = converted("FROM a\nENV T=x\nRUN --mount=type=secret,id=t,env=T a $T\n")
    assert names(found)[-1].endswith("a ****")


def test_ssh_mounts():
    op = run("--mount=type=ssh --mount=type=ssh,id=x,required,target=/s a")
    assert op.mounts[1] == Mount(
        dest="/run/buildkit/ssh_agent.0", type="ssh", id="default", readonly=True, mode=0o600, optional=True
    )
    assert (op.mounts[2].dest, op.mounts[2].id, op.mounts[2].optional) == ("/s", "x", False)
    assert op.meta.env[-1] == "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"
    assert "SSH_AUTH_SOCK=mine" in run("--mount=type=ssh a", "ENV SSH_AUTH_SOCK=mine\n").meta.env


def test_mounts_are_ordered_by_target_and_inputs_are_shared():
    op = run("--mount=target=/b/c --mount=target=/a --mount=target=/b,from=x a")
    assert [(mount.dest, mount.input) for mount in op.mounts] == [("/", 0), ("/a", 1), ("/b", 2), ("/b/c", 1)]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("type=x", 'unsupported mount type "x"'),
        ("type=cahce,target=/a", 'unsupported mount type "cahce" (did you mean cache?)'),
        ("foo=bar", "unexpected key 'foo' in 'foo=bar'"),
        ("tagret=/a", "unexpected key 'tagret' in 'tagret=/a' (did you mean target?)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("target=/", 'invalid mount target "/"'),
        ("type=cache", 'invalid mount target ""'),
        ("type=tmpfs,target=/x/..", 'invalid mount target "/x/.."'),
        ("from=$x,target=/a", "'from' doesn't support variable expansion, define alias stage instead"),
        ("type=cache,target=/a,sharing=x", 'unsupported sharing value "x"'),
        ("target=/a,sharing=shared", "invalid cache sharing set for bind mount"),
        ("target=/a,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,target=/a,size=x", "invalid value for size: x"),
        ("target=/a,mode=0700", 'mode not allowed for "bind" type mounts'),
        ("type=tmpfs,target=/a,uid=1", 'uid not allowed for "tmpfs" type mounts'),
        ("type=secret,id=a,mode=9", "invalid value 9 for mode"),
        ("type=secret,id=a,uid=-1", "invalid value -1 for uid"),
        ("type=secret,id=a,required=maybe", "invalid value for required: maybe"),
        ("type=cache,target=/a,required", "unexpected key 'required' for mount type 'cache'"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=ssh,source=a", "ssh does not support source"),
        ("type=bind,env=A,target=/a", "unexpected key 'env' for mount type 'bind'"),
    ],
)
def test_refused(flag, message):
    found = problem(f"--mount={flag} a")
    assert message in found.message
    assert found.code == "bad-flag"


def test_a_bad_value_behind_a_variable_is_found_when_it_is_known():
    assert "invalid value x for uid" in problem("--mount=type=secret,id=a,uid=$v b", "ARG v=x\n").message


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a,b", ["a", "b"]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a""b"', ['a"b']),
        ("a,", ["a", ""]),
    ],
)
def test_csv(text, fields):
    assert split_csv(text) == fields


@pytest.mark.parametrize("text", ['a"b', '"a', '"a"b,c'])
def test_bad_csv(text):
    with pytest.raises(DockerfileError):
        split_csv(text)


@pytest.mark.parametrize(
    ("size", "expected"),
    [("1", 1), ("1k", 1024), ("1.5K", 1536), ("2g", 2 << 30), ("3MB", 3 << 20), ("1 kib", 1024)],
)
def test_sizes(size, expected):
    assert parse_mount(f"type=tmpfs,target=/a,size={size}").size_bytes == expected


def test_history_lists_declared_arguments():
    found = converted("FROM a\nARG x=1 y\nARG z=3 x=4\nENV z=5\nRUN r\n")
    assert history(found)[-1] == "RUN |3 x=4 y= z=5 /bin/sh -c r # buildkit"


def test_names_expand_for_display_but_keep_quotes():
    found = converted("FROM a AS b\nARG v=1\nrun echo  \"$v\" '$v' $u \\$v\n")
    assert names(found)[-1] == "[2/2] RUN echo  \"1\" '$v' $u \\$v"
    vertex = found.definition.vertices[-1]
    assert vertex.meta.command == "run echo  \"$v\" '$v' $u \\$v"
    assert (vertex.meta.source.filename, vertex.meta.source.start) == ("Dockerfile", 3)


def test_step_numbers_are_aligned():
    found = converted("FROM a AS b\n" + "RUN r\n" * 11 + "FROM scratch\nCOPY --from=b x y\n")
    assert names(found)[1] == "[b  2/12] RUN r"
    assert names(found)[-1] == "[stage-1 1/1] COPY --from=b x y"
