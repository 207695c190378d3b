"""Each baseline of the benchmarks computes what we compute: else the ratio of their times says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks import cdnv, collapse, head, layer, peers
from benchmarks.peers import Peers
from benchmarks.timing import require_same
from grokcore import (
    ClassMoments,
    UsageError,
    collapse_report,
    exact_hessian,
    frobenius_surrogate,
    layer_relative_flatness,
    relative_flatness,
)
from grokcore import cdnv as our_cdnv
from tests.cases import TOLERANCE, random_head

CPU = torch.device("cpu")


def test_the_dense_contraction_of_a_head() -> None:
    features, weight, bias, labels = random_head(3)
    dense = float(head.dense_kappa(features, weight, bias, labels))
    assert float(relative_flatness(features, weight, bias)) == pytest.approx(dense, rel=TOLERANCE[torch.float64])
    with pytest.raises(RuntimeError, match="head: the baseline computes"):
        require_same("head", float(frobenius_surrogate(features, weight, bias)), dense)


@given(seed=st.integers(0, 1000), K=st.integers(2, 6), absent=st.booleans())
@settings(max_examples=15)
def test_the_published_loop(seed: int, K: int, absent: bool) -> None:
    features, _, _, labels = random_head(seed, n=3 * K, m=5, K=K)
    features.requires_grad_()
    fast = cdnv.with_gradient(lambda: our_cdnv(features, labels, K + absent), features)
    loop = cdnv.with_gradient(lambda: cdnv.looped_cdnv(features, labels), features)
    for ours, theirs in zip(fast, loop, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8 * float(theirs.abs().max()))


def test_the_loop_is_not_twice_the_penalty() -> None:
    """Two classes at distance 2, variance 1 each: (1 + 1) / (2 * 4), whichever way the pairs are counted."""
    features = torch.tensor([[0.0, 1.0], [0.0, -1.0], [2.0, 1.0], [2.0, -1.0]])
    assert float(cdnv.looped_cdnv(features, torch.tensor([0, 0, 1, 1]))) == 0.25


def test_the_dense_contraction_of_a_layer() -> None:
    model, inputs, target = layer.case(8, CPU)
    model, inputs = model.double(), inputs.double()
    estimate = layer_relative_flatness(model, nn.functional.cross_entropy, [(inputs, target)], layer.LAYER)
    dense = float(layer.dense_kappa(model, inputs, target, layer.LAYER))
    assert estimate.value == pytest.approx(dense, rel=TOLERANCE[torch.float64])
    assert layer.kappa(model.float(), inputs.float(), target, layer.LAYER) == pytest.approx(dense, rel=1e-4)


def test_kappa_is_a_trace_in_the_factor() -> None:
    """What the libraries are asked for: the trace in Z; in W itself the trace is another number."""
    model, inputs, target = layer.case(6, CPU)
    model, batches = model.double(), [(inputs.double(), target)]
    stretched = layer.with_factor(model, layer.LAYER)
    torch.testing.assert_close(stretched(batches[0][0]), model(batches[0][0]))
    dense = float(layer.dense_kappa(model, *batches[0], layer.LAYER))

    def trace(network: nn.Module) -> float:
        return float(
            exact_hessian(network, nn.functional.cross_entropy, batches, layer.LAYER).flatten(2).flatten(0, 1).trace()
        )

    assert trace(stretched) == pytest.approx(dense, rel=TOLERANCE[torch.float64])
    assert trace(model) != pytest.approx(dense, rel=0.1)


def test_every_process_has_the_same_case() -> None:
    torch.manual_seed(1)
    first = layer.case(6, CPU)
    torch.manual_seed(2)
    again = layer.case(6, CPU)
    for a, b in zip((*first[0].parameters(), *first[1:]), (*again[0].parameters(), *again[1:]), strict=True):
        assert torch.equal(a, b)


def test_batches_of_the_collapse_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "BATCH", 7)
    features, weight, _, labels = random_head(0, n=40, m=6, K=4)
    whole = collapse_report(ClassMoments(4, 6).update(features, labels), weight)
    assert collapse.report_of(features, labels, weight).nc1_papyan == pytest.approx(whole.nc1_papyan, rel=1e-10)
    monkeypatch.setattr(collapse, "BATCH", 500)
    assert collapse.peak_growth(1000, 3, 2) > 0


def test_peers_that_are_not_there_or_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path / "peers")
    rows = layer.peer_rows(lambda: 1.0, 1.0, CPU)
    assert {(row.measured, row.ratio, row.verdict) for row in rows} == {("not installed (make peers)", None, "")}
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / ".installed").touch()
    (tmp_path / "peers" / "curvlinops.py").write_text("raise ImportError('half installed')", encoding="utf-8")
    with pytest.raises(UsageError, match="make peers renews them"):
        layer.peer_rows(lambda: 1.0, 1.0, CPU)
    assert "half installed" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not Peers.installed(), reason="make peers")
@pytest.mark.parametrize("name", sorted(layer.PEERS))
def test_peers_compute_our_number(name: str) -> None:
    model, inputs, target = layer.case(layer.WIDTH, CPU)
    with Peers(CPU) as process:
        assert process.value(name) == pytest.approx(layer.kappa(model, inputs, target, layer.LAYER), rel=1e-4)
        assert process.stopwatch(name)(1) > 0
