"""A drawing as text: in the language of Graphviz, in that of Mermaid, and as data."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from backwire._cli._drawing import Arrow, Box, Drawing, Kind, Way

_FILLS: dict[Kind, str] = {
    "input": "#dbeafe",
    "parameter": "#fde68a",
    "frozen": "#e5e7eb",
    "constant": "#f3f4f6",
    "op": "#ffffff",
    "output": "#bbf7d0",
    "loss": "#86efac",
    "gradient": "#fee2e2",
    "slope": "#fca5a5",
}
_SHAPES: dict[Kind, str] = {
    "input": "ellipse",
    "parameter": "cylinder",
    "frozen": "cylinder",
    "constant": "plaintext",
    "output": "ellipse",
    "loss": "ellipse, peripheries=2",
    "slope": "cylinder",
}
_DOT_ARROWS: dict[Way, str] = {
    "value": 'color="#374151"',
    "gradient": 'color="#b91c1c", fontcolor="#b91c1c", dir=back',
    "kept": 'color="#9ca3af", style=dashed, constraint=false, arrowhead=open',
    "update": 'color="#b45309", style=dashed, constraint=false',
}
_MERMAID_BOXES: dict[Kind, tuple[str, str]] = {
    "input": ("([", "])"),
    "parameter": ("[(", ")]"),
    "frozen": ("[(", ")]"),
    "constant": ("[", "]"),
    "op": ("[", "]"),
    "output": ("([", "])"),
    "loss": ("((", "))"),
    "gradient": ("[", "]"),
    "slope": ("[(", ")]"),
}
_MERMAID_ARROWS: dict[Way, str] = {"value": "-->", "gradient": "==>", "kept": "-.->", "update": "-.->"}


def dot(drawing: Drawing) -> str:
    """Returns the drawing in Graphviz's language: a gradient stands at the height of what it belongs to."""
    return "\n".join(_dot_lines(drawing))


def mermaid(drawing: Drawing) -> str:
    """Returns the drawing in Mermaid's language, which many pages of Markdown draw by themselves."""
    return "\n".join(_mermaid_lines(drawing))


def document(drawing: Drawing) -> dict[str, Any]:
    """Returns the drawing as data for JSON."""
    return {"boxes": [asdict(each) for each in drawing.boxes], "arrows": [asdict(each) for each in drawing.arrows]}


def _dot_lines(drawing: Drawing) -> Iterator[str]:
    yield "digraph {"
    yield '  graph [fontname="Helvetica", nodesep=0.4, ranksep=0.45]'
    yield '  node [fontname="Helvetica", fontsize=11, shape=box, style="filled,rounded", margin="0.12,0.06"]'
    yield '  edge [fontname="Helvetica", fontsize=9]'
    for box in drawing.boxes:
        looks = f'fillcolor="{_FILLS[box.kind]}"'
        if box.kind in _SHAPES:
            looks += f", shape={_SHAPES[box.kind]}, style=filled"
        yield f'  {box.id} [label="{_dot_text(box)}", {looks}]'
        if box.beside:
            yield f"  {{ rank=same; {box.beside}; {box.id} }}"
    for arrow in drawing.arrows:
        yield f"  {_dot_arrow(arrow)}"
    yield "}"


def _dot_arrow(arrow: Arrow) -> str:
    """Returns an arrow; one of gradients is turned round and drawn backwards, so that it points up the page."""
    start, end = (arrow.end, arrow.start) if arrow.way == "gradient" else (arrow.start, arrow.end)
    looks = _DOT_ARROWS[arrow.way] + (f', label="{_quoted(arrow.text)}"' if arrow.text else "")
    if arrow.way == "gradient" and not arrow.start.startswith("g"):
        looks += ", constraint=false"  # from the loss, which stands below what it is computed by
    return f"{start} -> {end} [{looks}]"


def _dot_text(box: Box) -> str:
    return "\\n".join(map(_quoted, (box.title, *box.notes)))


def _quoted(text: str) -> str:
    return _printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _mermaid_lines(drawing: Drawing) -> Iterator[str]:
    yield "flowchart TB"
    for box in drawing.boxes:
        opened, closed = _MERMAID_BOXES[box.kind]
        text = "<br/>".join(map(_entities, (box.title, *box.notes)))
        yield f'  {box.id}{opened}"{text}"{closed}:::{_css(box.kind)}'
    for arrow in drawing.arrows:
        text = f'|"{_entities(arrow.text)}"|' if arrow.text else ""
        yield f"  {arrow.start} {_MERMAID_ARROWS[arrow.way]}{text} {arrow.end}"
    for kind in dict.fromkeys(box.kind for box in drawing.boxes):
        yield f"  classDef {_css(kind)} fill:{_FILLS[kind]},stroke:#374151,color:#111827"


def _css(kind: Kind) -> str:
    return f"is-{kind}"  # a bare "end" or "default" would be a word of the language


def _entities(text: str) -> str:
    """Returns a text in which whatever Mermaid or HTML would read is written as a number."""
    return "".join(each if each.isalnum() or each in " _./:,-[]∇" else f"#{ord(each)};" for each in _printable(text))


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "�" for each in text)
