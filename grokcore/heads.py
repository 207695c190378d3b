"""Finding a model's linear head by name and reading what enters it."""

from __future__ import annotations

import difflib

from torch import Tensor, nn

from grokcore.errors import UsageError


def find_head(model: nn.Module, name: str) -> nn.Linear:
    """The linear layer called `name` in ``model.named_modules()``.

    Raises:
        UsageError: no such module (the message lists the linear layers), or it is not linear.
    """
    modules = dict(uncompiled(model).named_modules())
    linear = [key for key, module in modules.items() if isinstance(module, nn.Linear)]
    if name not in modules:
        near = difflib.get_close_matches(name, linear, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"the model has no module {name!r}{hint} (linear layers: {', '.join(linear) or 'none'})")
    head = modules[name]
    if not isinstance(head, nn.Linear):
        raise UsageError(
            f"the head {name!r} is a {type(head).__name__}, not a linear layer "
            f"(linear layers: {', '.join(linear) or 'none'})"
        )
    return head


def uncompiled(model: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` wrapped, whose names are the user's; else the model itself."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


class HeadInput:
    """Keeps the input of the head's latest forward pass in ``.features``, with its graph."""

    features: Tensor

    def __init__(self, head: nn.Linear) -> None:
        self._head = head

    def attach(self) -> None:
        """Start keeping, for as long as the head lives."""
        self._head.register_forward_pre_hook(self._keep)

    def take(self) -> Tensor:
        """``.features``, kept no longer: they hold the nodes of their graph, which a CUDA graph must make anew."""
        features = self.features
        del self.features
        return features

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.features = args[0]
