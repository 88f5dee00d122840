"""What the demo takes from the repository: the model containers, their data, the policy."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

import sidecar
from sidecar.cli.demo.failure import DemoError
from sidecar.errors import ConfigError
from sidecar.model.policy import Policy
from sidecar.policy import codec

MODEL = "tumor"
ROOT = Path(sidecar.__file__).parents[1]

_Document = TypeVar("_Document", bound=msgspec.Struct)


class Rows(msgspec.Struct, frozen=True):
    """Real measurements, and what each turned out to be: 1 is malignant."""

    labels: tuple[int, ...]
    rows: tuple[tuple[float, ...], ...]


class Trained(msgspec.Struct, frozen=True):
    """What a model file says of itself; `expected` is scikit-learn's own answer to each row."""

    kind: str
    holdout_accuracy: float
    expected: tuple[float, ...]


class Checkout(msgspec.Struct, frozen=True):
    """The demo's material: `trained` has one entry for each version of `policy`."""

    root: Path
    policy: Policy
    rows: Rows
    trained: dict[str, Trained]

    @property
    def server(self) -> Path:
        """The program of a model container."""
        return _server(self.root)

    def model_file(self, version: str) -> Path:
        """Return the file that a version's container loads."""
        return _model_file(self.root, version)


def load(root: Path = ROOT) -> Checkout:
    """Read the demo's material.

    Raises:
        ConfigError: it is not there, as when the package was installed from a wheel.
        PolicyError: the policy is not valid.
        DemoError: a file cannot be read as what it should be.
    """
    source = root / "policies" / f"{MODEL}.yaml"
    data = _server(root).with_name("rows.json")
    _expect(_server(root), data, source)
    policy = codec.load(source.read_bytes(), source=str(source))
    files = {version: _model_file(root, version) for version in policy.versions}
    _expect(*files.values())
    trained = {version: _read(file, Trained) for version, file in files.items()}
    return Checkout(root, policy, _read(data, Rows), trained)


def _server(root: Path) -> Path:
    return root / "deploy" / "demo" / "model_server.py"


def _model_file(root: Path, version: str) -> Path:
    return _server(root).parent / "models" / f"{version}.json"


def _expect(*files: Path) -> None:
    for file in files:
        if not file.is_file():
            msg = (
                f"the demo runs from a checkout of the repository (`make demo`): there is no {file}"
            )
            raise ConfigError(msg)


def _read(file: Path, kind: type[_Document]) -> _Document:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        msg = f"{file}: {error}"
        raise DemoError(msg) from error
