"""FROM: what a stage starts with (rows FRM-09…16)."""

from __future__ import annotations

from builder.frontend.convert.graph import Draft, Tree
from builder.frontend.convert.names import count_steps, next_name
from builder.frontend.convert.plan import base_config
from builder.frontend.convert.state import Settings, StageState
from builder.frontend.convert.types import NamedContext, ResolvedImage
from builder.frontend.errors import BadOption
from builder.frontend.gitref import parse_git_ref
from builder.frontend.lint import lint_base_platform
from builder.frontend.paths import absolute
from builder.frontend.redact import redact
from builder.llb.definition import VertexMeta
from builder.llb.ops import SourceOp
from builder.oci.config import DEFAULT_PATH, ImageConfig
from builder.oci.platform import Platform


def begin(stage: StageState) -> None:
    """Set the tree, environment and settings that the stage's instructions work on."""
    stage.steps = count_steps(stage)
    stage.ignore_cache = _ignores_cache(stage)
    if stage.base is not None:
        _continue_stage(stage, stage.base)
    else:
        config = _outside(stage)
        stage.settings = Settings(config or ImageConfig.scratch(stage.platform))
        stage.base_config = config
        stage.unknown_base = not _is_known(stage)
        _ensure_path(stage)
        if stage.settings.workdir:
            stage.set_workdir(absolute("/", stage.workdir))
    stage.env.update({key: value or "" for key, value in stage.settings.env.items()})  # ARG-06
    stage.settings.on_build = ()


def _is_known(stage: StageState) -> bool:
    context = stage.replaced or stage.base_context
    image = stage.image or (context.image if context is not None else None)
    return image is None or image.known


def _ignores_cache(stage: StageState) -> bool:
    """OPT-06."""
    wanted = stage.build.options.no_cache
    if isinstance(wanted, bool):
        return wanted and not stage.auto
    return stage.stage.name != "" and stage.stage.name in {name.lower() for name in wanted}


def _continue_stage(stage: StageState, base: StageState) -> None:
    """FRM-14."""
    stage.platform = base.platform
    stage.tree = base.tree
    stage.local = base.local
    stage.settings = Settings(base.settings.freeze(base.platform))
    stage.base_config = base.base_config
    stage.env = dict(base.env)
    stage.args = dict(base.args)
    stage.workdir_set = base.workdir_set
    stage.unknown_base = base.unknown_base


def _ensure_path(stage: StageState) -> None:
    """FRM-12."""
    if stage.platform.os != "windows" and "PATH" not in stage.settings.env:
        stage.settings.env["PATH"] = DEFAULT_PATH


def _outside(stage: StageState) -> ImageConfig | None:
    """The tree and config of a base that is no stage."""
    context = stage.replaced or stage.base_context
    if context is not None and stage.image is None:
        stage.tree = _context_tree(stage, context)
        config = base_config(stage)
        return config if config is not None else None
    image = stage.image
    if image is None:
        return None
    _adopt_platform(stage, image)
    label = "" if context is None else f"[context {context.name}] "
    stage.tree = _image_tree(stage, image, label)
    return image.config


def _adopt_platform(stage: StageState, image: ResolvedImage) -> None:
    """FRM-15, FRM-16."""
    options = stage.build.options
    actual, wanted = image.config.platform, stage.platform
    same = (actual.os, actual.architecture) == (wanted.os, wanted.architecture)
    if same or not actual.os or not actual.architecture:
        return
    implicit = stage.stage.base.platform is None and not options.platform_explicit
    known = (*options.supported_platforms, options.build_platform)
    if implicit and options.more_platforms is not None and not _listed(actual, known):
        known = options.more_platforms()
    if implicit and _listed(actual, known):
        stage.platform = actual
        return
    name = stage.base_name or image.ref
    lint_base_platform(stage.build.linter, name, actual, wanted, stage.stage.base.at)


def _listed(platform: Platform, known: tuple[Platform, ...]) -> bool:
    return any((item.os, item.architecture) == (platform.os, platform.architecture) for item in known)


def _image_tree(stage: StageState, image: ResolvedImage, label: str) -> Tree:
    """CMP-01; an image without layers is scratch (FRM-13)."""
    config = image.config
    pinned = f"{image.ref.partition('@')[0]}@{image.digest}"
    name = f"{label}{pinned}" if label else next_name(stage, f"FROM {pinned}")
    if not config.diff_ids and all(entry.empty_layer for entry in config.history):
        return None
    mode = stage.build.options.resolve_mode
    attrs = () if mode == "default" else (("image.resolvemode", mode),)
    op = SourceOp(identifier=f"docker-image://{pinned}", attrs=attrs)
    at = stage.stage.base.at
    meta = VertexMeta(name=name, command=at.text, source=at.span)
    return Draft(op, meta=meta, platform=stage.platform)


def _context_tree(stage: StageState, context: NamedContext) -> Tree:
    """A named context as a tree (CTX-08, CTX-09, CTX-11)."""
    label = f"[context {context.name}] "
    match context.kind:
        case "scratch":
            return None
        case "local":
            key = context.identifier.removeprefix("local://")
            stage.local = stage.build.local(key, f"{label}load from client")
            return stage.local.draft
        case "oci":
            if context.image is None:
                raise BadOption(f"invalid context specifier {context.identifier} for {context.name}")
            op = SourceOp(identifier=context.identifier, attrs=context.attrs)
            meta = VertexMeta(name=f"{label}OCI load from client")
            return Draft(op, meta=meta, platform=stage.platform)
        case "git" | "http" | "image":
            op = remote_op(context)
            return Draft(op, meta=VertexMeta(name=f"{label}{redact(context.identifier)}"))


def remote_op(context: NamedContext) -> SourceOp:
    """The source op of a git or http context that is given by its URL alone."""
    identifier, attrs = context.identifier, context.attrs
    if context.kind == "http" and not attrs:
        attrs = (("http.filename", "context"),)
    elif context.kind == "git" and not attrs:
        found = parse_git_ref(identifier)
        if found is None:
            raise BadOption(f"invalid git context {redact(identifier)}")
        identifier, attrs = found.identifier, found.attrs
    return SourceOp(identifier=identifier, attrs=attrs)
