"""Keras hook: registers tfqat's layers and losses with Keras as soon as Keras is imported, and not before.

``keras.models.load_model`` finds classes of other packages only in Keras' own registry, and importing Keras takes
seconds, which ``tfqat --help`` must not wait for. So whichever of the two is imported first, the layers are registered
right after Keras has loaded.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

REGISTERED = (
    "tfqat.rewrite.model",
    "tfqat.view.with_weights",
    "tfqat.view.repeat_batch",
    "tfqat.models.vit",
    "tfqat.models.efficientdet.fusion",
    "tfqat.detection.keras_losses",
    "tfqat.models.keras2.activations",
)


def install() -> None:
    """Registers now where Keras is loaded already, else arranges for it."""
    if hasattr(sys.modules.get("keras"), "saving"):
        _register()
    elif not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


def _register() -> None:
    for module in REGISTERED:
        importlib.import_module(module)


class _KerasFinder(MetaPathFinder):
    """Finds Keras as usual, and lets what follows its import be done by _KerasLoader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        # Stays in place until Keras is loaded: others (TensorFlow) only ask whether there is one.
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _KerasLoader(spec.loader)
        return spec


class _KerasLoader(Loader):
    """Keras' own loader, followed by the registration."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _KerasFinder)]
        _register()

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)
