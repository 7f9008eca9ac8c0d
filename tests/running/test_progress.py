"""Lines of progress, on a clock of the test's own."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_ebm.running.progress import ProgressLines, _clock


def test_a_line_says_where_training_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("ssl_ebm.running.progress.time.monotonic", lambda: clock.now)
    trainer: Any = SimpleNamespace(global_step=0, estimated_stepping_batches=100, is_global_zero=True)
    module: Any = None
    lines = ProgressLines(seconds=10.0)
    lines.on_train_start(trainer, module)
    for _ in range(25):  # a step: 0.5 s of waiting for its batch and 1.5 s of work
        clock.now += 0.5
        lines.on_train_batch_start(trainer, module)
        clock.now += 1.5
        trainer.global_step += 1
        lines.on_train_batch_end(trainer, module, {"loss": torch.tensor(0.25)})
        clock.now += 30.0 if trainer.global_step == 7 else 0.0  # validation
        if trainer.global_step == 7:
            lines.on_validation_end(trainer, module)

    printed = capsys.readouterr().out.splitlines()
    # 5 steps take 10 s; 95 remain, at 0.5 steps a second.
    assert printed[0] == "step 5/100  loss 0.25  0.50 steps/s  waiting for data 25%  time left 0:03:10"
    # Validation takes time and is no waiting: 3 steps in 36 s, of which 1.5 s wait.
    assert printed[1].startswith("step 8/100  loss 0.25  0.08 steps/s  waiting for data 4%")
    assert [line.split()[1] for line in printed] == ["5/100", "8/100", "13/100", "18/100", "23/100"]


def test_training_without_an_end_has_no_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: Any = SimpleNamespace(
        global_step=0, estimated_stepping_batches=float("inf"), is_global_zero=True
    )
    module: Any = None
    lines = ProgressLines(seconds=0.0)
    lines.on_train_start(trainer, module)
    trainer.global_step = 1
    lines.on_train_batch_end(trainer, module, None)
    assert capsys.readouterr().out.startswith("step 1  ")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert _clock(seconds) == text
