"""What one forward pass leaves behind: the head's input and output, and the pooled outputs of other layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from grokcore.errors import UsageError
from grokcore.heads import HeadInput, find_head, uncompiled
from grokcore.pooling import Pool, check_pool, first_tensor, pooled


@dataclass(frozen=True)
class Forward:
    """One forward pass, detached.

    Fields:
        features, logits: the head's input and output.
        layers: each layer's pooled output, in the order in which they ran.
        before_head: the layers of them that had run when the head did.
        training: whether the model was in train mode.
    """

    features: Float[Tensor, "n m"]
    logits: Float[Tensor, "n K"]
    layers: dict[str, Tensor]
    before_head: tuple[str, ...]
    training: bool


class Capture:
    """Listens to the head and to layers of a model, by hooks that leaving the context removes, on errors too.

    A training step's own pass (train mode with gradients) is passed over and costs next to nothing.

    Args:
        model: any module; of a compiled one the module inside.
        head: name of the linear head.
        layers: names of modules, in which a shell wildcard crosses dots, or ``"all"``: every module without
            children; by default none. A module named must run exactly once a forward pass and give a floating tensor
            (of several outputs the first counts) whose samples come first; a wildcard and ``"all"`` choose, at the
            first pass, the modules that do.
        pool: how an output becomes (n, m) (:func:`grokcore.pooling.pooled`).

    Raises:
        UsageError: no such head or layer, or an unknown pool.
    """

    def __init__(
        self, model: nn.Module, head: str, layers: str | Sequence[str] | None = (), pool: Pool = "mean"
    ) -> None:
        check_pool(pool)
        self._model, self._pool = uncompiled(model), pool
        self.head, self.name = find_head(model, head), head
        self._asked = (layers,) if isinstance(layers, str) else tuple(layers or ())
        self._listened = _chosen(self._model, self._asked)
        self._widths: dict[str, int] | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._paused = False
        self.forget()

    def __enter__(self) -> Capture:
        if self._handles:
            raise UsageError("already listening to this model: enter the context once")
        self.forget()
        # In this order a model that is its own head forgets the pass before, then keeps this one.
        self._handles.append(self._model.register_forward_pre_hook(self._begin))
        self._handles.append(self._model.register_forward_hook(self._end))
        self._handles.append(self.head.register_forward_hook(self._keep_head, with_kwargs=True))
        modules = dict(self._model.named_modules())
        for name in self._listened:
            self._handles.append(modules[name].register_forward_hook(self._keeper(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()
        self.forget()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Passes inside are passed over; the one before can still be taken."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def take(self, samples: int) -> Forward:
        """The forward pass since the last one was taken, checked, and forgotten here.

        Raises:
            UsageError: the head or a named layer did not run exactly once, or gives no (n, m) for n = `samples`.
        """
        if self._head_runs != 1:
            raise UsageError(self._wrong_runs())
        features, logits, found, runs = self._features, self._logits, self._outputs, self._runs
        before, training = self._before, self._training
        self.forget()
        if features.ndim != 2:
            raise UsageError(
                f"the head's input must be (n, m), got {tuple(features.shape)}: a head that sees several vectors a "
                "sample (tokens, positions) has no one feature vector to measure"
            )
        if len(features) != samples:
            raise UsageError(f"the head {self.name!r} saw {len(features)} samples, but there are {samples} labels")
        # A copy: what follows the head may write into its input, and a compiled model into its buffers.
        return Forward(features.clone(), logits, self._checked(found, runs, samples), before, training)

    def forget(self) -> None:
        """Forget the pass before, and that there were any."""
        self.passes = 0
        """The model's passes since the last that was taken or the last training step."""
        self._forget_pass()

    def _checked(self, found: dict[str, Tensor | None], runs: dict[str, int], samples: int) -> dict[str, Tensor]:
        first, layers = self._widths is None, dict[str, Tensor]()
        # In the order in which they ran.
        names = (*found, *(name for name in self._listened if name not in found)) if first else self._widths or ()
        for name in names:
            output = found.get(name)
            problem = self._problem(name, output, runs.get(name, 0), samples)
            if problem and not (first and not self._listened[name]):
                raise UsageError(f"layer {name!r} {problem}")
            if output is not None and not problem:
                layers[name] = output
        if first:
            for pattern in self._asked:
                if not any(_matches(name, pattern) for name in layers):
                    raise UsageError(f"no layer of {pattern!r} runs exactly once and gives (n, ...) floating features")
            self._widths = {name: output.shape[1] for name, output in layers.items()}
        return layers

    def _problem(self, name: str, output: Tensor | None, runs: int, samples: int) -> str:
        if runs != 1:
            return f"ran {runs} times in one forward pass, not once"
        if output is None:
            return "gives no floating tensor"
        if output.ndim != 2:
            return f"must be pooled to (n, m), got {tuple(output.shape)}"
        if len(output) != samples:
            return f"gives {len(output)} rows for {samples} samples: its samples must come first"
        if self._widths and output.shape[1] != self._widths[name]:
            return f"gives {output.shape[1]} features, {self._widths[name]} before: choose another pool"
        return ""

    def _wrong_runs(self) -> str:
        if self._head_runs:
            return (
                f"the head {self.name!r} ran {self._head_runs} times since the last labels: which input is meant? "
                "(a DataParallel model runs it once a device: measure model.module)"
            )
        return (
            f"the head {self.name!r} did not run since the last labels: the model's forward must call it, in eval "
            "mode, as train mode with gradients is a training step's (a compiled model that ran before the listening "
            "began does not tell)"
        )

    def _begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._paused:
            return
        if self._passed_over():
            # A pass before a training step that nobody asked about was not meant for a window after it.
            self.passes = 0
        self._forget_pass()

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # Not at its beginning: a pass that failed is made again.
        if not self._passed_over():
            self.passes += 1

    def _forget_pass(self) -> None:
        self._head_runs = 0
        self._runs: dict[str, int] = {}
        self._outputs: dict[str, Tensor | None] = {}

    def _passed_over(self) -> bool:
        return self._paused or (self._model.training and torch.is_grad_enabled())

    def _keep_head(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if not self._passed_over():
            self._head_runs += 1
            self._features = (args[0] if args else kwargs["input"]).detach()
            self._logits, self._training = output.detach(), self._model.training
            self._before = tuple(self._outputs)

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._passed_over() or (self._widths is not None and name not in self._widths):
                return
            tensor = first_tensor(output)
            self._runs[name] = self._runs.get(name, 0) + 1
            # At once: an activation in place may write over it next.
            self._outputs[name] = None if tensor is None else pooled(tensor, self._pool, module)

        return keep


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, and afterwards each submodule's own mode again, on errors too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _chosen(model: nn.Module, patterns: Sequence[str]) -> dict[str, bool]:
    """The modules to listen to, and whether each was asked for by its own name."""
    modules = dict(model.named_modules())
    chosen: dict[str, bool] = {}
    for pattern in patterns:
        if pattern in modules:
            chosen[pattern] = True
            continue
        names = [n for n, m in modules.items() if n and _matches(n, pattern) and (pattern != "all" or _is_leaf(m))]
        if not names:
            leaves = ", ".join(n for n, m in modules.items() if n and _is_leaf(m)) or "none"
            raise UsageError(f"the model has no layer {pattern!r} (modules without children: {leaves})")
        for name in names:
            chosen.setdefault(name, False)
    return chosen


def _matches(name: str, pattern: str) -> bool:
    return pattern == "all" or name == pattern or fnmatchcase(name, pattern)


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


@torch.no_grad()
def head_features(
    model: nn.Module, entering: HeadInput, inputs: Shaped[Tensor, "n ..."], *, chunk: int
) -> Float[Tensor, "n m"]:
    """What enters the head, in eval mode, `chunk` inputs a forward pass; `entering` is attached."""
    found = []
    with eval_mode(model):
        for part in torch.split(inputs, chunk):
            model(part)
            found.append(entering.take())
    return torch.cat(found)
