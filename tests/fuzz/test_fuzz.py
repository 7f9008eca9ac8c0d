"""A share of the fuzzing in CI; and that the fuzzing sees the faults it is there for."""

import gzip
import json
import mmap
import os
import random
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fuzz import __main__ as fuzz
from fuzz import children, targets
from fuzz.mutations import changed, damaged, yaml_of
from fuzz.outcomes import Place, WrongError, check_frames, check_not_black
from fuzz.pictures_and_clips import check_idx_items
from fuzz.settings_and_models import check_run
from image_files import write_idx_folder
from toy_task import thread_limit

from ssl_ebm.data import IdxImages
from ssl_ebm.errors import UserError

CASES = 200


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_damaged_files_end_in_one_line_or_a_right_result(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fuzz", "--cases", str(CASES), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=560, env=thread_limit())
    report = json.loads((tmp_path / "out" / "fuzz.json").read_text())
    said = [path.read_text() for path in (tmp_path / "out" / "failures").glob("*/said.txt")]
    assert report["failed"] == [], said
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["cases"] == CASES
    assert report["outcomes"]["accepted"] > CASES / 5  # else it damages too much to come far
    assert report["outcomes"]["refused"] > CASES / 5
    assert all(sum(counts.values()) for counts in report["of_each_kind"].values())


def _dies(place: Place, rng: random.Random) -> None:
    os.abort()


def _hangs(place: Place, rng: random.Random) -> None:
    time.sleep(60)


def _takes_all_memory(place: Place, rng: random.Random) -> None:
    np.ones(2**40)


def _is_black(place: Place, rng: random.Random) -> None:
    check_not_black(np.zeros((4, 4)))


def _ends(place: Place, rng: random.Random) -> None:
    sys.exit(0)


def _refuses(place: Place, rng: random.Random) -> None:
    (place.here / "file").write_text("it")
    raise UserError("one line" if rng.random() < 2 else "")


def _says_two_lines(place: Place, rng: random.Random) -> None:
    raise UserError("one line\nand another")


PLANTED = [_dies, _hangs, _takes_all_memory, _is_black, _ends, _says_two_lines]


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.__name__[1:])
def test_a_planted_fault_is_found(
    fault: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Between cases that are well, in which it leaves no trace."""
    monkeypatch.setattr(targets, "TARGETS", {"well": (_refuses, 1), "fault": (fault, 1)})
    monkeypatch.setattr(children, "PATIENCE", 2)
    (tmp_path / "bases").mkdir()
    kinds = [fuzz.Campaign(tmp_path, 0, []).kind_of(case) for case in range(4)]
    assert set(kinds) == {"well", "fault"}
    report = fuzz.campaign(tmp_path, range(4), 0, [])
    assert report["failed"] == [case for case in range(4) if kinds[case] == "fault"]
    assert report["outcomes"]["refused"] == kinds.count("well")
    first = report["failed"][0]
    said = (tmp_path / "failures" / str(first) / "said.txt").read_text()
    assert said.startswith("fault\n")
    assert fault is not _dies or ("Fatal Python error: Aborted" in said and "in _dies" in said)


def test_what_fails_only_among_others_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = []

    def dies_second(place: Place, rng: random.Random) -> None:
        before.append(place)
        if len(before) == 2:
            os.abort()

    monkeypatch.setattr(targets, "TARGETS", {"one": (dies_second, 1)})
    (tmp_path / "bases").mkdir()
    report = fuzz.campaign(tmp_path, range(3), 0, [])
    assert report["failed"] == []
    assert list(report["passed_alone"]) == [1]
    assert "in dies_second" in report["passed_alone"][1]


def test_who_takes_much_memory_has_no_case_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "MEMORY", 2**30)
    kept, processes = [], tmp_path / "processes"

    def takes(place: Place, rng: random.Random) -> None:
        with processes.open("a") as file:
            print(os.getpid(), file=file)
        kept.append(mmap.mmap(-1, 2**28 + 2**26))  # two are more than half

    monkeypatch.setattr(targets, "TARGETS", {"one": (takes, 1)})
    (tmp_path / "bases").mkdir()
    report = fuzz.campaign(tmp_path, range(6), 0, [])
    assert report["outcomes"] == {"accepted": 6}
    assert report["cases"] == 6
    one_process_each = processes.read_text().split()
    assert len(set(one_process_each)) == 3
    assert one_process_each[::2] == one_process_each[1::2]


def test_a_case_is_a_function_of_its_number() -> None:
    content = bytes(range(256)) * 8
    tree = {"model": {"class_path": "a.B", "init_args": {"width": 3, "rates": [1, 2]}}}
    for number in range(200):
        one, other = random.Random(number), random.Random(number)
        assert damaged(content, one) == damaged(content, other)
        assert repr(changed(tree, one)) == repr(changed(tree, other))
        assert yaml_of(tree, one) == yaml_of(tree, other)
    assert tree["model"]["init_args"] == {"width": 3, "rates": [1, 2]}


def test_most_damage_is_damage() -> None:
    content = bytes(range(256)) * 8
    made = [damaged(content, random.Random(number)) for number in range(500)]
    assert sum(bytes_ != content for bytes_, _ in made) > 480
    cut = [bytes_ for bytes_, only_cut in made if only_cut]
    assert len(cut) > 20
    assert all(content.startswith(bytes_) for bytes_ in cut)
    trees = [
        yaml.safe_dump(changed({"a": 1, "b": [1.5, 2]}, random.Random(n))) for n in range(100) if n != 13
    ]
    assert len(set(trees)) > 40


def test_black_frames_are_seen() -> None:
    video = np.ones((3, 1, 4, 4))
    check_frames(video)
    video[1] = 0
    with pytest.raises(WrongError, match=r"\[1\]"):
        check_frames(video)


def test_items_of_idx_files_that_are_others_are_seen(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (12, 4, 4), dtype=np.uint8)
    write_idx_folder(tmp_path, {"train": pixels, "t10k": pixels[:3]})
    data = IdxImages(str(tmp_path))
    data.setup()
    raw = {
        path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes()) for path in tmp_path.rglob("*.gz")
    }
    check_idx_items(data, raw)
    for name, place, words in (
        ("train-images-idx3-ubyte", -1, "image 11 of train"),
        ("t10k-labels-idx1-ubyte", 8, "label 0 of t10k"),
        ("t10k-images-idx3-ubyte", 7, "3 items of 2"),
    ):
        other = bytearray(raw[name])
        other[place] ^= 1
        with pytest.raises(WrongError, match=words):
            check_idx_items(data, raw | {name: bytes(other)})


@pytest.mark.parametrize(
    ("weights", "step", "starts", "words"),
    [
        ([0.0, 1.0], 2, [{"resumed_from": None}], None),
        ([0.0, float("nan")], 2, [{"resumed_from": None}], "is not finite"),
        ([0.0, 0.0], 2, [{"resumed_from": None}], "no weight that is not 0"),
        ([0.0, 1.0], 1, [{"resumed_from": None}], "of step 1"),
        ([0.0, 1.0], 2, [], "0 starts"),
    ],
)
def test_runs_that_are_not_what_they_should_be_are_seen(
    weights: list[float], step: int, starts: list[object], words: str | None, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(starts))
    (tmp_path / "config.yaml").write_text("model: {}")
    (tmp_path / "checkpoints").mkdir()
    content = {"state_dict": {"w": torch.tensor(weights)}, "global_step": step, "task": "Inpainting"}
    torch.save(content | {"hyper_parameters": {}}, tmp_path / "checkpoints" / "last.ckpt")
    with nullcontext() if words is None else pytest.raises(WrongError, match=words):
        check_run(tmp_path)
