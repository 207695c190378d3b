"""What the studies of test collapse and of the cascade log beside :func:`~grokcore.training.measurement_row` (paper C).

Both measure through `grokcore.measure` on whole train and test sets in eval mode, test data about the train means.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from grokcore import measure, variance_floor
from grokcore.agreement import nearest_mean
from grokcore.capture import head_features
from grokcore.geometry import ClassMoments
from grokcore.models.resnet import BasicBlock
from grokcore.training.measurement import chunks, measurement_row, set_reports
from grokcore.training.step import Trainer

OF_LAYER = ("variance_ratio", "cdnv", "nearest_mean_accuracy")
"""What the cascade logs of a layer, as ``<split>_<name>/<layer>``; on test data V and nearest means are about the train
means, and CDNV is of the test set's own."""


def collapse_on_test_data_row(trainer: Trainer, *, chunk: int) -> dict[str, float]:
    """Everything about the trainer's model now.

    Returns:
        The columns of ``measurement_row``. There ``*_nc1_trace_ratio`` is paper C's V about the set's own means, and
        ``test_variance_ratio`` V about the train means of the true class. Beside them ``*_variance_ratio_predicted``,
        V about the train means of the class that the head predicts; ``test_nearest_mean_accuracy``, the share of test
        samples whose nearest train mean is their class's; and the floors of theory F2 for the rates of the nearest
        train mean, divided by V's own denominator: ``test_floor_<about>_<known>``, about the ``train_means`` or the
        ``test_means``, with the ``confusion`` known, the ``error_rates``, or the least vertex distance too
        (``least_distance``, the statement as it stands).
    """
    sets = trainer.data.sets
    features = {s: head_features(trainer.model, trainer.head_input, x, chunk=chunk) for s, (x, _) in sets.items()}
    reports = set_reports(trainer, chunk=chunk, features=features)
    row = measurement_row(trainer, reports=reports)
    head, classes = trainer.head, trainer.data.num_classes
    for split, h in features.items():
        with torch.no_grad():
            predicted = head(h)[:, :classes].argmax(dim=1)
        about_predicted = measure(
            nn.Sequential(OrderedDict(head=head)), chunks(h, predicted, chunk), "head", reference=reports["train"],
            classes=classes,
        )  # fmt: skip
        row[f"{split}_variance_ratio_predicted"] = about_predicted.variance_ratio
    train, test = (reports[split].moments for split in ("train", "test"))
    assert train is not None
    assert test is not None
    return row | floor_columns(features["test"], sets["test"][1], train.means, test)


@torch.no_grad()
def floor_columns(features: Tensor, labels: Tensor, vertices: Tensor, own: ClassMoments) -> dict[str, float]:
    """The floors of a set of features (n, m) that should lie on the vertices (K, m), and its nearest-mean accuracy."""
    nearest, classes = nearest_mean(features, vertices.to(features.device)), len(vertices)
    confusion = torch.bincount(labels * classes + nearest, minlength=classes**2).view(classes, classes)
    floors = {
        "train_means": variance_floor(confusion, vertices, about="vertices"),
        "test_means": variance_floor(confusion, vertices, about="class_means", spread_of=own.means),
    }
    row = {"test_nearest_mean_accuracy": float((nearest == labels).double().mean())}
    for about, floor in floors.items():
        row |= {
            f"test_floor_{about}_confusion": floor.confusion_ratio,
            f"test_floor_{about}_error_rates": floor.error_rates_ratio,
            f"test_floor_{about}_least_distance": floor.least_distance_ratio,
        }
    return row


def cascade_row(trainer: Trainer, *, chunk: int) -> dict[str, float]:
    """The columns of ``measurement_row``, and those of OF_LAYER for each of `places_of` the model, first to last."""
    layers = places_of(trainer.model)
    # The train set's nearest means need its means, from a pass before.
    data = trainer.data
    about = measure(
        trainer.model, chunks(data.train_inputs, data.train_labels, chunk), trainer.head_name, layers=layers,
        classes=data.num_classes,
    )  # fmt: skip
    reports = set_reports(trainer, chunk=chunk, layers=layers, reference=about)
    row = measurement_row(trainer, reports=reports)
    for split, report in reports.items():
        for layer, found in report.layers.items():
            row |= {f"{split}_{name}/{layer}": getattr(found, name) for name in OF_LAYER}
    return row


def places_of(model: nn.Module) -> tuple[str, ...]:
    """The layers whose features are compared, first to last: a residual network's stem and blocks, or the ends of the
    stages of a ``body`` (its activations, or the pool behind one)."""
    blocks = tuple(name for name, module in model.named_modules() if isinstance(module, BasicBlock))
    if blocks:
        return ("stem", *blocks)
    body = list(model.get_submodule("body").children())
    behind: list[nn.Module | None] = [*body[1:], None]
    pools = (nn.MaxPool2d, nn.AvgPool2d)
    return tuple(
        f"body.{i}"
        for i, (module, after) in enumerate(zip(body, behind, strict=True))
        if isinstance(module, pools) or (isinstance(module, nn.ReLU) and not isinstance(after, pools)) or after is None
    )
