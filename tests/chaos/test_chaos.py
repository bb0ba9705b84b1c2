"""Two chaos runs; `make chaos N=100` does as many as there is time for."""

import pytest

from tests.chaos.plan import draw_plan
from tests.chaos.run import run_chaos
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

SEEDS = (3, 4)
"""A local output with killed drivers and actors, and one on S3 that fails in 5 of 100 calls."""


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_and_nothing_is_there_twice(tmp_path, s3_environment, seed):  # noqa: F811 - a fixture
    result = run_chaos(draw_plan(seed), tmp_path)
    assert result.violations == []
    assert (result.num_lost, result.num_double) == (0, 0)
    assert result.num_kills
    assert result.num_survivors


def test_equal_seeds_give_equal_plans():
    assert [draw_plan(seed) for seed in range(50)] == [draw_plan(seed) for seed in range(50)]
    assert len({str(draw_plan(seed)) for seed in range(50)}) == 50
