"""What expressions name is found, whatever they do with it."""

import pytest
from tests.deploy.promql import names


@pytest.mark.parametrize(
    ("expression", "metrics"),
    [
        ("up == 0", {"up"}),
        ("sum by (instance) (rate(a_total[5m])) / on (instance) group_left () b", {"a_total", "b"}),
        ("sum(rate(a_total[5m])) by (instance) > 0.05", {"a_total"}),
        ("histogram_quantile(0.99, sum by (le) (rate(a_bucket[$__rate_interval])))", {"a_bucket"}),
        ('a{reason=~"b|c"} unless d offset 10m and on (e) f', {"a", "d", "f"}),
        ("clamp_min(a, 1e3) * 1024 + time()", {"a"}),
        ("topk(5, a) or bool", {"a"}),
    ],
)
def test_metrics_are_told_from_functions_words_and_labels(expression: str, metrics: set[str]) -> None:
    assert names(expression).metrics == metrics


def test_labels_are_those_selected_and_grouped_by() -> None:
    found = names('sum by (tenant, le) (a{job="x", reason=~"B|C", worker!~"front|"}) / on (instance) d')
    assert found.labels == {"tenant", "le", "job", "reason", "worker", "instance"}
    assert found.values == {"job": {"x"}, "reason": {"B", "C"}, "worker": {"front", ""}}
