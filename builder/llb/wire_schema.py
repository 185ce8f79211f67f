"""BuildKit's protobuf messages as a table, and the classes made of it at run time (OPM-01…11, DIG-01…07).

A line is one message: ``number name type`` of every field, separated by commas. ``*`` behind a type means
repeated, ``map:T`` a map from text to T, and ``|group`` puts a field into a oneof. Enumerations are numbers.
The door to protobuf, which is imported on first use.
"""

from __future__ import annotations

import functools
from typing import Any

PACKAGE = "pb"

MESSAGES = {
    "Op": "1 inputs Input*, 2 exec ExecOp|op, 3 source SourceOp|op, 4 file FileOp|op, 5 build BuildOp|op,"
    " 6 merge MergeOp|op, 7 diff DiffOp|op, 8 passthrough PassthroughOp|op,"
    " 10 platform Platform, 11 constraints WorkerConstraints",
    "Input": "1 digest string, 2 index int64",
    "Platform": "1 Architecture string, 2 OS string, 3 Variant string, 4 OSVersion string,"
    " 5 OSFeatures string*",
    "WorkerConstraints": "1 filter string*",
    "ExecOp": "1 meta Meta, 2 mounts Mount*, 3 network int32, 4 security int32, 5 secretenv SecretEnv*,"
    " 6 cdiDevices CDIDevice*",
    "Meta": "1 args string*, 2 env string*, 3 cwd string, 4 user string, 5 proxy_env ProxyEnv,"
    " 6 extraHosts HostIP*, 7 hostname string, 9 ulimit Ulimit*, 10 cgroupParent string,"
    " 11 removeMountStubsRecursive bool, 12 validExitCodes int32*",
    "ProxyEnv": "1 http_proxy string, 2 https_proxy string, 3 ftp_proxy string, 4 no_proxy string,"
    " 5 all_proxy string",
    "HostIP": "1 Host string, 2 IP string",
    "Ulimit": "1 Name string, 2 Soft int64, 3 Hard int64",
    "SecretEnv": "1 ID string, 2 name string, 3 optional bool",
    "CDIDevice": "1 name string, 2 optional bool",
    "Mount": "1 input int64, 2 selector string, 3 dest string, 4 output int64, 5 readonly bool,"
    " 6 mountType int32, 19 TmpfsOpt TmpfsOpt, 20 cacheOpt CacheOpt, 21 secretOpt SecretOpt,"
    " 22 SSHOpt SSHOpt, 23 resultID string, 24 contentCache int32",
    "TmpfsOpt": "1 size int64",
    "CacheOpt": "1 ID string, 2 sharing int32",
    "SecretOpt": "1 ID string, 2 uid uint32, 3 gid uint32, 4 mode uint32, 5 optional bool",
    "SSHOpt": "1 ID string, 2 uid uint32, 3 gid uint32, 4 mode uint32, 5 optional bool",
    "SourceOp": "1 identifier string, 2 attrs map:string",
    "FileOp": "2 actions FileAction*",
    "FileAction": "1 input int64, 2 secondaryInput int64, 3 output int64, 4 copy FileActionCopy|action,"
    " 5 mkfile FileActionMkFile|action, 6 mkdir FileActionMkDir|action, 7 rm FileActionRm|action,"
    " 8 symlink FileActionSymlink|action",
    "FileActionCopy": "1 src string, 2 dest string, 3 owner ChownOpt, 4 mode int32, 5 followSymlink bool,"
    " 6 dirCopyContents bool, 7 attemptUnpackDockerCompatibility bool, 8 createDestPath bool,"
    " 9 allowWildcard bool, 10 allowEmptyWildcard bool, 11 timestamp int64, 12 include_patterns string*,"
    " 13 exclude_patterns string*, 14 alwaysReplaceExistingDestPaths bool, 15 modeStr string,"
    " 16 required_paths string*",
    "FileActionMkFile": "1 path string, 2 mode int32, 3 data bytes, 4 owner ChownOpt, 5 timestamp int64",
    "FileActionMkDir": "1 path string, 2 mode int32, 3 makeParents bool, 4 owner ChownOpt, 5 timestamp int64",
    "FileActionRm": "1 path string, 2 allowNotFound bool, 3 allowWildcard bool",
    "FileActionSymlink": "1 oldpath string, 2 newpath string, 3 owner ChownOpt, 4 timestamp int64",
    "ChownOpt": "1 user UserOpt, 2 group UserOpt",
    "UserOpt": "1 byName NamedUserOpt|user, 2 byID uint32|user",
    "NamedUserOpt": "1 name string, 2 input int64",
    "MergeOp": "1 inputs MergeInput*",
    "MergeInput": "1 input int64",
    "DiffOp": "1 lower LowerDiffInput, 2 upper UpperDiffInput",
    "LowerDiffInput": "1 input int64",
    "UpperDiffInput": "1 input int64",
    "BuildOp": "1 builder int64, 2 inputs map:BuildInput, 3 def Definition, 4 attrs map:string",
    "BuildInput": "1 input int64",
    "PassthroughOp": "1 id string, 2 outputs int64*",
    "Definition": "1 def bytes*, 2 metadata map:OpMetadata, 3 Source Source",
    "OpMetadata": "1 ignore_cache bool, 2 description map:string, 4 export_cache ExportCache,"
    " 5 caps map:bool, 6 progress_group ProgressGroup, 7 linux_resources LinuxResources",
    "ExportCache": "1 Value bool",
    "ProgressGroup": "1 id string, 2 name string, 3 weak bool",
    "LinuxResources": "1 memory int64, 2 memorySwap int64, 3 cpuShares int64, 4 cpuPeriod int64,"
    " 5 cpuQuota int64, 6 cpusetCpus string, 7 cpusetMems string",
    "Source": "1 locations map:Locations, 2 infos SourceInfo*",
    "Locations": "1 locations Location*",
    "SourceInfo": "1 filename string, 2 data bytes, 3 definition Definition, 4 language string",
    "Location": "1 sourceIndex int32, 2 ranges Range*",
    "Range": "1 start Position, 2 end Position",
    "Position": "1 line int32, 2 character int32",
}

