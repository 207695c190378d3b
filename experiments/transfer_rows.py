"""What the study of transfer logs (paper C): what linear probes read off each layer about the fine classes, while the
model learns the super-classes, beside the ceiling of theory F3 and the information bound of F4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn

from experiments.information_rows import bound_columns
from experiments.limits_rows import places_of
from grokcore import ClassMoments, linear_probe, transfer_ceiling
from grokcore.capture import Capture, eval_mode
from grokcore.data.split import Split
from grokcore.training.measurement import measurement_row
from grokcore.training.step import Trainer
from grokcore.training.transfer import HEAD


@dataclass(frozen=True)
class SuperSplit(Split):
    """A split whose labels are super-classes, with the fine labels that they hide."""

    train_fine: Int[Tensor, " n_train"] = field(kw_only=True)
    test_fine: Int[Tensor, " n_test"] = field(kw_only=True)
    super_of_fine: tuple[int, ...] = field(kw_only=True)
    """The super-class of each fine class."""

    @classmethod
    def of(cls, split: Split, super_of_fine: Sequence[int]) -> SuperSplit:
        """The same samples with the super-class of each label."""
        table = torch.tensor(super_of_fine)
        return cls(
            split.train_inputs, table[split.train_labels], split.test_inputs, table[split.test_labels],
            len(set(super_of_fine)), split.augmented, split.source, train_fine=split.train_labels,
            test_fine=split.test_labels, super_of_fine=tuple(super_of_fine),
        )  # fmt: skip


def transfer_row(trainer: Trainer, *, chunk: int, probed: Sequence[str] | None = None) -> dict[str, float]:
    """Everything about the trainer's model now; its data are a :class:`SuperSplit`.

    Args:
        trainer: its model and data.
        chunk: samples a forward pass takes.
        probed: the layers; by default all of ``places_of`` the model but the last, which is the head's input.

    Returns:
        The columns of ``measurement_row``, whose classes are the super-classes (V, CDNV, ...), and at each place, a
        layer or HEAD, three accuracies on the fine classes of a probe (:func:`grokcore.linear_probe`):
        ``probe_train/<place>``, fitted on the train images and tested on the same, to which F3's ceiling applies as
        they collapse; ``probe_transfer/<place>``, that probe on the test images (paper C's transfer); and
        ``probe_fresh/<place>``, fitted on one half of the test images and tested on the other: what features of images
        that the model was not trained on still tell. Then ``ceiling`` (F3, for the train images' shares);
        ``*_information_trace_<s>``, ``*_information_logdet_<s>``: F4's bounds of I(Z;Y|S), nats, at noise s B; and
        ``fine_entropy``, H(Y|S) of the train labels, nats: what there is to know.
    """
    data = trainer.data
    assert isinstance(data, SuperSplit)
    layers = tuple(places_of(trainer.model)[:-1] if probed is None else probed)
    features = {
        split: place_features(trainer.model, trainer.head_name, inputs, layers, chunk=chunk)
        for split, (inputs, _) in data.sets.items()
    }
    row = measurement_row(trainer, features={split: found[HEAD] for split, found in features.items()})
    half = halves(data.test_fine)
    for place in (*layers, HEAD):
        train, test = features["train"][place], features["test"][place]
        transfer = linear_probe(train, data.train_fine, test, data.test_fine)
        fresh = linear_probe(test[half], data.test_fine[half], test[~half], data.test_fine[~half])
        row |= {
            f"probe_train/{place}": transfer.fitted_accuracy,
            f"probe_transfer/{place}": transfer.accuracy,
            f"probe_fresh/{place}": fresh.accuracy,
        }
    row["ceiling"] = transfer_ceiling(torch.bincount(data.train_fine), data.super_of_fine)
    row["fine_entropy"] = conditional_entropy(data.train_fine, data.super_of_fine)
    for split, (_, labels) in data.sets.items():
        h = features[split][HEAD]
        moments = ClassMoments(data.num_classes, h.shape[1], scatter="per_class").update(h, labels)
        row |= {f"{split}_{name}": value for name, value in bound_columns(moments).items()}
    return row


@torch.no_grad()
def place_features(
    model: nn.Module, head: str, inputs: Tensor, layers: Sequence[str], *, chunk: int
) -> dict[str, Tensor]:
    """The features of each layer, a mean over its positions, and under HEAD those that enter the head, (n, m) each."""
    found: dict[str, list[Tensor]] = {}
    with Capture(model, head, layers) as capture, eval_mode(model):
        for part in torch.split(inputs, chunk):
            model(part)
            seen = capture.take(len(part))
            for place, values in {**seen.layers, HEAD: seen.features}.items():
                found.setdefault(place, []).append(values)
    return {place: torch.cat(values) for place, values in found.items()}


def conditional_entropy(fine: Tensor, super_of_fine: Sequence[int]) -> float:
    """H(Y|S) = H(Y) - H(S) of the fine labels (n,) in a sample, nats."""
    labels = fine.cpu(), torch.tensor(super_of_fine)[fine.cpu()]
    of_fine, of_super = (torch.distributions.Categorical(torch.bincount(each).double()).entropy() for each in labels)
    return float(of_fine - of_super)


def halves(labels: Tensor) -> Tensor:
    """A mask that holds every second sample of each class."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        chosen[torch.nonzero(labels == label).flatten()[::2]] = True
    return chosen
