"""The narrow tables of main.tex: columns and rows chosen from the full ones, and the theorems."""

from __future__ import annotations

from collections.abc import Mapping

from grokcore.documents import Table
from paper import limits
from paper.latex import chosen
from paper.limit_numbers import DECAY
from paper.recorded import Settings
from theory import statements

STATED = (
    "A2", "A4", "A5", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9",
    "C1", "C2", "C3", "D1", "D3", "D4", "D5", "E4", "F2", "F3", "F4",
)  # fmt: skip
"""Labels of the statements that the text speaks of."""
ARMS = {
    "baseline": "baseline",
    "ncc_encourage": "collapse encouraged",
    "ncc_prevent": "collapse prevented",
    "flatness_encourage": "flatness encouraged",
    "flatness_prevent": "flatness prevented (published form)",
    "flatness_prevent_exact": "flatness prevented (exact kappa)",
    "control_confidence": "control: confidence alone",
    "control_norm": "control: norm alone",
    "control_schedule+fork": "control: schedule alone",
    "flatness_release+fork": "flatness released",
    "baseline+augment": "baseline, augmented",
    "ncc_prevent+augment": "collapse prevented, augmented",
}
GROKKING = {
    "grokking: test 99 % at step": "groks at step", "train kappa at that step": "kappa there",
    "final train CDNV": "CDNV at the end",
}  # fmt: skip
CIFAR10 = {
    "test accuracy (%)": "test accuracy (%)", "against the baseline, points": "less the baseline's",
    "exact kappa, train": "kappa", "CDNV, train": "CDNV",
}  # fmt: skip
TEST_DATA = {
    "train V": "train V", "test V, train means": "test V", "its floor (F2)": "its floor",
    "V less floor: upper end": "excess, upper end", "verdict": "verdict",
}  # fmt: skip
TRANSFER = {
    "train V": "train V", "probe on the train images (%)": "read off train", "transfer to test images (%)": "transfer",
    "probe on fresh images (%)": "fresh", "best earlier layer: transfer (%)": "best earlier layer",
}  # fmt: skip


def paper_tables(recorded: Settings, full: Mapping[str, Table]) -> dict[str, Table]:
    """``paper/<name>``, of those tables whose results are there."""
    found = {"paper/theorems": theorems()}
    wanted = (
        ("paper/grokking-quick", "grokking/quick", GROKKING, ARMS),
        ("paper/grokking", "grokking/transformer", GROKKING, ARMS),
        ("paper/cifar10", "cifar10/cpu-outcomes", CIFAR10, ARMS),
        ("paper/test-data", "limits/test-collapse", TEST_DATA, _runs(recorded, "test-collapse")),
        ("paper/transfer", "limits/transfer", TRANSFER, _runs(recorded, "transfer")),
    )
    for name, source, columns, rows in wanted:
        if source in full:
            found[name] = chosen(full[source], columns, rows)
    return found


def theorems() -> Table:
    """Label, name, kind, status, and how many assumptions have a counterexample to what is left without them."""
    rows = [
        (each.label, each.name.replace("_", " "), each.kind, str(each.status), str(len(each.assumptions)))
        for each in statements()
        if each.label in STATED
    ]
    return Table(("", "statement", "kind", "status", "assumptions"), rows)


def _runs(recorded: Settings, study: str) -> dict[str, str]:
    """Rows as they are called, without their weight decay."""
    plain = str.maketrans("+-_", "   ")
    return {name: DECAY.sub("", name).translate(plain) for name in limits.runs_of(recorded, study)}