NETWORKS = ("sandbox", "host", "none")
SECURITY = ("sandbox", "insecure")
MOUNT_TYPES = ("bind", "secret", "ssh", "cache", "tmpfs")
SHARING = ("shared", "private", "locked")
CONTENT_CACHE = ("default", "on", "off")
"""Enumerations: a name's number is its place."""


@functools.cache
def messages() -> dict[str, Any]:
    """The message classes by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="ops.proto", package=PACKAGE, syntax="proto3")
    for name, text in MESSAGES.items():
        _describe(file.message_type.add(name=name), text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in MESSAGES
    }


def _describe(message: Any, text: str) -> None:
    """Fill in a message's descriptor from its line of the table."""
    for item in text.split(","):
        number, name, kind = item.split()
        kind, bar, group = kind.partition("|")
        field = message.field.add(name=name, number=int(number), json_name=name)
        repeated = kind.endswith("*") or kind.startswith("map:")
        field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        if kind.startswith("map:"):
            entry = message.nested_type.add(name=_entry_name(name))
            entry.options.map_entry = True
            _describe(entry, f"1 key string, 2 value {kind.removeprefix('map:')}")
            field.type = field.TYPE_MESSAGE
            field.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
        else:
            _set_type(field, kind.rstrip("*"))
        if bar:
            if group not in [known.name for known in message.oneof_decl]:
                message.oneof_decl.add(name=group)
            field.oneof_index = [known.name for known in message.oneof_decl].index(group)


def _set_type(field: Any, kind: str) -> None:
    if kind in MESSAGES:
        field.type = field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")


def _entry_name(field: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"
