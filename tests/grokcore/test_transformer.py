"""EquationTransformer against a model written out token by token and head by head, and what its short cuts keep."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from grokcore import measure
from grokcore.models.transformer import EquationTransformer


@pytest.fixture(autouse=True)
def one_thread(two_threads: None) -> None:
    """The products are small."""
    torch.set_num_threads(1)


def transformer(p: int = 5, *, seed: int = 0, **more: object) -> EquationTransformer:
    torch.manual_seed(seed)
    settings = {"width": 8, "heads": 2, **more}
    model = EquationTransformer(p, p, **settings).double()  # type: ignore[arg-type]
    with torch.no_grad():  # layer norms that do something
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def batch(p: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, p, (n, 2), generator=generator), torch.randint(0, p, (n,), generator=generator)


def gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def require_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12 * largest, msg=name)


class Plain:
    """The published model, one equation and one vector at a time, on the parameters of an EquationTransformer."""

    def __init__(self, model: EquationTransformer) -> None:
        self.weights, self.depth = dict(model.named_parameters()), len(model.blocks)
        self.heads, self.p, self.causal = model.blocks[0].heads, model.operands, True

    def hidden(self, tokens: list[int]) -> list[Tensor]:
        """The last block's output at every token, each of which sees itself and those before."""
        table = self.weights["embedding.weight"]
        xs = [table[token] + self.position(place, table.shape[1]) for place, token in enumerate(tokens)]
        for block in range(self.depth):
            xs = [self.block(block, x, xs[: k + 1] if self.causal else xs) for k, x in enumerate(xs)]
        return xs

    def position(self, place: int, width: int) -> Tensor:
        wave = [(math.cos if i % 2 else math.sin)(place / 10_000.0 ** (2 * (i // 2) / width)) for i in range(width)]
        return torch.tensor(wave, dtype=torch.float32).double()  # stored as float32

    def block(self, index: int, x: Tensor, seen: list[Tensor]) -> Tensor:
        def named(name: str) -> Tensor:
            return self.weights[f"blocks.{index}.{name}"]

        fused, width, size = named("queries_keys_values.weight"), len(x), len(x) // self.heads
        parts = []
        for head in range(self.heads):
            wq, wk, wv = (fused[k * width + head * size : k * width + (head + 1) * size] for k in range(3))
            masses = [torch.exp((wq @ x) @ (wk @ y) / math.sqrt(size)) for y in seen]
            parts.append(sum(mass / sum(masses) * (wv @ y) for mass, y in zip(masses, seen, strict=True)))
        x = self.norm(
            x + named("out.weight") @ torch.cat(parts), named("attention_norm.weight"), named("attention_norm.bias")
        )
        raised = named("up.weight") @ x
        x = x + named("down.weight") @ torch.where(raised > 0, raised, torch.zeros_like(raised))
        return self.norm(x, named("norm.weight"), named("norm.bias"))

    @staticmethod
    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        centred = x - x.sum() / len(x)
        return centred / torch.sqrt((centred**2).sum() / len(x) + 1e-5) * scale + shift

    def equation(self, operands: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden vectors at = and at the answer of <eos> a op b = c."""
        eos, operation, equals = self.p, self.p + 1, self.p + 2
        a, b = operands.tolist()
        hidden = self.hidden([eos, a, operation, b, equals, int(answer)])
        return hidden[4], hidden[5]

    def loss(self, inputs: Tensor, labels: Tensor, *, both: bool) -> Tensor:
        """Mean of -log p over the samples, and over the targets answer and <eos> where there are both."""
        head, terms = self.weights["head.weight"], []
        for operands, label in zip(inputs, labels, strict=True):
            at_equals, at_answer = self.equation(operands, label)
            for hidden, target in [(at_equals, int(label)), (at_answer, self.p)][: 2 if both else 1]:
                logits = head @ hidden
                terms.append(torch.log(torch.exp(logits).sum()) - logits[target])
        return sum(terms) / len(terms)  # type: ignore[return-value]


def test_the_published_number_of_parameters() -> None:
    model = EquationTransformer(97, 97, vocabulary=239)
    assert sum(p.numel() for p in model.parameters()) == 455_424
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    block = {
        "queries_keys_values.weight": (384, 128),  # 3 x 4 heads x 32
        "out.weight": (128, 128),
        "attention_norm.weight": (128,),
        "attention_norm.bias": (128,),
        "up.weight": (512, 128),
        "down.weight": (128, 512),
        "norm.weight": (128,),
        "norm.bias": (128,),
    }
    expected = {f"blocks.{i}.{name}": shape for i in (0, 1) for name, shape in block.items()}
    assert shapes == {"embedding.weight": (239, 128), **expected, "head.weight": (239, 128)}
    # The answer alone: 97 rows out, 100 tokens in.
    assert sum(p.numel() for p in EquationTransformer(97, 97).parameters()) == 455_424 - (142 + 139) * 128


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("vocabulary", [None, 11])
def test_is_the_model_written_out(vocabulary: int | None, share: bool) -> None:
    model = transformer(vocabulary=vocabulary, share_prefixes=share)
    inputs, labels = batch(5, 4)
    plain = Plain(model)
    own = model.training_loss(inputs, labels)
    expected = plain.loss(inputs, labels, both=vocabulary is not None)
    torch.testing.assert_close(own.loss, expected, rtol=1e-12, atol=0)
    require_close(gradients(own.loss, model), gradients(expected, model))
    hidden = torch.stack([torch.stack(plain.equation(x, y)) for x, y in zip(inputs, labels, strict=True)])
    torch.testing.assert_close(model.features_at_targets(inputs, labels), hidden, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.features, hidden[:, 0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.logits, hidden[:, 0] @ model.head.weight.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(inputs), own.logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("change", ["sees all", "one head", "no positions", "no scale"])
def test_another_model_is_told_apart(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above would find each of these."""
    model = transformer(vocabulary=11)
    inputs, labels = batch(5, 4)
    plain = Plain(model)
    if change == "sees all":
        plain.causal = False
    elif change == "one head":
        plain.heads = 1
    elif change == "no positions":
        monkeypatch.setattr(plain, "position", lambda place, width: torch.zeros(width).double())
    else:
        plain.weights["blocks.0.attention_norm.weight"] = torch.ones(8).double()
    with torch.no_grad():
        expected = float(plain.loss(inputs, labels, both=True))
        found = float(model.training_loss(inputs, labels).loss)
    assert abs(found - expected) > 1e-5 * expected


@given(
    p=st.integers(2, 9),
    n=st.integers(1, 12),
    layers=st.integers(1, 3),
    published=st.booleans(),
    repeated=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_shared_prefixes_change_nothing(
    p: int, n: int, layers: int, published: bool, repeated: bool, seed: int
) -> None:
    shared = transformer(p, seed=seed, layers=layers, vocabulary=p + 4 if published else None)
    apart = copy.deepcopy(shared)
    apart.share_prefixes = False
    inputs, labels = batch(p, n, seed)
    if repeated:
        inputs[:, 0], inputs[n // 2 :] = inputs[0, 0], inputs[0]
    first, second = (model.training_loss(inputs, labels) for model in (shared, apart))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    require_close(gradients(first.loss, shared), gradients(second.loss, apart))


@torch.no_grad()
def test_samples_of_a_batch_do_not_meet() -> None:
    """Neither the other samples nor their order change a sample's logits."""
    model = transformer(7)
    inputs, _ = batch(7, 10)
    together = model(inputs)
    torch.testing.assert_close(together, torch.cat([model(one[None]) for one in inputs]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(inputs.flip(0)), together.flip(0), rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("share", [True, False])
def test_what_is_read_at_equals_does_not_see_the_answer(share: bool) -> None:
    model = transformer(vocabulary=11, share_prefixes=share)
    inputs, answers = batch(5, 6)
    before, after = (model.features_at_targets(inputs, given) for given in (answers, (answers + 1) % 5))
    assert torch.equal(before[:, 0], after[:, 0])
    assert float((before[:, 1] - after[:, 1]).abs().amax(dim=1).min()) > 1e-3
    # Each operand is seen at both positions, and which one is which.
    for other in (inputs + torch.tensor([1, 0]), inputs + torch.tensor([0, 1])):
        moved = (model.features_at_targets(other % 5, answers) - before).abs().amax(dim=2)
        assert float(moved.min()) > 1e-3
    assert float((model(inputs.flip(1)) - model(inputs)).abs().max()) > 1e-3


@pytest.mark.parametrize("share", [True, False])
def test_bfloat16_is_of_train_mode_alone(share: bool) -> None:
    inputs, labels = batch(11, 40)
    models = []
    for bfloat16 in (False, True):
        torch.manual_seed(0)
        models.append(EquationTransformer(11, 11, width=16, vocabulary=20, bfloat16=bfloat16, share_prefixes=share))
    exact, rough = models
    for a, b in zip(exact.parameters(), rough.parameters(), strict=True):
        assert torch.equal(a, b)
    right, found = (model.training_loss(inputs, labels) for model in models)
    assert {found.loss.dtype, found.features.dtype, found.logits.dtype} == {torch.float32}
    apart = abs(float(found.loss.detach() / right.loss.detach()) - 1)
    assert 1e-6 < apart < 1e-2
    slopes = [gradients(each.loss, model) for each, model in ((right, exact), (found, rough))]
    for name, value in slopes[0].items():
        assert slopes[1][name].dtype == torch.float32
        assert 0 < float((slopes[1][name] - value).norm()) < 0.05 * float(value.norm()), name
    for model in models:
        model.eval()
    assert torch.equal(exact(inputs), rough(inputs))
    assert torch.equal(exact.training_loss(inputs, labels).loss, rough.training_loss(inputs, labels).loss)
    reports = [measure(model.train(), [(inputs, labels)], "head", classes=11) for model in models]
    assert reports[0].to_json() == reports[1].to_json()


def test_casts_are_still_torchs() -> None:
    """No attribute hides nn.Module's own methods."""
    model = EquationTransformer(5, 5, width=8, bfloat16=True)
    assert model.bfloat16().head.weight.dtype == torch.bfloat16
    assert model.double().positions.dtype == torch.float64


def test_initial_weights() -> None:
    """torch's own: N(0, 1) embeddings, uniform projections within 1/sqrt(inputs), whatever is fused."""
    torch.manual_seed(0)
    model = EquationTransformer(97, 97, vocabulary=239)
    embedding = model.embedding.weight.detach()
    assert abs(float(embedding.mean())) < 0.02
    assert float(embedding.std()) == pytest.approx(1, abs=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            weight = module.weight.detach()
            assert 0.99 * bound < float(weight.abs().max()) <= bound
            assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
        elif isinstance(module, nn.LayerNorm):
            assert torch.equal(module.weight, torch.ones(128))
            assert torch.equal(module.bias, torch.zeros(128))
    assert "positions" not in model.state_dict()
    torch.manual_seed(0)
    again = EquationTransformer(97, 97, vocabulary=239, bfloat16=True, share_prefixes=False)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 9, "heads": 3}, "even"),
        ({"width": 8, "heads": 3}, "multiple of the heads"),
        ({"width": 0}, "width"),
        ({"heads": 0}, "heads"),
        ({"layers": 0}, "layers"),
        ({"vocabulary": 7}, "vocabulary of 7"),
        ({"answers": 6, "vocabulary": 20}, "vocabulary of 20"),
    ],
)
def test_bad_settings(settings: dict[str, int], words: str) -> None:
    answers = settings.pop("answers", 5)
    with pytest.raises(ValueError, match=words):
        EquationTransformer(5, answers, **settings)  # type: ignore[arg-type]
    assert EquationTransformer(5, 6, width=4, heads=2).head.out_features == 6  # without a vocabulary that is all right
