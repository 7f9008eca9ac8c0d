"""What is trained again, what goes on, and what a failure says; the processes here are not real trainings."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from ssl_ebm.errors import UserError
from ssl_ebm.files import sha256_of
from ssl_ebm.progress import Display
from ssl_ebm.report.training import TimeLeft, Training, train
from ssl_ebm.tasks.saving import last_checkpoint, previous_checkpoint

SETTINGS = {"seed_everything": 0, "trainer": {"max_steps": 10}, "model": {"width": 8}}


def entry(name: str = "latent_ebm", steps: int = 10) -> Any:
    given = {"path": Path("a.yaml"), "overrides": ("--data.size", "20"), "uses_gpu": False}
    return SimpleNamespace(name=name, steps=steps, settings=SETTINGS, **given)


def saved(folder: Path, step: int, **changes: Any) -> Path:
    """A folder as ``fit`` leaves it."""
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {}, "global_step": step}, folder / "checkpoints" / "last.ckpt")
    settings = {**SETTINGS, "run_dir": str(folder), "ckpt_path": "x", **changes}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_a_finished_training_is_used_again(tmp_path: Path) -> None:
    training = Training(entry(), 0, saved(tmp_path / "a", 10))
    assert training.finished
    train([training], Display(stream=io.StringIO()))  # starts nothing: there is no a.yaml
    assert training.process is None


def test_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    training = Training(entry(), 0, saved(tmp_path / "a", 6))
    assert not training.finished
    assert training.command[-2:] == ["--ckpt_path", "last"]
    assert "--data.size 20" in " ".join(training.command)


def test_where_the_last_checkpoint_is_torn_the_one_before_goes_on(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", 10)
    last = last_checkpoint(folder)
    torch.save({"state_dict": {}, "global_step": 6}, previous_checkpoint(folder))
    last.write_bytes(last.read_bytes()[:-20])
    training = Training(entry(), 0, folder)
    assert training.step == 6
    assert training.command[-2:] == ["--ckpt_path", "last"]
    previous_checkpoint(folder).unlink()
    assert Training(entry(), 0, folder).step == 0


def test_a_training_from_other_weights_of_the_same_name_is_another(tmp_path: Path) -> None:
    start = tmp_path / "start.ckpt"
    start.write_bytes(b"some weights")
    started = {**SETTINGS, "start_from": str(start)}
    folder = saved(tmp_path / "a", 10, start_from=str(start))
    one = entry()
    one.settings = started
    assert not Training(one, 0, folder).finished  # of weights that nothing tells
    record = [{"began_from": {"path": str(start), "sha256": sha256_of(start)}}, {"began_from": None}]
    (folder / "run.json").write_text(json.dumps(record))
    assert Training(one, 0, folder).finished
    start.write_bytes(b"other weights")
    assert not Training(one, 0, folder).finished


@pytest.mark.parametrize(
    ("seed", "changes"), [(0, {"model": {"width": 16}}), (0, {"trainer": {"max_steps": 12}}), (1, {})]
)
def test_other_settings_are_trained_afresh(tmp_path: Path, seed: int, changes: dict[str, Any]) -> None:
    training = Training(entry(), seed, saved(tmp_path / "a", 10, **changes))
    assert not training.finished
    assert "--ckpt_path" not in training.command
    assert training.command[-4:-2] == ["--seed_everything", str(seed)]


class Fake(Training):
    """A process that runs a line of Python."""

    program = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program]


def fake(folder: Path, program: str, name: str = "latent_ebm") -> Fake:
    training = Fake(entry(name), 0, folder)
    training.program = program
    return training


def test_a_failure_stops_the_others_and_shows_the_last_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = fake(tmp_path / "slow", "import time; time.sleep(60)", "least_squares")
    bad = fake(tmp_path / "bad", "import sys; print('out of cheese', file=sys.stderr); sys.exit(3)")
    with pytest.raises(UserError, match="latent_ebm seed 0 ended with status 3") as error:
        train([slow, bad], Display(stream=io.StringIO()))
    assert str(tmp_path / "bad" / "fit.log") in str(error.value)
    assert "out of cheese" in capsys.readouterr().err
    assert slow.process is None or slow.process.poll() is not None
    assert slow.process is None or slow.process.returncode < 0


def test_a_mistake_of_the_user_stays_one_line(tmp_path: Path) -> None:
    program = "import sys; print('ssl-ebm: error: no folder /x: give another', file=sys.stderr); sys.exit(2)"
    with pytest.raises(UserError, match=r"latent_ebm seed 0 stopped: no folder /x: give another$"):
        train([fake(tmp_path / "a", program)], Display(stream=io.StringIO()))


def test_a_process_that_ends_early_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ended at step 0 of 10"):
        train([fake(tmp_path / "a", "print('done')")], Display(stream=io.StringIO()))


def test_speed_and_seconds_are_kept(tmp_path: Path) -> None:
    lines = "".join(
        f"step {s}/10  loss 1.0  {v} steps/s  waiting\\n" for s, v in ((3, 4.0), (6, 5.0), (9, 9.0))
    )
    program = f"import time; time.sleep(0.3); print('{lines}', end='')"
    training = fake(saved(tmp_path / "a", 0), program)
    training.checkpoint.unlink()
    with pytest.raises(UserError):
        train([training], Display(stream=io.StringIO()))  # it ends early, with its speed kept
    assert training.record["steps_per_second"] == 5.0  # the median
    assert training.record["seconds"] >= 0.3


def test_time_left_is_shared_among_the_places(tmp_path: Path) -> None:
    one, two, three = (Training(entry(steps=100), s, tmp_path / str(s)) for s in range(3))
    left = TimeLeft([one, two, three], places=2, now=lambda: 20.0)
    assert left() is None
    one.process, one.started, one.step = object(), 10.0, 50  # type: ignore[assignment]
    # 0.2 s a step: 50 + 100 + 100 steps on two places.
    assert left() == pytest.approx(25.0)
    three.step = two.step = 100
    assert left() == pytest.approx(10.0)  # one training cannot be shared
