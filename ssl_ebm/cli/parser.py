"""The arguments of all commands."""

import argparse
from typing import NoReturn

from ssl_ebm import __version__
from ssl_ebm.cli import commands
from ssl_ebm.errors import UserError

TRAINER_COMMANDS = {
    "fit": "train a task (--config FILE.yaml, --ckpt_path last to go on)",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split",
    "predict": "write the predictions for a split",
}

TAKE_SETTINGS = ("compare", "finetune", "probe")  # commands that pass settings of fit on

EXAMPLES = """\
examples:
  ssl-ebm fit --config configs/frame_prediction/quickstart_latent_ebm.yaml --trainer.max_steps 500
  ssl-ebm fit --help                         every setting of a run
  ssl-ebm compare --config A.yaml --config B.yaml --seeds 0 1 2 --out runs/comparison
  ssl-ebm inpaint --ckpt runs/NAME/checkpoints/last.ckpt --input photo.png --mask mask.png --out completed.png
  ssl-ebm sample --ckpt runs/NAME/checkpoints/last.ckpt --input clip.mp4 --out futures.gif
"""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are of the same kind as all other mistakes of a user."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


Commands = argparse._SubParsersAction  # what `add_subparsers` makes


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        commands.TRUST, commands.TRUST.replace("_", "-"), action="store_true",
        help="the checkpoint, and a file of data, may name classes of your own (found by PYTHONPATH)",
    )  # fmt: skip


def _compare(every: Commands) -> None:
    parser = every.add_parser(
        "compare",
        help="train configs on the same data, budget and seeds; write a report",
        epilog="Any setting of fit, such as --data.folder DIR, is set for all configs.",
    )
    parser.add_argument("--config", action="append", required=True, help="a config; give one per model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to train with (default: 0)")
    parser.add_argument(
        "--clips", type=int, default=1024, help="test clips, or pictures, to measure on (default: 1024)"
    )
    parser.add_argument(
        "--samples", type=int, default=100, help="futures, or completions, to draw of each (default: 100)"
    )
    parser.add_argument("--out", required=True, help="folder for report, results and checkpoints")
    parser.set_defaults(run=commands.trusting(commands.compare))


