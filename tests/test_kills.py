"""`scripts/kill_test.py` in small: one kill in a step, one in a checkpoint's writing, one in validation."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_task import thread_limit


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_in_a_step_a_write_and_a_validation_leave_no_trace(tmp_path: Path, repository: Path) -> None:
    script = str(repository / "scripts" / "kill_test.py")
    short = ["--kills", "3", "--steps", "60", "--validate_every", "10", "--out", str(tmp_path / "kills")]
    done = subprocess.run(
        [sys.executable, script, *short, "--model.width", "8"],
        capture_output=True,
        text=True,
        timeout=560,
        env=thread_limit(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "kills" / "kills.json").read_text())
    one, write, validation = report["each"]
    assert one["hit"] != "start"
    assert write["hit"] == "write"
    assert write["bytes_written"] <= write["bytes_in_all"]
    assert validation["hit"] == "validation"
    assert validation["step"] % 10 == 0
    assert report["steps"] == 60
    assert report["differences"] == []


def test_a_difference_in_a_single_bit_is_seen(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison on which the result rests."""
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    import kill_test

    def content(last: float = 2.0, extra: int = 3) -> dict[str, object]:
        return {"state": {"w": torch.tensor([1.0, last])}, "groups": [{"lr": 0.1, "step": extra}]}

    assert list(kill_test.differences(content(), content())) == []
    assert list(kill_test.differences(content(), content(last=2.0000002))) == ["/state/w"]
    assert list(kill_test.differences(content(), content(extra=4))) == ["/groups/0/step"]
    assert list(kill_test.differences(content(), {"state": content()["state"]})) == ["/groups"]
