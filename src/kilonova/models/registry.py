"""Which models there are: the shipped family, the user's imports, and directories named for one run."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import platformdirs

from kilonova.core.config import parse_config
from kilonova.core.errors import CheckpointError, ConfigError, KilonovaError, ModelNotFound, nearest
from kilonova.core.types import Modality

METADATA_FILE = "kilonova.toml"
ADAPTER_FILE = "adapter_config.json"
# What tells a folder of components, as diffusers has them, from a Hugging Face directory.
PIPELINE_FILE = "model_index.json"
_SHIPPED = Path(__file__).parents[1] / "weights"
_BEDROCK_ID = re.compile(r"[a-z0-9-]+\.[a-z0-9.:-]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What `kilonova.toml` in a model directory may say; what it leaves out follows from `config.json`.

    Lengths are in tokens, and for models of text alone. Without modalities a Hugging Face directory reads and writes
    text, and a folder of components makes pictures of text and pictures. `created` is the day of the weights. `base` is
    for adapters alone: the name of the model that one belongs to, where its `adapter_config.json` does not tell.
    """

    name: str
    base: str | None = None
    aliases: tuple[str, ...] = ()
    display_name: str | None = None
    provider: str = "custom"
    description: str = ""
    input_modalities: tuple[Modality, ...] | None = None
    output_modalities: tuple[Modality, ...] | None = None
    context_length: int | None = None
    max_output_tokens: int | None = None
    created: date | None = None


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model that can be served: its names, its directory, and what protocols tell about it.

    `context_length` bounds prompt and output together, `max_output_tokens` the output; both are in tokens, and 0 for
    what writes no text. `base` is set for an adapter, which is a PEFT directory: the name of the model it is served
    with.
    """

    name: str
    directory: Path
    aliases: tuple[str, ...]
    display_name: str
    provider: str
    description: str
    input_modalities: tuple[Modality, ...]
    output_modalities: tuple[Modality, ...]
    context_length: int
    max_output_tokens: int
    created: datetime
    base: str = ""

    @property
    def adapter(self) -> str:
        """The name under which the engine of its base knows it; empty for a whole model."""
        return self.name if self.base else ""

    @property
    def makes_pictures(self) -> bool:
        """Whether it makes pictures, and no text."""
        return "text" not in self.output_modalities

    @property
    def bedrock_id(self) -> str:
        """The first of its names that has the form of a Bedrock model id, `provider.model`, else its name."""
        return next((name for name in (self.name, *self.aliases) if _BEDROCK_ID.fullmatch(name)), self.name)

    @classmethod
    def from_directory(cls, directory: str | Path, name: str | None = None) -> ModelEntry:
        """Describe a Hugging Face directory, or a folder of components as diffusers has them.

        Under a `name` of one's own the aliases in its `kilonova.toml` are left out; without one and without that file
        the directory's name serves. Raises CheckpointError or ConfigError with the path at fault.
        """
        directory = Path(directory).resolve()
        if is_adapter(directory):
            raise CheckpointError(
                f"{directory} is an adapter: `kilonova serve --adapter` serves it beside its base, and "
                "`kilonova models merge` makes a model of both"
            )
        metadata = _read_metadata(directory, name)
        is_pipeline = (directory / PIPELINE_FILE).is_file()
        context_length, max_output_tokens = (0, 0) if is_pipeline else _lengths(directory, metadata)
        return cls(
            name=metadata.name,
            directory=directory,
            aliases=metadata.aliases,
            display_name=metadata.display_name or metadata.name,
            provider=metadata.provider,
            description=metadata.description,
            input_modalities=metadata.input_modalities or (("text", "image") if is_pipeline else ("text",)),
            output_modalities=metadata.output_modalities or (("image",) if is_pipeline else ("text",)),
            context_length=context_length,
            max_output_tokens=max_output_tokens,
            created=_created(metadata, directory / (PIPELINE_FILE if is_pipeline else "config.json")),
        )


class Registry:
    """Models by exact name or alias: the shipped ones, those of text first, the imported ones, then
    `named_directories`; then adapters.

    A later entry takes over the names it claims: it replaces an earlier entry of its own name and inherits that
    entry's aliases, and it takes single aliases away from others. Adapters are the imported ones, then those of
    `adapters`: the name of the base, which may be empty where the directory tells it, and the directory. `unusable`
    tells, by name, why an imported model cannot be used; asking for one raises ModelNotFound with the reason. A shipped
    or named directory that cannot be used raises CheckpointError, ConfigError or ModelNotFound at once.
    """

    def __init__(
        self,
        named_directories: Mapping[str, str | Path] | None = None,
        adapters: Mapping[str, tuple[str, Path]] | None = None,
        *,
        home: str | Path | None = None,
    ) -> None:
        self.unusable: dict[str, str] = {}
        self._entries: dict[str, ModelEntry] = {}
        shipped = [ModelEntry.from_directory(file.parent) for file in sorted(_SHIPPED.glob(f"*/{METADATA_FILE}"))]
        for entry in sorted(shipped, key=lambda entry: entry.makes_pictures):
            self._add(entry)
        imported = _imported(models_home() if home is None else Path(home))
        for directory in imported:
            if is_adapter(directory):
                continue
            try:
                self._add(ModelEntry.from_directory(directory, name=directory.name))
            except KilonovaError as error:
                self.unusable[directory.name] = str(error)
        for name, path in (named_directories or {}).items():
            self._add(ModelEntry.from_directory(Path(path).expanduser(), name=name))
        self._by_name = {name: entry for entry in self._entries.values() for name in (entry.name, *entry.aliases)}
        for directory in filter(is_adapter, imported):
            try:
                self._add_adapter(self.adapter_entry(directory, directory.name))
            except KilonovaError as error:
                self.unusable[directory.name] = str(error)
        for name, (base, path) in (adapters or {}).items():
            self._add_adapter(self.adapter_entry(Path(path).expanduser(), name, base))

    def _add(self, entry: ModelEntry) -> None:
        replaced = self._entries.pop(entry.name, None)
        if replaced is not None:
            entry = replace(entry, aliases=tuple(dict.fromkeys((*entry.aliases, *replaced.aliases))))
        claimed = {entry.name, *entry.aliases}
        if taken := claimed & self._entries.keys():
            raise ConfigError(f"{entry.directory / METADATA_FILE}: aliases: {min(taken)!r} is another model's name")
        for other in list(self._entries.values()):
            kept = tuple(alias for alias in other.aliases if alias not in claimed)
            self._entries[other.name] = replace(other, aliases=kept)
        self._entries[entry.name] = entry

    def _add_adapter(self, entry: ModelEntry) -> None:
        known = self._by_name.get(entry.name)
        if known is not None and not known.base:
            raise ConfigError(f"adapter {entry.name!r}: a model has this name already; choose another")
        self.unusable.pop(entry.name, None)
        self._entries[entry.name] = self._by_name[entry.name] = entry

    def adapter_entry(self, directory: str | Path, name: str, base: str = "") -> ModelEntry:
        """Describe a PEFT directory of a model in this registry, the one named `base` or else the one it names itself.

        Raises CheckpointError, ConfigError, or ModelNotFound for the base.
        """
        directory = Path(directory).resolve()
        metadata = _read_metadata(directory, name)
        config = _read_json(directory / ADAPTER_FILE)
        if base or metadata.base:
            model = self.get(base or metadata.base or "")
        else:
            model = self._stated_base(directory, config.get("base_model_name_or_path"))
        if model.base:
            raise ConfigError(f"{directory}: its base {model.name!r} is an adapter itself, of {model.base!r}")
        return replace(
            model,
            name=name,
            directory=directory,
            aliases=(),
            display_name=metadata.display_name or name,
            provider=metadata.provider,
            description=metadata.description,
            created=_created(metadata, directory / ADAPTER_FILE),
            base=model.name,
        )

    def _stated_base(self, directory: Path, stated: object) -> ModelEntry:
        if isinstance(stated, str) and stated:
            if stated in self._by_name:
                return self._by_name[stated]
            path = Path(stated).expanduser().resolve()
            for entry in self._entries.values():
                if entry.directory == path:
                    return entry
        raise ConfigError(
            f"{directory / ADAPTER_FILE}: base_model_name_or_path: {stated!r} is no model here; say which is its base"
        )

    def entries(self) -> tuple[ModelEntry, ...]:
        """Every model once, in the order they were added."""
        return tuple(self._entries.values())

    def get(self, name: str) -> ModelEntry:
        """The model whose name or alias is exactly `name`; ModelNotFound suggests the nearest."""
        entry = self._by_name.get(name)
        if entry is not None:
            return entry
        if name in self.unusable:
            raise ModelNotFound(f"model {name!r} cannot be used: {self.unusable[name]}")
        hint = nearest(name, self._by_name) if self._by_name else "there are no models; import one first"
        raise ModelNotFound(f"no model {name!r}: {hint}")


def models_home() -> Path:
    """Where imported models live: `$KILONOVA_HOME/models`, or the user's data directory."""
    home = os.environ.get("KILONOVA_HOME")
    return (Path(home) if home else platformdirs.user_data_path("kilonova", appauthor=False)) / "models"


