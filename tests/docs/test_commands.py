"""The commands in the documentation exist, with all their flags."""

import pytest
from tests.docs.commands import commands, mistake
from tests.docs.pages import Snippet, pages, snippets

WRITTEN = [
    (f"{page}:{snippet.line}: {' '.join(words)}", words)
    for page in pages()
    for snippet in snippets(page)
    for words in commands(snippet)
]


@pytest.mark.parametrize("words", [words for _, words in WRITTEN], ids=[name for name, _ in WRITTEN])
def test_a_command_exists_with_all_its_flags(words: list[str]) -> None:
    assert mistake(words) is None


def test_there_are_commands_of_every_kind() -> None:
    first = {words[0] for _, words in WRITTEN}
    assert {"backwire", "pip", "python", "docker/certificates"} <= first


@pytest.mark.parametrize(
    "line",
    [
        "backwire serve --data-directory DIR",
        "backwire config check --listen",
        "backwire sessions rename SESSION_ID",
        "backwire describe model.onnx --shapes x=1",
        "backwire verify",
        "make dance",
        "pip install 'backwire[nothing]'",
        "python -m backwire.examples.nothing",
        "docker/nothing",
    ],
)
def test_a_command_that_there_is_not_is_told(line: str) -> None:
    (words,) = commands(Snippet(1, "sh", line))
    assert mistake(words)


def test_a_command_is_read_without_variables_comments_and_what_follows_it() -> None:
    text = (
        "$ BACKWIRE_GRACE=30s backwire serve \\\n    --max-passes 8  # as many\nbackwire ops > ops.txt\nanything else\n"
    )
    assert list(commands(Snippet(1, "sh", text))) == [["backwire", "serve", "--max-passes", "8"], ["backwire", "ops"]]
