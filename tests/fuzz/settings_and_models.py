"""Damaged configs, checkpoints and exported models."""

from __future__ import annotations

import json
import pickletools
import random
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml
from fuzz.bases import SENTENCES, TASKS
from fuzz.mutations import changed, damaged, yaml_of
from fuzz.outcomes import Place, WrongError, check_finite, checkpoint_of, run
from safetensors.torch import save

from ssl_ebm import load_encoder, tasks
from ssl_ebm.tasks.checkpoints import load_task, read_checkpoint
from ssl_ebm.tasks.exported import _digest, read_safetensors
from ssl_ebm.tasks.saving import last_checkpoint

SMALL = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.num_nodes", "1"),
    *("--data.workers", "0", "--trainer.enable_progress_bar", "false"),
]  # fmt: skip
ONE_STEP = ["--trainer.fast_dev_run", "true"]
WHOLE = 0.5  # share of the configs with which a whole training is run, of few steps
TWO_STEPS = [
    *("--trainer.fast_dev_run", "false", "--trainer.max_steps", "2", "--trainer.max_epochs", "-1"),
    *("--trainer.min_steps", "null", "--trainer.min_epochs", "null", "--trainer.max_time", "null"),
    *("--trainer.accumulate_grad_batches", "1", "--trainer.limit_val_batches", "1"),
    *("--trainer.num_sanity_val_steps", "1", "--trainer.val_check_interval", "1"),
    *("--trainer.check_val_every_n_epoch", "null", "--checkpoint_every", "1"),
]  # fmt: skip


def config(place: Place, rng: random.Random) -> None:
    """`fit` of a step that leaves nothing, or of two that leave a checkpoint and say how they were made."""
    tree = yaml.safe_load((place.bases / "runs" / rng.choice(list(TASKS)) / "config.yaml").read_text())
    if rng.random() < 0.5:  # what a person would write
        tree = {name: tree[name] for name in ("model", "data")} | {"trainer": {"max_steps": 3}}
    tree.pop("run_dir", None)
    path = place.here / "config.yaml"
    path.write_bytes(yaml_of(tree, rng))
    here, whole = place.here / "run", rng.random() < WHOLE
    steps = TWO_STEPS if whole else ONE_STEP
    run("fit", "--config", str(path), *SMALL, *steps, "--run_dir", str(here))
    if whole:
        check_run(here)


def check_run(folder: Path) -> None:
    """Of a training of two steps: what it leaves can be read, and its numbers are finite."""
    starts = json.loads((folder / "run.json").read_text())
    if len(starts) != 1 or starts[0]["resumed_from"] is not None:
        raise WrongError(f"run.json tells of {len(starts)} starts")
    if not isinstance(yaml.safe_load((folder / "config.yaml").read_text()), dict):
        raise WrongError("config.yaml holds no settings")
    found = read_checkpoint(last_checkpoint(folder))
    if found["global_step"] != 2:
        raise WrongError(f"the checkpoint is of step {found['global_step']}, not of 2")
    weights = {name: v for name, v in found["state_dict"].items() if isinstance(v, torch.Tensor)}
    for name, values in weights.items():
        if not bool(values.isfinite().all()):
            raise WrongError(f"{name} in the checkpoint is not finite, without an error")
    if not any(bool(values.any()) for values in weights.values()):
        raise WrongError("the checkpoint holds no weight that is not 0")


def checkpoint_bytes(place: Place, rng: random.Random) -> None:
    """What can be read of a damaged checkpoint is what was written."""
    name = rng.choice(list(TASKS))
    source = checkpoint_of(place, name)
    path = place.here / "last.ckpt"
    path.write_bytes(damaged(source.read_bytes(), rng)[0])
    found = read_checkpoint(path)
    _same_weights(found["state_dict"], read_checkpoint(source)["state_dict"])
    load_encoder(path)


def exported_bytes(place: Place, rng: random.Random) -> None:
    """The same of an exported file."""
    name = rng.choice(list(TASKS))
    source = place.bases / "exported" / f"{name}.safetensors"
    path = place.here / "encoder.safetensors"
    path.write_bytes(damaged(source.read_bytes(), rng)[0])
    _same_weights(read_safetensors(path)["state_dict"], read_safetensors(source)["state_dict"])
    load_encoder(path)


