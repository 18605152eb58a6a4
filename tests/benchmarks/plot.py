"""A picture of the training steps."""

from pathlib import Path
from typing import Any

from tests.benchmarks import steps
from tests.benchmarks.conductor import Kind

COLORS = {"engine": "#1b6ca8", "remote": "#4ba3c3", "peers": "#b8b8b8"}
TITLE = """Time of a training step relative to PyTorch eager on 1 thread
(shorter is better; mark: target, green where it is met, red where it is missed)"""
SECTIONS_TITLE = """Figures relative to their targets: the target is at 1, shorter is better
(green where it is met, red where it is missed)"""
MET, MISSED = "#2a8f3c", "#c0392b"
WIDEST = 3.0
"""Longer bars are cut off here, and their figure tells how long they are."""

NO_PLOT = "matplotlib is not installed, so there is no plot; `pip install matplotlib` adds it\n"


def draw(found: dict[str, dict[str, Any]], path: Path) -> str:
    """Draws a bar for each contender and model, with a mark at the target, and returns a line that tells where."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return NO_PLOT
    kinds = [(group, kind) for group, each in steps.GROUPS.items() for kind in each]
    rows = [(group, kind) for group, kind in kinds if any(kind.name in figures for figures in found.values())]
    columns = min(4, len(found))
    lines = -(-len(found) // columns)
    size = (3.3 * columns + 1.8, lines * (0.34 * len(rows) + 1.0) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, (model, figures) in zip(axes.flat, found.items(), strict=False):
        _panel(axis, model, figures, rows)
    figure.suptitle(TITLE)
    figure.savefig(path, dpi=120)
    return f"picture: {path}\n"


def draw_sections(sections: list[dict[str, Any]], path: Path) -> str:
    """Draws a bar for each figure that has a target, by section, and returns a line that tells where."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return NO_PLOT
    rows = [(section["title"], row) for section in sections for row in section["rows"] if "target" in row]
    if not rows:
        return ""
    figure = Figure(figsize=(11, 0.32 * len(rows) + 1.4), layout="constrained")
    axis = figure.subplots()
    for place, (_, row) in enumerate(reversed(rows)):
        part = row["figure"] / row["target"]
        part = part if row["less_is_better"] else 1 / max(part, 1e-9)
        axis.barh(place, min(max(part, 0.0), WIDEST), color=MET if part <= 1 else MISSED, height=0.68)
        text = f"{row['figure']:,.4g} of {row['target']:,g} {row['unit']}"
        axis.text(min(max(part, 0.0), WIDEST) + 0.04, place, text, va="center", fontsize=8)
    axis.axvline(1, color="#444444", ls=":", lw=1, zorder=0)
    axis.set_yticks(range(len(rows)), [f"{row['name']}\n{title}" for title, row in reversed(rows)], fontsize=6)
    axis.set_xlim(0, WIDEST + 1)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.suptitle(SECTIONS_TITLE)
    figure.savefig(path, dpi=120)
    return f"picture: {path}\n"


def _panel(axis: Any, model: str, figures: dict[str, Any], rows: list[tuple[str, Kind]]) -> None:
    for place, (group, kind) in enumerate(reversed(rows)):
        cell = figures.get(kind.name, {"unavailable": ""})
        if "ratio" not in cell:
            axis.text(0.03, place, "not measured", va="center", fontsize=7, color="#888888")
            continue
        axis.barh(place, min(cell["ratio"], WIDEST), color=COLORS[group], height=0.68)
        cut = "→ " if cell["ratio"] > WIDEST else ""
        label = axis.text(
            min(cell["ratio"], WIDEST) + 0.06, place, f"{cut}{cell['ratio']:.2f}", va="center", fontsize=8
        )
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        if "target" in cell:
            met = cell["ratio"] <= cell["target"]
            axis.plot([cell["target"]] * 2, [place - 0.42, place + 0.42], color=MET if met else MISSED, lw=2.5)
    base = figures[steps.BASE.name]
    axis.set_title(f"{model} ({base['milliseconds']:.2f} ms)" if "milliseconds" in base else model, fontsize=10)
    axis.axvline(1, color="#444444", ls=":", lw=1, zorder=0)
    axis.set_xticks(range(int(WIDEST) + 1))
    axis.set_yticks(range(len(rows)), [kind.label for _, kind in reversed(rows)], fontsize=8)
    axis.set_xlim(0, WIDEST + 0.7)
    axis.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
