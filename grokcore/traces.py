"""The trace of the Hessian of a mean loss: of one weight, or of all of them; exact, or estimated with its error."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Literal

import torch
from torch import nn
from tqdm import tqdm

from grokcore.curvature import LossFunction
from grokcore.errors import UnsuitedLayerError, UsageError
from grokcore.estimators import Estimate, hutchinson, hutchpp, xtrace
from grokcore.frozen import Batches
from grokcore.layer_flatness import layer_curvature
from grokcore.operators import HessianOperator

_ESTIMATORS = {"hutchinson": hutchinson, "hutch++": hutchpp, "xtrace": xtrace}


def hessian_trace(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    layer: str | None = None,
    *,
    method: Literal["exact", "hutchinson", "hutch++", "xtrace"] = "exact",
    probes: int = 100,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    chunk_size: int | None = None,
) -> Estimate:
    """Tr H, the sum of the second derivatives of the mean loss with respect to each parameter.

    Unlike the relative flatness it changes when a layer is scaled up and the next one down (theory A3). Never d x d
    in memory: `chunk_size` columns of the number of parameters d, and with "hutch++" and "xtrace" a few times `probes`.

    Args:
        model: any module that takes one tensor, in eval mode where it has dropout or batch norm; left as it is.
        loss_fn: ``loss_fn(output, target)``, the mean over its batch.
        batches: (input, target) pairs of tensors, read several times: a list or a DataLoader. The trace is that of
            the mean over all samples, whatever the batch sizes.
        layer: a module's name, whose ``weight`` is meant, or a parameter's; None takes every parameter that requires
            a gradient, tied ones once.
        method: "exact" takes one Hessian-vector product for each parameter, or, for a `layer` that
            :func:`grokcore.layer_relative_flatness` takes, far fewer at its pre-activations; the others are unbiased
            estimates by `probes` products: :func:`grokcore.estimators.hutchinson`,
            :func:`grokcore.estimators.hutchpp` and :func:`grokcore.estimators.xtrace`, the most accurate one where
            the spectrum decays.
        probes: Hessian-vector products in all. "hutch++" takes at least 12, "xtrace" an even number of at least 12.
        seed: of the probes; not used by "exact".
        dtype: of the products; the sums are float64.
        chunk_size: columns at once; see :class:`grokcore.operators.CurvatureOperator`.

    Returns:
        An :class:`Estimate`: of "exact" with standard error 0, no probes and no seed.

    Raises:
        UsageError: an unknown method, too few probes, an iterator in place of a list or loader, an unknown layer, no
            samples, batches that differ from pass to pass, or a model in a train mode that is random.
        NonFiniteError: a loss or a second derivative that is NaN or infinite.

    Source: the estimators' papers, in their docstrings.
    """
    if method != "exact" and method not in _ESTIMATORS:
        raise UsageError(f"method must be 'exact', {', '.join(map(repr, _ESTIMATORS))}, got {method!r}")
    if method == "exact":
        return Estimate.exact(_exact(model, loss_fn, batches, layer, dtype, chunk_size))
    operator = HessianOperator(model, loss_fn, batches, layer, dtype=dtype, chunk_size=chunk_size)
    return _ESTIMATORS[method](
        operator.__matmul__, operator.dim, probes=probes, seed=seed, device=operator.device, dtype=dtype
    )


def _exact(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    layer: str | None,
    dtype: torch.dtype,
    chunk_size: int | None,
) -> float:
    if layer is not None:
        with suppress(UnsuitedLayerError):
            return layer_curvature(model, loss_fn, batches, layer, dtype, contracted=False)
    operator = HessianOperator(model, loss_fn, batches, layer, dtype=dtype, chunk_size=chunk_size)
    starts = range(0, operator.dim, operator.chunk_size)
    total = 0.0
    for start in tqdm(starts, desc="exact trace", unit="chunk", disable=not sys.stderr.isatty(), leave=False):
        block = operator.basis(start)
        total += float((block * (operator @ block)).sum(dtype=torch.float64))
    return total