def check_name(name: str) -> str:
    """`name` itself if it can name a model; otherwise a ConfigError that says what can."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"model name {name!r} is not allowed; use 1 to 128 letters, digits, '.', '_', ':' or '-', "
            "beginning with a letter or digit"
        )
    return name


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter and no whole model."""
    return (directory / ADAPTER_FILE).is_file() and not (directory / "config.json").is_file()


def _created(metadata: ModelMetadata, file: Path) -> datetime:
    if metadata.created is not None:
        return datetime(metadata.created.year, metadata.created.month, metadata.created.day, tzinfo=UTC)
    return datetime.fromtimestamp(int(file.stat().st_mtime), tz=UTC)


def _imported(home: Path) -> list[Path]:
    if not home.is_dir():
        return []
    return sorted(path for path in home.iterdir() if _NAME.fullmatch(path.name))


def _read_metadata(directory: Path, name: str | None) -> ModelMetadata:
    path = directory / METADATA_FILE
    if not path.exists():
        return ModelMetadata(name=check_name(directory.name if name is None else name))
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from error
    metadata = parse_config(ModelMetadata, tree, source=str(path))
    if name is not None:
        metadata = replace(metadata, name=name, aliases=())
    for each in (metadata.name, *metadata.aliases):
        check_name(each)
    return metadata


def _lengths(directory: Path, metadata: ModelMetadata) -> tuple[int, int]:
    """The context's length and the most tokens of an answer."""
    context_length = _context_length(directory)
    if metadata.context_length is not None:
        if not 1 <= metadata.context_length <= context_length:
            raise ConfigError(
                f"{directory / METADATA_FILE}: context_length: {metadata.context_length} is not between 1 and "
                f"the max_position_embeddings of config.json, {context_length}"
            )
        context_length = metadata.context_length
    max_output_tokens = context_length if metadata.max_output_tokens is None else metadata.max_output_tokens
    if not 1 <= max_output_tokens <= context_length:
        raise ConfigError(
            f"{directory / METADATA_FILE}: max_output_tokens: {max_output_tokens} is not between 1 and "
            f"the context length, {context_length}"
        )
    return context_length, max_output_tokens


def _context_length(directory: Path) -> int:
    path = directory / "config.json"
    length = _read_json(path).get("max_position_embeddings")
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise ConfigError(f"{path}: max_position_embeddings: a positive integer is needed, not {length!r}")
    return length


def _read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where the file holds something else."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    return config if isinstance(config, dict) else {}
