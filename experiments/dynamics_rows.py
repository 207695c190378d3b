"""What the dynamics experiment logs beside :func:`~grokcore.training.measurement.measurement_row`: the quantities of
paper B's theorems, both sides of each, on the whole train and test sets in eval mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.information_rows import bound_columns, information_columns
from grokcore import ClassMoments, margin_error_bound, relative_flatness
from grokcore.capture import head_features
from grokcore.training.losses import mean_loss
from grokcore.training.measurement import measurement_row
from grokcore.training.step import Trainer

CHUNK = 5_000
"""Samples a forward pass takes while measuring."""


def measure_row(trainer: Trainer, *, chunk: int = CHUNK) -> dict[str, float]:
    """Everything about the trainer's model now.

    Args:
        trainer: its model and data.
        chunk: samples a forward pass takes.

    Returns:
        The columns of ``measurement_row`` (``*_kappa`` is that of cross-entropy on the same logits), and for train and
        test: ``*_squared_loss``, ``*_kappa_squared`` (exact kappa of the squared loss), ``*_cantelli`` and
        ``*_cantelli_directional`` (E1, E1'; the other side is 1 - accuracy), ``*_information_trace_<s>`` and
        ``*_information_logdet_<s>`` (E2's bounds of I(Z;X|Y), nats, at noise s B), ``*_margin_least`` and
        ``*_margin_mean`` (of z_y over the next logit), ``*_norm_sup`` and ``*_norm_mean`` (of features); and
        ``imbalance``, ||W_L^T W_L - W_{L-1} W_{L-1}^T||_F (D3), and ``relative_imbalance``, over the mean of the two
        products' norms, where a linear layer stands before the head, but for a ReLU; and where the config asks for
        information, the columns of :mod:`experiments.information_rows`.
    """
    data, model = trainer.data, trainer.model
    features = {
        split: head_features(model, trainer.head_input, inputs, chunk=chunk) for split, (inputs, _) in data.sets.items()
    }
    row = measurement_row(trainer, features=features)
    for split, (inputs, labels) in data.sets.items():
        found = feature_columns(features[split], labels, trainer.head, data.num_classes)
        if getattr(trainer.config, "information", False):
            found |= information_columns(features[split], inputs, labels, data.num_classes)
        row |= {f"{split}_{name}": value for name, value in found.items()}
    return row | imbalance(trainer.model, trainer.head)


@torch.no_grad()
def feature_columns(features: Tensor, labels: Tensor, head: nn.Linear, classes: int) -> dict[str, float]:
    """The columns of one set, of its features (n, m) and labels."""
    weight, bias = head.weight, head.bias
    moments = ClassMoments(classes, features.shape[1], scatter="per_class").update(features, labels)
    logits = torch.nn.functional.linear(features.double(), weight.double(), None if bias is None else bias.double())
    right = logits.gather(1, labels[:, None])[:, 0]
    margins = right - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    norms = torch.linalg.vector_norm(features.double(), dim=1)
    row = {
        "squared_loss": float(mean_loss("squared", logits, labels)),
        "kappa_squared": float(relative_flatness(features.double(), weight.double(), loss="squared")),
        "cantelli": margin_error_bound(moments, weight, bias),
        "cantelli_directional": margin_error_bound(moments, weight, bias, directional=True),
        "margin_least": float(margins.min()),
        "margin_mean": float(margins.mean()),
        "norm_sup": float(norms.max()),
        "norm_mean": float(norms.mean()),
    }
    return row | bound_columns(moments)


@torch.no_grad()
def imbalance(model: nn.Module, head: nn.Linear) -> dict[str, float]:
    """How unlike the last two layers' Gram matrices are, where the one before the head is linear too."""
    body = getattr(model, "body", None)
    linears = [module for module in body.modules() if isinstance(module, nn.Linear)] if body is not None else []
    if not linears or linears[-1].out_features != head.in_features:
        return {}
    last, before = head.weight.double(), linears[-1].weight.double()
    ours, theirs = last.T @ last, before @ before.T
    scale = (torch.linalg.matrix_norm(ours) + torch.linalg.matrix_norm(theirs)) / 2
    found = float(torch.linalg.matrix_norm(ours - theirs))
    return {"imbalance": found, "relative_imbalance": found / float(scale)}
