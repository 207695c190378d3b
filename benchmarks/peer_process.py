"""What public libraries compute, on request: run by :mod:`benchmarks.peers`, which alone has them on the path.

Each request is a line ``{"name": ..., "count": ...}`` of JSON, each answer one with the seconds that so many calls
took and the value of one.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable

import curvlinops
import torch
from backpack import backpack, extend
from backpack.extensions import DiagGGNExact
from torch import nn

from benchmarks.layer import LAYER, WIDTH, case, with_factor
from benchmarks.timing import stopwatch


def works(device: torch.device) -> dict[str, Callable[[], float]]:
    """Kappa of the layer by what each library has."""
    model, inputs, target = case(WIDTH, device)
    stretched = with_factor(model, LAYER)
    weight, factor = model.get_parameter(f"{LAYER}.weight"), stretched.get_parameter(f"{LAYER}.weight")
    # One column a direction W[:, k] e_j^T.
    columns = torch.einsum("sk,jl->sjkl", weight.detach(), torch.eye(WIDTH, device=device)).flatten(2)
    loss, data = nn.CrossEntropyLoss(), [(inputs, target)]

    def operator() -> float:
        ggn = curvlinops.GGNLinearOperator(model, loss, [weight], data, check_deterministic=False)
        (products,) = ggn @ [columns]
        return float((products * columns).sum())

    def ekfac() -> float:
        # With the whole Fisher matrix as its type the corrected eigenvalues are the diagonal in some basis: their
        # sum is the trace, exactly.
        approximation = curvlinops.EKFACLinearOperator(
            stretched, loss, [factor], data, check_deterministic=False, fisher_type=curvlinops.FisherType.TYPE2
        )
        return float(approximation.trace)

    extended, extended_loss = extended_copy(stretched)

    def diagonal() -> float:
        found = extended_loss(extended(inputs), target)
        with backpack(DiagGGNExact()):
            found.backward()
        return float(extended.get_parameter(f"{LAYER}.weight").diag_ggn_exact.sum())  # type: ignore[attr-defined]

    return {"operator": operator, "ekfac": ekfac, "diagonal": diagonal}


def extended_copy(model: nn.Sequential) -> tuple[nn.Module, nn.Module]:
    """A copy that BackPACK hooks into, of which the factor alone is differentiated, and its loss."""
    twin = copy.deepcopy(model)
    for name, value in twin.named_parameters():
        value.requires_grad_(name == f"{LAYER}.weight")
    return extend(twin), extend(nn.CrossEntropyLoss())


def main() -> None:
    """Answer until nobody asks."""
    # Whatever a library prints is no answer.
    answers, sys.stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w"), sys.stderr
    threads, device = int(sys.argv[1]), torch.device(sys.argv[2])
    torch.set_num_threads(threads)
    known = works(device)
    for line in sys.stdin:
        asked = json.loads(line)
        values: list[float] = []
        seconds = stopwatch(lambda: values.append(known[asked["name"]]()), device)(asked["count"])  # noqa: B023
        print(json.dumps({"seconds": seconds, "value": values[-1]}), file=answers, flush=True)


if __name__ == "__main__":
    main()
