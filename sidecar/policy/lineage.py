"""What a version was made from: what its record may not say, and the digest that stands for it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

import msgspec

from sidecar.model.policy import Lineage
from sidecar.policy import moment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sidecar.model.policy import Column, DataSet, Policy, Version
    from sidecar.policy.problem import Finding, Findings, Path

MAX_COLUMNS: Final = 5_000  # of inputs, outputs or parameters; a document has 1 MiB for all

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_DATA_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|mlflow:[!-~]{1,36}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # of a repository of SHA-1 or SHA-256
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")  # RFC 3986 section 3
_SECRET: Final = re.compile(r"//[^/?#]*@")  # RFC 3986 section 3.2.1: who may ask, and by what word


def digest(version: Version) -> str:
    """Return `sha256:<64 hex digits>` over the canonical JSON of a version's lineage.

    Empty without a lineage. Members are sorted, and those that say nothing are left out.
    """
    if version.lineage is None:
        return ""
    canonical = msgspec.json.encode(version.lineage, order="sorted")
    return f"sha256:{hashlib.sha256(canonical).hexdigest()}"


def columns_of(policy: Policy) -> Iterator[Column]:
    """Yield all columns of a policy's versions: there may be tens of thousands."""
    for version in policy.versions.values():
        if version.lineage is not None and version.lineage.signature is not None:
            signature = version.lineage.signature
            yield from (*signature.inputs, *signature.outputs, *signature.params)


def faults(lineage: Lineage | None, at: Path) -> Findings:
    """Yield everything that is wrong with a lineage, if there is one."""
    if lineage is None:
        return
    if lineage == Lineage():
        yield at, "it says nothing: leave it out, or tell what the version was made from"
    yield from _registry(lineage.registry, (*at, "registry"))
    yield from _texts(lineage, at)
    yield from _digests(lineage, at)
    yield from _training_data(lineage.training_data, (*at, "training_data"))
    if lineage.signature is not None:
        for member in ("inputs", "outputs", "params"):
            columns: Sequence[Column] = getattr(lineage.signature, member)
            yield from _columns(columns, (*at, "signature", member))
    if lineage.created is not None:
        yield from _moment(lineage.created, (*at, "created"))


def _registry(uri: str, at: Path) -> Iterator[Finding]:
    if uri and not _URI.fullmatch(uri):
        yield at, "a URI is a scheme, a colon and visible ASCII: https://mlflow.example/..."
    elif _SECRET.search(uri):
        yield at, "a policy is no place for a user or a password: take them out of the URI"


def _texts(lineage: Lineage, at: Path) -> Iterator[Finding]:
    yield from _unprintable(lineage.run, (*at, "run"))
    yield from _unprintable(lineage.owner, (*at, "owner"))
    if lineage.git and not _COMMIT.fullmatch(lineage.git):
        yield (*at, "git"), "a commit is told by all of its 40 or 64 hexadecimal digits"


def _digests(lineage: Lineage, at: Path) -> Iterator[Finding]:
    yield from _digest(lineage.config, (*at, "config"))
    yield from _digest(lineage.image, (*at, "image"))
    features = lineage.feature_set
    if features is not None:
        yield from _unprintable(features.service, (*at, "feature_set", "service"))
        yield from _digest(features.digest, (*at, "feature_set", "digest"))


def _digest(one: str | None, at: Path) -> Iterator[Finding]:
    if one is not None and not _DIGEST.fullmatch(one):
        yield at, f'"{one[:80]}" is no digest: sha256: and 64 hexadecimal digits, lower case'


def _training_data(data: tuple[DataSet, ...], at: Path) -> Findings:
    seen: set[DataSet] = set()
    for n, one in enumerate(data):
        here: Path = (*at, n)
        yield from _unprintable(one.name, (*here, "name"))
        if not _DATA_DIGEST.fullmatch(one.digest):
            reason = "is no digest: sha256: and 64 hexadecimal digits, or mlflow: and MLflow's own"
            yield (*here, "digest"), f'"{one.digest[:80]}" {reason}'
        if one in seen:
            yield here, f'"{one.name[:80]}" of this digest is given twice'
        seen.add(one)
        yield None


def _columns(columns: Sequence[Column], at: Path) -> Findings:
    if len(columns) > MAX_COLUMNS:
        yield at, f"has {len(columns)} columns: {MAX_COLUMNS} are the most"
        return
    names: set[str] = set()
    for n, column in enumerate(columns):
        here: Path = (*at, n)
        yield from _unprintable(column.name, (*here, "name"))
        yield from _unprintable(column.type, (*here, "type"))
        if column.name and column.name in names:
            yield (*here, "name"), f'"{column.name[:80]}" is given twice'
        names.add(column.name)
        yield None


def _unprintable(text: str, at: Path) -> Iterator[Finding]:
    if not text.isprintable():
        yield at, "is no printable text: it stands in logs and on terminals"


def _moment(text: str, at: Path) -> Iterator[Finding]:
    try:
        moment.seconds(text)
    except ValueError as error:
        yield at, str(error)
