"""The model card of an exported model: what is known of it, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule

from ssl_ebm import __version__
from ssl_ebm.errors import UserError
from ssl_ebm.report.exporting.figures import RunFolder, number
from ssl_ebm.tasks.encoder import Encoder
from ssl_ebm.tasks.exported import settings_of

LIBRARIES = {"safetensors": "ssl_ebm", "timm": "timm", "transformers": "transformers"}
PIPELINES = {"image": "image-feature-extraction", "tokens": "feature-extraction"}  # the Hub's names
LOAD = {
    "safetensors": 'from ssl_ebm import load_encoder\n\nencoder = load_encoder("{name}")',
    "timm": 'import timm\n\nencoder = timm.create_model("local-dir:{name}", pretrained=True).eval()\n'
    "features = encoder(images)",
    "transformers": "from transformers import AutoModelForMaskedLM, AutoTokenizer\n\n"
    'model = AutoModelForMaskedLM.from_pretrained("{name}")\n'
    'tokenizer = AutoTokenizer.from_pretrained("{name}")',
}
BEGINNING = "---\nlibrary_name: "
LISTED = 12  # entries of a list; of a longer one their number is shown
TRAINER = (  # settings of the Trainer that say what was computed
    "max_steps", "max_epochs", "precision", "accumulate_grad_batches", "gradient_clip_val", "accelerator",
    "devices", "num_nodes",
)  # fmt: skip


def model_card(
    task: LightningModule, content: Mapping[str, Any], checkpoint: str | Path, out: Path, form: str
) -> str:
    """Markdown with the front matter of the Hugging Face Hub, which begins with `BEGINNING`.

    What is not known is left out: the settings of the run and its figures, where the checkpoint does not lie
    in the folder of a run.

    Args:
        task: that was exported.
        content: of its checkpoint.
        checkpoint: where that lies.
        out: what was written, for the lines that load it.
        form: "safetensors", "timm" or "transformers".
    """
    try:
        encoder = Encoder(task, content.get("data"))
    except UserError:  # an energy without features can be exported, too
        encoder = None
    run = RunFolder(checkpoint)
    parts = [
        _front_matter(task, encoder, form),
        f"# {out.stem if form == 'safetensors' else out.resolve().name}\n\n{_summary(task)}",
        _loading(encoder, out, form),
        _network(task, encoder, content),
        _section("Data", "Trained on:", content.get("data")),
        _training(content, run),
        _figures(content, run),
        _use(encoder, form),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(task: LightningModule, encoder: Encoder | None, form: str) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(task).__name__).lower()
    head: dict[str, Any] = {"library_name": LIBRARIES[form]}
    kind = encoder.inputs.name if encoder else ""
    pipeline = "fill-mask" if form == "transformers" else PIPELINES.get(kind)
    head |= {"pipeline_tag": pipeline} if pipeline else {}
    head["tags"] = ["self-supervised-learning", "energy-based-model", name]
    return f"---\n{yaml.safe_dump(head, sort_keys=False).strip()}\n---"


def _summary(task: LightningModule) -> str:
    about = (type(task).__doc__ or "").strip().splitlines()[0]
    return f"`{type(task).__name__}` of ssl_ebm {__version__}. {about}"


def _loading(encoder: Encoder | None, out: Path, form: str) -> str:
    if encoder is None:
        return ""
    name = out.name if form == "safetensors" else out.resolve().name
    text = f"## Use\n\n```python\n{LOAD[form].format(name=name)}\n```"
    if form == "transformers":
        return text
    return f"{text}\n\nFrom {encoder.inputs.describe()}, to features (B, {encoder.features})."


def _network(task: LightningModule, encoder: Encoder | None, content: Mapping[str, Any]) -> str:
    total = sum(one.numel() for one in task.parameters())
    counts = [f"{total:,} parameters, with those that only training needs"]
    if encoder is not None:
        counts.append(f"{encoder.features} features")
    return _section("Network", f"{'; '.join(counts)}. Settings of the task:", settings_of(content))


def _training(content: Mapping[str, Any], run: RunFolder) -> str:
    lines = []
    if content.get("global_step") is not None:
        lines.append(f"{content['global_step']:,} optimizer steps")
    if "seed_everything" in run.settings:
        lines.append(f"seed {run.settings['seed_everything']}")
    if not lines:
        return ""
    trainer = run.settings.get("trainer") or {}
    rest = {"trainer": {name: trainer[name] for name in TRAINER if name in trainer}} if trainer else {}
    rest |= {"data": run.settings["data"]} if "data" in run.settings else {}
    text = f"{', '.join(lines)}.{' Settings of the run:' if rest else ''}"
    return _section("Training", text, rest, always=True)


def _figures(content: Mapping[str, Any], run: RunFolder) -> str:
    parts = []
    steps = content.get("global_step")
    if found := run.validation(steps):
        rows = {name: number(value) for name, value in found.figures.items()}
        parts.append(f"Validation after {found.step:,} steps (metrics.csv):\n\n{_table(rows)}")
    parts += [f"{name}:\n\n{_table(rows)}" for name, rows in run.results(steps).items()]
    return "\n\n".join(["## Figures", *parts]) if parts else ""


def _use(encoder: Encoder | None, form: str) -> str:
    use = "filling masked words, and for features" if form == "transformers" else "features"
    use = f"{use} of data like those above: probes, fine-tuning, search" if encoder else "energies"
    return (
        f"## Intended use and limits\n\nMeant for {use}.\n"
        "What it is worth on other data was not measured here. Figures are of the data and the split that\n"
        "they name. It has learnt what its data show, with all that is missing or one-sided in them."
    )


def _section(title: str, text: str, content: Any, always: bool = False) -> str:
    """A heading, a sentence, and settings as YAML; nothing where there are none, unless `always`."""
    if not content:
        return f"## {title}\n\n{text}" if always else ""
    dumped = yaml.safe_dump(_short(content), sort_keys=False, allow_unicode=True, width=100).strip()
    return f"## {title}\n\n{text}\n\n```yaml\n{dumped}\n```"


def _short(value: Any) -> Any:
    """Plain values; of a long list, how long it is; nothing for null."""
    if isinstance(value, Mapping):
        return {str(key): _short(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return f"{len(value)} entries" if len(value) > LISTED else [_short(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _table(rows: Mapping[str, str]) -> str:
    cells = [f"| {name} | {' '.join(value.split()).replace('|', '/')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *cells])
