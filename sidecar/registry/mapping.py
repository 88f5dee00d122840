"""What an MLflow server says of a version, as a lineage; and what it says that is none."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from sidecar.errors import RegistryError
from sidecar.model.policy import Column, DataSet, FeatureSet, Lineage, Signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.model.identity import JSON
    from sidecar.registry.mlflow import DataInput, ModelVersion, Run, Tag

MAX_TYPE_CHARS: Final = 256  # what is longer is told as `object` or `array`
OWN: Final = "rmv."  # what begins so is meant for us, and has to be right
_SHA: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MLFLOW_DIGEST: Final = re.compile(r"[!-~]{1,36}")
_TRAINING: Final = frozenset({"", "train", "training"})  # of `mlflow.data.context`


class Mapped(NamedTuple):
    """A lineage, and in words what could not go into it."""

    lineage: Lineage
    notes: tuple[str, ...]


def lineage_of(
    version: ModelVersion, run: Run | None, signature: Signature | None, page: str
) -> Mapped:
    """Return the lineage of a version: tags `rmv.*` first, those of the version over the run's.

    Raises:
        RegistryError: such a tag cannot be used; the text names it.
    """
    own = _own_tags(run.data.tags if run else (), version.tags)
    of_run = _by_key(run.data.tags if run else ())
    data, notes = _training_data(run.inputs.dataset_inputs if run else (), own)
    git = of_run.get("mlflow.source.git.commit", "")
    if git and not _COMMIT.fullmatch(git):
        notes.append(f"mlflow.source.git.commit is no commit: {git[:80]}")
        git = ""
    image = _SHA.fullmatch(of_run.get("mlflow.docker.image.id", ""))
    lineage = Lineage(
        registry=page,
        run=version.run_id,
        git=own.get("git", git),
        training_data=data,
        feature_set=_feature_set(own),
        config=_own_digest(own, "config") or _config(run),
        image=_own_digest(own, "image") or (f"sha256:{image[1]}" if image else None),
        signature=signature,
        owner=own.get("owner") or version.user_id or of_run.get("mlflow.user", ""),
        created=_moment(version.creation_timestamp),
    )
    return Mapped(lineage, tuple(notes))


def signature_of(described: JSON) -> Signature | None:
    """Return the signature in the plain values of a file `MLmodel`; None where it has none.

    Raises:
        RegistryError: it has one that cannot be read.
    """
    told = described.get("signature") if isinstance(described, dict) else None
    if not isinstance(told, dict):
        return None
    try:
        return Signature(
            inputs=_columns(told.get("inputs")),
            outputs=_columns(told.get("outputs")),
            params=_columns(told.get("params")),
        )
    except (msgspec.DecodeError, TypeError, KeyError, RecursionError) as error:
        raise RegistryError(f"the signature in MLmodel cannot be read: {error}") from error


def _by_key(tags: Iterable[Tag]) -> dict[str, str]:
    return {tag.key: tag.value for tag in tags}


def _own_tags(*groups: Iterable[Tag]) -> dict[str, str]:
    """Return the values of tags `rmv.*` without that; later groups win."""
    own: dict[str, str] = {}
    for tags in groups:
        own |= {tag.key[len(OWN) :]: tag.value for tag in tags if tag.key.startswith(OWN)}
    return own


def _own_digest(own: Mapping[str, str], name: str) -> str | None:
    return _digest(own[name], f"{OWN}{name}") if name in own else None


def _digest(text: str, tag: str) -> str:
    found = _SHA.fullmatch(text)
    if found is None:
        raise RegistryError(f"the tag {tag} is no digest (sha256: and 64 digits): {text[:80]}")
    return f"sha256:{found[1]}"


def _feature_set(own: Mapping[str, str]) -> FeatureSet | None:
    told = own.get("feature_set")
    if told is None:
        return None
    service, at, digest = told.rpartition("@")
    if not at or not service:
        raise RegistryError(f"the tag {OWN}feature_set is not SERVICE@sha256:...: {told[:80]}")
    return FeatureSet(service, _digest(digest, f"{OWN}feature_set"))


def _training_data(
    inputs: Iterable[DataInput], own: Mapping[str, str]
) -> tuple[tuple[DataSet, ...], list[str]]:
    found: dict[DataSet, None] = {}  # a set in the order of the run
    notes: list[str] = []
    for one in inputs:
        tags = _by_key(one.tags)
        name, use = one.dataset.name, tags.get("mlflow.data.context", "")
        if use not in _TRAINING:
            notes.append(f"the data set {name} is for {use}: no training data")
            continue
        digest = _data_digest(one.dataset.digest, tags, name)
        if digest is None:
            notes.append(f"the data set {name} has no digest that can be told")
        else:
            found[DataSet(name, digest)] = None
    prefix = "training_data."
    for tag, value in sorted(own.items()):
        if tag.startswith(prefix):
            found[DataSet(tag[len(prefix) :], _digest(value, OWN + tag))] = None
    return tuple(found), notes


def _data_digest(told: str, tags: Mapping[str, str], name: str) -> str | None:
    tag = f"{OWN}digest"
    if tag in tags:
        return _digest(tags[tag], f"{tag} of the data set {name}")
    sha = _SHA.fullmatch(told)
    if sha is not None:
        return f"sha256:{sha[1]}"
    return f"mlflow:{told}" if _MLFLOW_DIGEST.fullmatch(told) else None


def _config(run: Run | None) -> str | None:
    """Return the digest of a run's parameters: their compact JSON, sorted by name."""
    if run is None or not run.data.params:
        return None
    canonical = msgspec.json.encode(_by_key(run.data.params), order="sorted")
    return f"sha256:{hashlib.sha256(canonical).hexdigest()}"


def _moment(milliseconds: int) -> str | None:
    if not milliseconds:
        return None
    try:
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _columns(told: JSON) -> tuple[Column, ...]:
    """Return the columns of a schema, which MLflow writes as JSON within YAML."""
    listed: JSON = msgspec.json.decode(told) if isinstance(told, str) else told
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise TypeError("a schema is a list")
    return tuple(map(_column, listed))


def _column(told: JSON) -> Column:
    if not isinstance(told, dict):
        raise TypeError("a column is a mapping")
    name = str(told.get("name") or "")
    is_optional = told.get("required") is False or told.get("default") is not None
    tensor = told.get("tensor-spec")
    if isinstance(tensor, dict):
        shape = msgspec.convert(tensor["shape"], tuple[int, ...])
        return Column(str(tensor["dtype"]), name, shape, is_optional)
    shape = msgspec.convert(told.get("shape"), tuple[int, ...] | None)
    spelled = _type(told)
    kind = spelled if len(spelled) <= MAX_TYPE_CHARS else str(told["type"])
    return Column(kind, name, shape, is_optional)


def _type(told: JSON) -> str:
    """Spell a type of MLflow's: `array<string>`, `object<city: string, zip?: long>`."""
    if not isinstance(told, dict):
        raise TypeError("a type is a mapping")
    kind = str(told["type"])
    if kind == "array":
        return f"array<{_type(told['items'])}>"
    if kind == "map":
        return f"map<{_type(told['values'])}>"
    members = told.get("properties")
    if kind == "object" and isinstance(members, dict):
        spelled = (
            f"{name}{'?' if isinstance(of, dict) and of.get('required') is False else ''}: "
            f"{_type(of)}"
            for name, of in members.items()
        )
        return f"object<{', '.join(spelled)}>"
    return kind
