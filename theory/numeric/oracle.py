"""The numeric channel: quantities from exact Hessians of explicit small heads, by automatic differentiation.

Nothing here knows a closed form. `head_hessian` differentiates the mean loss forward over reverse;
`kappa_matrix_free` uses Hessian-vector products, reverse over reverse, and forms no Hessian.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grokcore.curvature import LossFunction, exact_hessian, parameter_name
from theory.numeric.configurations import Head


def mean_squared_loss(output: Tensor, target: Tensor) -> Tensor:
    """(1/2)||f(x) - y||^2 summed over outputs, mean over samples; labels are turned into one-hot targets."""
    if not target.is_floating_point():
        target = nn.functional.one_hot(target, output.shape[1]).to(output.dtype)
    return (output - target).square().sum(dim=1).mean() / 2


LOSSES: dict[str, LossFunction] = {"cross_entropy": nn.functional.cross_entropy, "squared": mean_squared_loss}


def as_module(head: Head) -> nn.Linear:
    """The head as a linear layer in float64."""
    K, m = head.weight.shape
    module = nn.Linear(m, K, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(head.weight)
        module.bias.copy_(head.bias)
    return module


def head_hessian(head: Head, loss: str = "cross_entropy") -> Tensor:
    """The Hessian of the mean loss with respect to W, shape (K, m, K, m)."""
    return exact_hessian(as_module(head), LOSSES[loss], [(head.features, head.labels)], "weight")


def kappa_of_hessian(hessian: Tensor, weight: Tensor) -> float:
    """The definition: sum over s, t of <w_s, w_t> Tr(H_st)."""
    return float(torch.einsum("sjtj,st->", hessian, weight @ weight.T))


def kappa_by_hessian(head: Head, loss: str = "cross_entropy") -> float:
    """Relative flatness from the dense Hessian and the definition alone."""
    return kappa_of_hessian(head_hessian(head, loss), head.weight)


def kappa_matrix_free(head: Head, loss: str = "cross_entropy") -> float:
    """Relative flatness as the sum of <WZ, H[WZ]> over the m^2 unit matrices Z, by Hessian-vector products."""
    weight = head.weight.clone().requires_grad_()
    value = LOSSES[loss](head.features @ weight.T + head.bias, head.labels)
    (gradient,) = torch.autograd.grad(value, weight, create_graph=True)
    m = weight.shape[1]
    directions = torch.einsum("sa,jk->ajsk", head.weight, torch.eye(m, dtype=torch.float64)).reshape(m * m, -1, m)
    (products,) = torch.autograd.grad(gradient, weight, directions, is_grads_batched=True)
    return float((directions * products).sum())


def layer_kappa(model: nn.Module, loss_fn: LossFunction, inputs: Tensor, targets: Tensor, layer: str) -> float:
    """Relative flatness of any layer of any model, from its dense Hessian and the definition."""
    hessian = exact_hessian(model, loss_fn, [(inputs, targets)], layer)
    return kappa_of_hessian(hessian, model.get_parameter(parameter_name(model, layer)).detach())
