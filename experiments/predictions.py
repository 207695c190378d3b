"""What theory predicts at measured numbers, as columns beside them."""

from __future__ import annotations

from theory.formulas import kappa_at_collapse


def collapse_curve_columns(row: dict[str, float], classes: int) -> dict[str, float]:
    """The collapse curve (theory B1) at the row's gaps and gammas: ``train_kappa_collapse_curve``, ``test_...``."""
    return {
        f"{split}_kappa_collapse_curve": float(
            kappa_at_collapse(row[f"{split}_logit_gap"], classes, row[f"{split}_global_mean_ratio"])
        )
        for split in ("train", "test")
    }
