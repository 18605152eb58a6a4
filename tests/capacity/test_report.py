"""The page has the tables that the simulation makes, and figures of the benchmarks change what it finds."""

import json
from pathlib import Path

import pytest
from tests.benchmarks import figures, hibernation
from tests.capacity import report
from tests.capacity.costs import MEASURED, Costs, read
from tests.capacity.fleet import Setting
from tests.capacity.scale import simulate

PAGE = Path(__file__).resolve().parents[2] / "docs/capacity.md"


@pytest.fixture(scope="module")
def found() -> report.Found:
    return report.run(MEASURED, Setting(), seed=0)


def test_the_page_has_the_tables_of_the_simulation(found: report.Found) -> None:
    made, text = report.tables(found), PAGE.read_text()
    assert {place["name"] for place in report.BLOCK.finditer(text)} == set(made)
    assert report.page(text, made) == text, "run `python -m tests.capacity --page docs/capacity.md`"


def test_all_that_was_found_is_json(found: report.Found) -> None:
    again = json.loads(json.dumps(report.as_json(found)))
    assert [each["nodes"] for each in again["sizes"]] == [1, 10, 100, 1_000]
    assert again["sizes"][3]["losses"]["a rack"]["hash ring"]["waits"]["p99"] > 0


def test_each_remedy_that_the_page_names_shortens_waits(found: report.Found) -> None:
    waits = {name: each.losses["a node"]["two choices"].waits for name, each in found.remedies.items()}
    before, without = waits.pop("as assumed"), waits.pop("no passing checkpoints")
    assert all(each.mean() < before.mean() for each in waits.values())
    assert before.mean() < without.mean()


def test_the_same_seed_finds_the_same_and_another_does_not() -> None:
    one, same, other = (_json(seed) for seed in (3, 3, 4))
    assert one == same != other


def test_figures_of_the_benchmarks_take_the_place_of_those_that_are_built_in(tmp_path: Path) -> None:
    rows = [
        figures.row("S, Forward in eval mode, more on disk", 30.0, "ms"),
        figures.row("10,000 sessions of tiny: after a restart", 500.0, "MiB"),
        figures.unavailable("tiny, Forward in eval mode, more on disk", "no time"),
    ]
    steps = {"M": {"remote:pipeline": {"milliseconds": 70.0}}, "L": {"remote:pipeline": {"unavailable": "no time"}}}
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"hibernation": {"rows": rows}, "steps": steps}))
    read_back = read(path)
    changed = {name for name, figure in read_back.items() if figure != MEASURED[name]}
    assert changed == {"wake S", "asleep 10,000", "step M"}
    assert all(read_back[name].source == str(path) for name in changed)
    assert Costs(read_back).wake[2] > Costs().wake[2]


def test_costs_are_of_as_many_sessions_as_the_benchmark_makes() -> None:
    assert f"{hibernation.MANY:,} sessions of {hibernation.TINY}" == "10,000 sessions of tiny"


def _json(seed: int) -> str:
    setting = Setting(sessions_per_node=50)
    found = report.Found(MEASURED, setting, seed, [simulate(8, Costs(), setting, seed)], {})
    return json.dumps(report.as_json(found))
