"""The one optimiser behind every 'a real optimiser finds': L-BFGS with a strong Wolfe line search, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def lbfgs(
    objective: Callable[..., Tensor], starts: Sequence[Tensor], *, steps: int = 500, tolerance: float = 1e-13
) -> list[Tensor]:
    """Where L-BFGS comes to from `starts`, the positional arguments of `objective`, which is a scalar.

    It stops after `steps` iterations or where no entry of the gradient exceeds `tolerance`.
    """
    moving = [start.clone().requires_grad_() for start in starts]
    search = torch.optim.LBFGS(
        moving,
        max_iter=steps,
        history_size=30,
        line_search_fn="strong_wolfe",
        tolerance_grad=tolerance,
        tolerance_change=0.0,
    )

    def closure() -> Tensor:
        search.zero_grad()
        value = objective(*moving)
        torch.autograd.backward(value)
        return value

    search.step(closure)  # type: ignore[no-untyped-call]
    return [parameter.detach() for parameter in moving]
