"""Two configs that do not compare are refused before anything is trained."""

import argparse
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_ebm.errors import UserError
from ssl_ebm.report.entries import check_comparable, read_entries, trained_settings

BASE: dict[str, Any] = {
    "model": {
        "class_path": "ssl_ebm.tasks.frame_prediction.FramePrediction",
        "init_args": {"context_frames": 3, "width": 8, "levels": 1, "codes": 4, "features": 16},
    },
    "data": {
        "class_path": "ssl_ebm.data.MovingDigits",
        "init_args": {"context_frames": 3, "batch_size": 4, "glyphs_per_digit": 1},
    },
    "trainer": {"max_steps": 3, "accelerator": "cpu"},
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a config with an objective and changes like ``{"data.init_args.size": 20}``."""

    def one(objective: str, changes: dict[str, object] | None = None, name: str = "") -> Path:
        content = deepcopy(BASE)
        content["model"]["init_args"]["objective"] = objective
        for key, value in (changes or {}).items():
            inner = content
            *parents, last = key.split(".")
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        path = tmp_path / f"{name or objective}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return one


def test_order_does_not_matter(write: Write) -> None:
    entries = read_entries([write("latent_ebm"), write("least_squares")])
    assert list(entries) == ["least_squares", "latent_ebm"]
    assert entries["latent_ebm"].steps == 3
    assert entries["latent_ebm"].settings["model"]["init_args"]["width"] == 8
    counted = sum(p.numel() for p in entries["latent_ebm"].model.parameters())
    assert entries["latent_ebm"].parameters == counted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer.max_steps": 4}, ["trainer.max_steps", "3", "4"]),
        ({"trainer.accumulate_grad_batches": 2}, ["trainer.accumulate_grad_batches", "2"]),
        ({"trainer.devices": 2}, ["trainer.devices is auto", "2"]),
        ({"trainer.num_nodes": 2}, ["trainer.num_nodes is 1", "2"]),
        ({"trainer.strategy": "ddp"}, ["trainer.strategy is auto", "ddp"]),
        ({"trainer.overfit_batches": 4}, ["trainer.overfit_batches is 0.0", "4"]),
        ({"data.init_args.batch_size": 8}, ["data.batch_size", "8", "4"]),
        ({"data.init_args.seed": 1}, ["data.seed"]),
        ({"data.init_args.normal_speed": 2}, ["data.normal_speed", "2", "3"]),
        ({"model.init_args.width": 32}, ["parameters", "10%", "model.width"]),
        ({"model.init_args.context_frames": 4}, ["context_frames", "4", "3"]),
        ({"model.init_args.channels": 3}, ["channels", "3", "1"]),
        ({"trainer.max_steps": -1}, ["max_steps"]),
        ({"model.init_args.beta": -1}, ["latent_ebm.yaml", "beta"]),
    ],
)
def test_difference_is_named(write: Write, changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        read_entries([write("least_squares"), write("latent_ebm", changes)])
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_settings_beside_the_configs_hold_for_both(write: Write) -> None:
    configs = [write("least_squares"), write("latent_ebm")]
    entries = read_entries(configs, ["--trainer.max_steps", "7", "--data.normal_speed", "2"])
    for entry in entries.values():
        assert entry.steps == 7
        assert entry.settings["data"]["init_args"]["normal_speed"] == 2
        assert entry.overrides == ("--trainer.max_steps", "7", "--data.normal_speed", "2")


def test_a_default_may_be_written_out(write: Write) -> None:
    written = {"limit_train_batches": 1.0, "precision": "32-true", "devices": "auto", "num_nodes": 1}
    written |= {"strategy": "auto", "overfit_batches": 0.0, "accumulate_grad_batches": 1}
    changes = {f"trainer.{key}": default for key, default in written.items()}
    read_entries([write("least_squares"), write("latent_ebm", changes)])


def test_both_begin_with_the_same_weights(write: Write) -> None:
    first, second = read_entries([write("least_squares"), write("latent_ebm")]).values()
    begun = replace(second, settings=second.settings | {"start_from": "a.ckpt"})
    with pytest.raises(UserError, match=r"start_from is None in .* and a\.ckpt in .*: both need the same"):
        check_comparable(first, begun)
    check_comparable(replace(first, settings=first.settings | {"start_from": "a.ckpt"}), begun)


def test_workers_may_differ(write: Write) -> None:
    read_entries([write("least_squares"), write("latent_ebm", {"data.init_args.workers": 1})])


def test_one_config_of_each_kind(write: Write, tmp_path: Path) -> None:
    first = write("latent_ebm")
    with pytest.raises(UserError, match="both have objective latent_ebm"):
        read_entries([first, write("latent_ebm", name="other")])
    with pytest.raises(UserError, match="no config has objective least_squares"):
        read_entries([first])
    with pytest.raises(UserError, match=r"no config at .*absent\.yaml"):
        read_entries([first, tmp_path / "absent.yaml"])


def test_a_mistyped_setting_names_its_file(write: Write) -> None:
    with pytest.raises(argparse.ArgumentError, match=r"(?s)least_squares\.yaml.*widht"):
        read_entries([write("least_squares", {"model.init_args.widht": 8}), write("latent_ebm")])


def test_where_a_run_is_written_does_not_change_what_is_trained() -> None:
    assert trained_settings({"run_dir": "a", "ckpt_path": "b", "data": {"seed": 1}}) == {"data": {"seed": 1}}
