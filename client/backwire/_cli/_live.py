"""Shows frames on a terminal: each in the place of the one before, or one that stays."""

from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from backwire._cli._frames import Frame


def show(frames: Iterable[Frame], console: Console | None = None) -> None:
    """Shows each frame when it comes, on the whole terminal; what was there before is back in the end."""
    with Live(console=console or Console(), screen=True, auto_refresh=False) as screen:
        for frame in frames:
            screen.update(_drawn(frame, cut=True), refresh=True)


def text(frame: Frame, console: Console | None = None) -> str:
    """Returns the frame with the colours that the terminal has."""
    terminal = console or Console()
    with terminal.capture() as captured:
        terminal.print(_drawn(frame, cut=False))
    return captured.get().rstrip("\n")


def _drawn(frame: Frame, *, cut: bool) -> Group:
    table = Table(box=None, pad_edge=False, header_style="bold reverse")
    for index, name in enumerate(frame.head):
        table.add_column(name, justify="right" if index in frame.right else "left", no_wrap=True)
    for row in frame.rows:
        table.add_row(*map(Text, row))
    lines = (Text(line, no_wrap=cut, overflow="ellipsis" if cut else "fold") for line in frame.lines)
    return Group(*lines, Text(""), table)
