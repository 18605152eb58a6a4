"""Tables on the terminal."""

from collections.abc import Iterator
from typing import Any

from tests.benchmarks import steps

KINDS = [steps.BASE, *(kind for group in steps.GROUPS.values() for kind in group)]
LABEL_WIDTH, WIDTH, NAME_WIDTH = 28, 15, 58
PROFILE_LINES = {"operators": 10, "functions": 5}

Figures = dict[str, dict[str, Any]]
"""By model, and for each model by the contender's name; see `steps.measure`."""


def steps_table(found: Figures) -> str:
    """Returns a row for each contender: its time relative to PyTorch eager on one thread, beside the target."""
    lines = [
        "",
        "time of a training step relative to PyTorch eager on 1 thread (target; ! where it is missed)",
        _line("", found),
    ]
    for kind in KINDS:
        cells = [each[kind.name] for each in found.values() if kind.name in each]
        if cells:
            lines.append(_line(kind.label, map(_cell, cells)))
        if kind.name == "engine" and all("cpu_ratio" in cell for cell in cells):
            lines.append(_line("  in processor time", (f"{cell['cpu_ratio']:.2f}" for cell in cells)))
    missing = [*_missing(found)]
    return "\n".join([*lines, *(["not measured:", *missing] if missing else []), ""])


def profile_lines(found: Figures) -> str:
    """Returns where the time of the engine goes in models that miss its target; JSON has the profiles of all misses."""
    lines = [
        f"  {model:<12}{each['milliseconds_per_step']:9.3f} ms {each['calls_per_step']:7.1f} calls  {each['name']}"
        for model, figures in found.items()
        for kind, most in PROFILE_LINES.items()
        for each in figures.get("engine", {}).get("profile", {}).get(kind, ())[:most]
    ]
    return "\n".join(["", "where a step of the engine spends its time, profiled:", *lines, ""]) if lines else ""


def section(found: dict[str, Any]) -> str:
    """Returns the rows of a section, each a name, a figure and its unit, and the target where there is one."""
    lines = [f"  {row['name']:<{NAME_WIDTH}} {_figure(row)}" for row in found["rows"]]
    return "\n".join(["", found["title"], *lines, ""])


def machine_lines(facts: dict[str, Any]) -> str:
    """Returns what the figures were measured on."""
    own, peers = facts["backwire"], facts["peers"]
    versions = ", ".join(f"{name} {peers[name]}" for name in ("torch", "jax") if name in peers)
    return (
        f"\non {facts['cpus']} cpus: {facts['cpu']}{' with AVX-512' if facts['avx512'] else ''}\n"
        f"Python {own.get('python')}, numpy {own.get('numpy')}, {own.get('blas')}; peers: {versions or 'none'}\n"
        f"commit {facts['commit'][:12]}{' with changes' if facts['changed'] else ''}\n"
    )


def _line(label: str, cells: Any) -> str:
    return f"{label:<{LABEL_WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def _cell(cell: dict[str, Any]) -> str:
    if "unavailable" in cell:
        return "-"
    if cell.get("ratio", 1.0) == 1.0:  # the base, or there is none
        return f"{cell['milliseconds']:.2f} ms"
    if "target" not in cell:
        return f"{cell['ratio']:.2f}"
    missed = "!" if cell["ratio"] > cell["target"] else " "
    return f"{cell['ratio']:.2f} ({cell['target']:.2f}){missed}"


def _missing(found: Figures) -> Iterator[str]:
    """Yields a line for each reason why contenders have no figures, with the models that it holds for."""
    for kind in KINDS:
        reasons: dict[str, list[str]] = {}
        for model, each in found.items():
            if "unavailable" in each.get(kind.name, {}):
                reasons.setdefault(each[kind.name]["unavailable"], []).append(model)
        for reason, models in reasons.items():
            yield f"  {kind.label}, {', '.join(models)}: {reason}"


def _figure(row: dict[str, Any]) -> str:
    if "unavailable" in row:
        return f"not measured: {row['unavailable']}"
    text = f"{row['figure']:>12,.4g} {row['unit']}"
    if "target" not in row:
        return text
    less = row["less_is_better"]
    met = row["figure"] <= row["target"] if less else row["figure"] >= row["target"]
    return f"{text}  (target {'<=' if less else '>='} {row['target']:g}{'' if met else ' !'})"