def _sample(every: Commands) -> None:
    parser = every.add_parser("sample", help="draw futures of a clip from a trained model")
    parser.add_argument("--ckpt", required=True, help="checkpoint of a frame-prediction task")
    parser.add_argument("--input", required=True, help="a clip: mp4, avi, gif, webm, ..., or FILE.npz[ROW]")
    parser.add_argument("--samples", type=int, default=16, help="futures to draw (default: 16)")
    parser.add_argument("--horizon", type=int, default=10, help="frames to predict (default: 10)")
    parser.add_argument("--start", type=int, default=0, help="first frame of the context (default: 0)")
    parser.add_argument("--size", type=int, help="pixels a side (default: as in training)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    parser.add_argument("--out", required=True, help="the animation to write, .gif or .webp")
    _add_trust(parser)
    parser.set_defaults(run=commands.trusting(commands.sample))


def _inpaint(every: Commands) -> None:
    parser = every.add_parser("inpaint", help="fill the hole of a picture by a trained model")
    parser.add_argument("--ckpt", required=True, help="checkpoint of an inpainting task")
    parser.add_argument("--input", required=True, help="a picture")
    parser.add_argument("--mask", help="a picture of its size, white where it is to be filled in")
    parser.add_argument("--samples", type=int, default=1, help="completions to draw (default: 1)")
    parser.add_argument("--size", type=int, help="shorter side to work at (default: as in training)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    parser.add_argument("--out", required=True, help="the picture to write")
    _add_trust(parser)
    parser.set_defaults(run=commands.trusting(commands.inpaint))


def _fill(every: Commands) -> None:
    parser = every.add_parser("fill", help="fill the [MASK] of texts by a trained model")
    parser.add_argument("--ckpt", required=True, help="checkpoint of a masked-text task")
    parser.add_argument("--top", type=int, default=5, help="fillings of a text to show (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument(
        "texts", nargs="+", metavar="text", help='texts such as "the [MASK] sat on the mat", each an argument'
    )
    _add_trust(parser)
    parser.set_defaults(run=commands.trusting(commands.fill))


def _score(every: Commands) -> None:
    parser = every.add_parser(
        "score", help="how likely texts are to a trained model, each token by the others"
    )
    parser.add_argument("--ckpt", required=True, help="checkpoint of a masked-text task")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("texts", nargs="+", metavar="text", help="texts, each an argument")
    _add_trust(parser)
    parser.set_defaults(run=commands.trusting(commands.score))


def _export(every: Commands) -> None:
    parser = every.add_parser("export", help="write the encoder for other tools")
    parser.add_argument("--ckpt", required=True, help="a checkpoint")
    parser.add_argument(
        "--format", required=True, choices=("timm", "transformers", "safetensors", "onnx"),
        help="safetensors: a file with all weights, for ssl_ebm.load_encoder; onnx: a file with the encoder, "
        "for onnxruntime; timm: a folder with the encoder, for timm.create_model; transformers: a folder for "
        "AutoModelForMaskedLM and AutoTokenizer",
    )  # fmt: skip
    parser.add_argument("--out", required=True, help="the folder or the file (.safetensors, .onnx) to write")
    _add_trust(parser)
    parser.set_defaults(run=commands.trusting(commands.export))


def _probe(every: Commands) -> None:
    parser = every.add_parser(
        "probe",
        help="what frozen features say about labels: linear, knn, attentive, regression",
        epilog="Settings of the data go behind: --data ssl_ebm.data.ImageFolder --data.folder DIR",
    )
    parser.add_argument("--ckpt", required=True, help="checkpoint of a task")
    parser.add_argument(
        "--data", required=True, help="labelled data: a class such as ssl_ebm.data.ImageFolder, or a .yaml"
    )
    parser.add_argument(
        "--kind", nargs="+", choices=("linear", "knn", "attentive", "regression"),
        default=["linear", "knn"], help="probes (default: linear knn)",
    )  # fmt: skip
    parser.add_argument(
        "--layer",
        help="a module such as encoder.blocks.3, or several: blocks.2+blocks.3, 'blocks.*.mlp.act' "
        "(default: the representation)",
    )
    parser.add_argument(
        "--pooling", choices=("mean", "first", "grid"), default="mean",
        help="of its tokens; grid: means over 4 x 4 parts of a map or of patches (default: mean)",
    )  # fmt: skip
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="measured on (default: test)"
    )
    parser.add_argument(
        "--targets", nargs="+", default=["position", "velocity"], help="of a regression (default: both)"
    )
    parser.add_argument("--train_items", type=int, default=10_000, help="at most (default: 10000)")
    parser.add_argument("--test_items", type=int, default=10_000, help="at most (default: 10000)")
    parser.add_argument("--no_baselines", action="store_true", help="the checkpoint alone")
    parser.add_argument("--seed", type=int, default=0, help="of the items and random weights (default: 0)")
    parser.add_argument(
        "--read_timeout", type=float, default=600.0,
        help="seconds that a batch of data may take to load (default: 600)",
    )  # fmt: skip
    parser.add_argument("--out", required=True, help="folder for probe.json and probe.html")
    _add_trust(parser)
    parser.set_defaults(run=commands.trusting(commands.probe))


def _finetune(every: Commands) -> None:
    parser = every.add_parser(
        "finetune",
        help="train a checkpoint on labels; accuracy on validation and test",
        epilog="Settings of the data and any setting of fit go behind: --data.folder DIR --model.mixup 0.8. "
        "The result is a checkpoint of FineTuning: ssl-ebm predict --config OUT/config.yaml --ckpt_path last",
    )
    parser.add_argument("--ckpt", required=True, help="checkpoint of a pretext task")
    parser.add_argument(
        "--data", required=True, help="labelled data: a class such as ssl_ebm.data.ImageFolder, or a .yaml"
    )
    parser.add_argument(
        "--mode", choices=("full", "last", "head", "scratch"), default="full",
        help="full: all layers, the first ones slowly; last: the last blocks (--model.last_blocks) and the "
        "head; head: a linear head alone; scratch: all, from random weights (default: full)",
    )  # fmt: skip
    parser.add_argument("--labels", type=float, default=1.0, help="share of the training labels (default: 1)")
    parser.add_argument("--labels_per_class", type=int, help="so many labels of every class instead")
    parser.add_argument("--steps", type=int, default=1000, help="optimizer steps (default: 1000)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of labels, order and initial weights (default: 0)"
    )
    parser.add_argument("--out", required=True, help="folder for checkpoint, settings, finetuning.json")
    _add_trust(parser)
    parser.set_defaults(run=commands.trusting(commands.finetune))


def _shard(every: Commands) -> None:
    parser = every.add_parser(
        "shard",
        help="pack a folder of very many files into a few large ones, which training reads alike",
        epilog="Training takes OUT in place of IN: --data.folder OUT, for text --data.path OUT.",
    )
    parser.add_argument(
        "source", metavar="IN", help="a folder of pictures, clips, or text; or a file of text"
    )
    parser.add_argument(
        "out", metavar="OUT", help="the folder to write; a command that was broken off goes on"
    )
    parser.add_argument("--kind", choices=("images", "clips", "texts"), help="default: by the files' endings")
    parser.add_argument("--shard_mb", type=int, default=256, help="megabytes of a shard (default: 256)")
    parser.add_argument(
        "--on_broken", choices=("skip", "stop"), default="skip",
        help="name a file that cannot be read and leave it out, or stop (default: skip)",
    )  # fmt: skip
    parser.add_argument(
        "--max_broken", type=float, default=1.0,
        help="stop where more than this share of the files cannot be read (default: 1)",
    )  # fmt: skip
    parser.set_defaults(run=commands.shard)


def _representations(every: Commands) -> None:
    parser = every.add_parser(
        "representations",
        help="what pre-training is worth: raw input, random weights, pre-trained, from scratch; few labels",
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=("frames", "images", "text"),
        help="default: frames, which need no files, and those whose data is given",
    )  # fmt: skip
    parser.add_argument("--images", help="pictures in class folders")
    parser.add_argument("--text", help="labelled documents: a folder, or a .csv, .tsv or .jsonl")
    parser.add_argument("--text_column", default="text", help="of the documents (default: text)")
    parser.add_argument("--label_column", default="label", help="of the same (default: label)")
    parser.add_argument(
        "--corpus", help="documents to pre-train on (default: the texts of --text, without labels)"
    )
    parser.add_argument(
        "--labels", type=float, nargs=3, default=[0.01, 0.1, 1.0], metavar="SHARE",
        help="three rising shares of the training labels (default: 0.01 0.1 1)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--steps_share", type=float, default=1.0, help="of all optimizer steps, for a first look (default: 1)"
    )
    parser.add_argument("--out", required=True, help="folder for representations.html and .json")
    parser.set_defaults(run=commands.representations)


def _lecture(every: Commands) -> None:
    parser = every.add_parser("lecture", help="the lecture's examples: figures, numbers, one page")
    parser.add_argument("names", nargs="*", metavar="NAME", help="examples (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--images", help="folder with Fashion-MNIST's or MNIST's files (default: font digits)"
    )
    parser.add_argument("--out", required=True, help="folder for index.html and claims.json")
    parser.set_defaults(run=commands.lecture)


def _benchmark(every: Commands) -> None:
    parser = every.add_parser("benchmark", help="measure speed, against peers where they are installed")
    parser.add_argument("suite", nargs="?", default=None, help="one suite (default: all)")
    parser.add_argument("--out", required=True, help="folder for benchmark.html and benchmark.json")
    parser.add_argument(
        "--only", metavar="WORD", help="only the parts with this in their name, as arithmetic (default: all)"
    )
    parser.set_defaults(run=commands.benchmark)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands, except for the settings of those that run a Trainer."""
    parser = _Parser(
        prog="ssl-ebm",
        description="Self-supervised learning with energy-based models, on video, images and text.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ssl-ebm {__version__}")
    every = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in TRAINER_COMMANDS.items():
        every.add_parser(name, help=text, add_help=False)  # main passes their arguments on
    for add in (
        _compare,
        _sample,
        _inpaint,
        _fill,
        _score,
        _export,
        _probe,
        _finetune,
        _shard,
        _representations,
        _lecture,
        _benchmark,
    ):
        add(every)
    return parser