def _same_weights(found: dict[str, Any], truth: dict[str, Any]) -> None:
    if found.keys() != truth.keys() or not all(torch.equal(found[name], truth[name]) for name in truth):
        raise WrongError("other weights than those that were written")


def checkpoint_pickle(place: Place, rng: random.Random) -> None:
    """The pickle inside is damaged, and the checksums are those of the damage: from a stranger."""
    name = rng.choice(list(TASKS))
    path = place.here / "last.ckpt"
    with (
        zipfile.ZipFile(checkpoint_of(place, name)) as whole,
        zipfile.ZipFile(path, "w") as made,
    ):
        for part in whole.namelist():
            content = whole.read(part)
            made.writestr(part, _damaged_pickle(content, rng) if part.endswith("data.pkl") else content)
    load_task(path, getattr(tasks, TASKS[name]))


def _damaged_pickle(content: bytes, rng: random.Random) -> bytes:
    """Bytes, or whole instructions, which leave a pickle that can be read more often."""
    if rng.random() < 0.5:
        return damaged(content, rng)[0]
    starts = [at for _, _, at in pickletools.genops(content)]
    spans = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(rng.choice((1, 2, 5))):
        a, b = rng.randrange(len(spans)), rng.randrange(len(spans))
        spans[a] = rng.choice((b"", spans[b], spans[a] * 2))
    return b"".join(spans)


def checkpoint_content(place: Place, rng: random.Random) -> None:
    """Settings and entries of a checkpoint are changed; any command is given it."""
    name = rng.choice(list(TASKS))
    content = read_checkpoint(checkpoint_of(place, name))
    if rng.random() < 0.6:
        part = rng.choice(("hyper_parameters", "data"))
        content[part] = changed(content[part], rng)
    else:
        content = changed(content, rng)
    path = place.here / "last.ckpt"
    torch.save(content, path)
    if rng.random() < 0.4:
        load_encoder(path)
        return
    run(*rng.choice(_commands(place, name, str(path))))


def _commands(place: Place, name: str, checkpoint: str) -> list[list[str]]:
    """What a user does with a checkpoint."""
    out, given = str(place.here / "out"), ["--ckpt", checkpoint]
    clip, picture = (str(place.bases / one) for one in ("clips/clip.mp4", "pictures/hole.png"))
    config = str(place.bases / "runs" / name / "config.yaml")
    again = ["--run_dir", str(place.here / "run"), "--trainer.max_steps", "4"]
    return [
        ["sample", *given, "--input", clip, "--out", f"{out}.gif", "--horizon", "2", "--samples", "2"],
        ["inpaint", *given, "--input", picture, "--out", f"{out}.png"],
        ["fill", *given, "the [MASK] is"],
        ["score", *given, "the reader is"],
        ["export", *given, "--format", "safetensors", "--out", f"{out}.safetensors"],
        ["fit", "--config", config, "--ckpt_path", checkpoint, *again],
    ]


def exported_content(place: Place, rng: random.Random) -> None:
    """Settings of an exported file are changed, and its checksum with them."""
    content = read_safetensors(place.bases / "exported" / f"{rng.choice(list(TASKS))}.safetensors")
    entries = {"task": content["task"], "steps": json.dumps(content["global_step"]), "ssl_ebm": "0"}
    for entry, part in (("settings", "hyper_parameters"), ("data", "data")):
        text = json.dumps(changed(content[part], rng), default=str, skipkeys=True)
        entries[entry] = text.encode("utf-8", "replace").decode()
    if content["tokenizer"] is not None:
        tokenizer = json.loads(content["tokenizer"])
        entries["tokenizer"] = json.dumps(changed(tokenizer, rng), default=str, skipkeys=True)
    weights = content["state_dict"]
    if rng.random() < 0.3:
        name = rng.choice(sorted(weights))
        weights[name] = rng.choice(
            (weights[name][:0], weights[name].double(), weights[name].flatten().clone())
        )
    entries["sha256"] = _digest(entries, weights)
    path = place.here / "encoder.safetensors"
    path.write_bytes(save(weights, entries))
    encoder = load_encoder(path)
    check_finite(encoder(encoder.inputs.example(2, torch.Generator().manual_seed(0))).detach())
    if content["tokenizer"] is not None:
        encoder.tokenize(SENTENCES[0])
