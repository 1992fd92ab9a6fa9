import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from condseg_sdk.training.engine import moving_average


def averaged_after(steps: int, decay: float) -> float:
    """Average of a weight that is 0 at first and 1 from the next step on."""
    layer = nn.Linear(1, 1, bias=False)
    average = AveragedModel(layer, multi_avg_fn=moving_average(decay), use_buffers=True)
    for step in range(steps + 1):
        nn.init.constant_(layer.weight, float(step > 0))
        average.update_parameters(layer)
    return average.module.weight.item()


def test_the_average_of_a_short_run_has_forgotten_where_it_began() -> None:
    assert averaged_after(1, 0.9988) == pytest.approx(9 / 11)  # a decay of 2 / 11 in the first step
    assert averaged_after(20, 0.9988) > 0.999  # 0.024 with a constant decay


def test_the_decay_of_the_average_does_not_rise_above_the_one_chosen() -> None:
    assert averaged_after(3, 0.1) == pytest.approx(1 - 0.1**3)


def test_counters_are_averaged_as_well() -> None:
    layer = nn.BatchNorm1d(1)
    average = AveragedModel(layer, multi_avg_fn=moving_average(0.5), use_buffers=True)
    for _ in range(3):
        layer(torch.zeros(2, 1))
        average.update_parameters(layer)
    assert 1 <= int(average.module.num_batches_tracked) <= 3
