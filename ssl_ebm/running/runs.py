"""One run of a Trainer from YAML files and overrides: ``fit``, ``validate``, ``test`` and ``predict``."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import set_dumper
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from ssl_ebm.data.loading import StreamData
from ssl_ebm.data.read_watch import ReadWatch
from ssl_ebm.errors import UserError, in_one_line, user_error_behind
from ssl_ebm.evaluation.loggers import KeepWandbRun, wandb_logger
from ssl_ebm.running.arguments import merge_parts, names_a_task, read_arguments, with_given
from ssl_ebm.running.chosen_checkpoint import chosen_checkpoint
from ssl_ebm.running.failures import AGAIN, GO_ON, give_up_hanging_read, remedy_for, take_late_signal
from ssl_ebm.running.lock import only_run_in
from ssl_ebm.running.metrics import MetricsTable
from ssl_ebm.running.predictions import Predictions
from ssl_ebm.running.progress import ProgressLines
from ssl_ebm.running.provenance import CONFIG, PLACES, RECORD, RunRecord, SaveConfig
from ssl_ebm.running.quiet import quieten
from ssl_ebm.running.run_settings import add_settings, launched_settings
from ssl_ebm.running.secret_words import command_without_secrets, shown_without_secrets
from ssl_ebm.running.trust import (
    Checked,
    check_configs,
    check_description,
    read_local_files_alone,
)
from ssl_ebm.tasks.blocks import checkpoint_activations, compile_stages
from ssl_ebm.tasks.checkpoints import check_task, read_checkpoint, take_weights
from ssl_ebm.tasks.config_files import read_settings, settings_as_yaml
from ssl_ebm.tasks.construction import of_bearable_size, refuse_nulls
from ssl_ebm.tasks.divergence import MAX_LOSS, WatchedTask
from ssl_ebm.tasks.hints import with_hint
from ssl_ebm.tasks.memory import keep_freed_memory
from ssl_ebm.tasks.naming import importing, in_our_words, never_importing
from ssl_ebm.tasks.precision import bearable
from ssl_ebm.tasks.saving import (
    LastCheckpoint,
    MakeRoom,
    SaveFirst,
    WholeFileIO,
    checkpoint_folder,
    goes_on_in,
    last_checkpoint,
)
from ssl_ebm.tasks.secret_settings import hidden_in, hide_from_loggers, refuse_hidden
from ssl_ebm.tasks.seeding import SeededSteps
from ssl_ebm.tasks.signals import StopOnSignal

COMMANDS = ("fit", "validate", "test", "predict")
DEFAULT_TASK = "ssl_ebm.tasks.frame_prediction.FramePrediction"
RESUME = "Checkpoint to go on from: a file, or last for that of this run's folder (none yet: from scratch)."
LEARNT = (
    "Checkpoint whose weights and settings are taken, but for settings given as --model.NAME: a file, last "
    "for that of this run's folder, none for fresh weights."
)
LARGEST_SEED = 2**32 - 1  # NumPy takes no larger one

read_local_files_alone()  # Lightning's command line, imported above, allows for addresses
set_dumper("yaml", settings_as_yaml)


class Run(LightningCLI):
    """Model, data and trainer, built from the arguments of a command; ``execute`` runs it.

    The settings are those of LightningCLI (``seed_everything``, ``trainer``, and ``model`` and ``data``,
    whose classes are chosen by ``class_path``) and those of `add_settings`.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        arguments: as on the command line: ``["--config", "a.yaml", "--trainer.max_steps", "10"]``; or already
            checked, where not all are the user's own words.

    Raises:
        UserError: a setting, file or checkpoint that the user must mend.
        argparse.ArgumentError: arguments that cannot be parsed.
    """

    def __init__(self, command: str, arguments: Sequence[str] | Checked) -> None:
        if command not in COMMANDS:
            raise UserError(f"no command {command!r}: use one of {', '.join(COMMANDS)}")
        self.command = command
        checked = arguments if isinstance(arguments, Checked) else check_configs(arguments)
        self.arguments, self.barred, own, self.flags = checked
        quieten()
        keep_freed_memory()
        try:
            with importing(self.barred, own):
                self._parse_and_make()
        except argparse.ArgumentError as error:
            options = getattr(self, "_option_names", ())
            error.message = with_hint(in_our_words(in_one_line(error)), options)
            raise

    def _parse_and_make(self) -> None:
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,  # a task has its own optimizer
            parser_kwargs={"prog": "ssl-ebm", "exit_on_error": False, "allow_abbrev": False},
            args=[self.command, *merge_parts(self.arguments)],
        )

    # --- settings ---

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # one parser to build instead of four
        return {self.command: {*LightningCLI.subcommands()[self.command], "weights_only"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_settings(parser)
        # Only where it is needed: the parser would carry the defaults of one class over to another.
        if not names_a_task(self.arguments):
            parser.set_defaults({"model": {"class_path": DEFAULT_TASK}})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        options = self._parser(self.command)._option_string_actions
        self._option_names = list(options)
        options["--ckpt_path"].help = RESUME if self.command == "fit" else LEARNT
        try:
            self.config = parser.parse_args(args)
        except OverflowError as error:  # of jsonargparse's types, which do not say where
            raise UserError(
                f"a number of the settings is too large ({in_one_line(error)}): lower it"
            ) from error
        except ValueError as error:  # of the system, as for a name with a null byte
            raise UserError(f"a setting cannot be read ({in_one_line(error)}): mend it") from error
        self._forget_places()
        refuse_hidden(self.config[self.command].as_dict())
        seed = self.setting("seed_everything")
        if not isinstance(seed, bool | None) and not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"seed_everything is {seed}: use 0 to {LARGEST_SEED}")

    def setting(self, name: str) -> Any:
        """The value of a setting, such as ``run_dir`` or ``trainer.max_steps``."""
        return self.config[self.command].get(name)

    @property
    def run_dir(self) -> Path:
        """The folder of this run: the one asked for; that of the run whose ``config.yaml`` was given; else
        ``runs/NAME`` of the first config file, NAME.yaml."""
        if chosen := self.setting("run_dir") or self.setting("trainer.default_root_dir"):
            return Path(chosen)
        files = self.setting("config") or []
        if not files:
            return Path("runs") / "default"
        return self._folder_of_config() or Path("runs") / Path(str(files[0])).stem

    def _folder_of_config(self) -> Path | None:
        """Where the ``config.yaml`` of a run lies, if the first config file is one (later ones change it)."""
        files = self.setting("config") or []
        first = Path(str(files[0])) if files else Path()
        return first.parent if first.name == CONFIG and (first.parent / RECORD).exists() else None

    def _given(self) -> set[str]:
        """Names of what the command line itself gives."""
        return {one.name for one in read_arguments(self.arguments)}

    def _forget_places(self) -> None:
        """Of a run whose ``config.yaml`` says where it was, as older ones do: it may have been moved, and
        where there are checkpoints beside the file, that is its folder.
        """
        folder = self._folder_of_config()
        if folder is None or not checkpoint_folder(folder).is_dir():
            return
        given = self._given()
        said = read_settings(folder / CONFIG) or {}
        for place in PLACES:
            part, _, name = place.rpartition(".")
            theirs = (said.get(part) or {}) if part else said
            if theirs.get(name) == self.setting(place) and f"--{place}" not in given:
                self.config[self.command][place] = None

    # --- checkpoints ---

    def _parse_ckpt_path(self) -> None:
        """Finds the checkpoint, checks that this task wrote it, and takes the model's settings from it.

        Training that goes on keeps the settings of its config: those are what the user may want to change.
        """
        path = chosen_checkpoint(self.command, self.setting("ckpt_path"), self.run_dir)
        self.config[self.command]["ckpt_path"] = None if path is None else str(path)
        if path is None:
            return
        content = read_checkpoint(path)
        check_task(content, path, self.setting("model.class_path").rpartition(".")[2])
        if self.command != "fit":
            self._take_settings(content.get("hyper_parameters", {}), path)

    def _take_settings(self, kept: Mapping[str, Any], path: Path) -> None:
        """The model's settings as a checkpoint has them, but for those that the command line itself gives (no
        config file); those that it hides are the user's to give."""
        settings = {name: one for name, one in kept.items() if not hidden_in({name: one})}
        settings.pop("_instantiator", None)  # which Lightning adds
        if not settings:
            return
        chosen = self.setting("model.class_path")
        described = settings
        if "class_path" not in settings:
            described = {"class_path": settings.pop("_class_path", chosen), "dict_kwargs": settings}
        if self.barred is not None:
            never_importing(check_description(described, path, described["class_path"] == chosen))
        part = "init_args" if described is settings else "dict_kwargs"
        parsed = self.setting("model").as_dict().get("init_args") or {}
        described = {**described, part: with_given(described.get(part) or {}, self.arguments, parsed)}
        self.config = self.parser.parse_object({self.command: {"model": described}}, self.config)

    # --- building ---

    def instantiate_classes(self) -> None:
        try:
            for part in ("model", "data"):
                described = self.setting(part)
                if described is not None:
                    refuse_nulls(described["class_path"], described.get("init_args") or {}, part)
            with of_bearable_size():
                super().instantiate_classes()
        except Exception as error:
            # jsonargparse wraps what a constructor raises.
            if (cause := user_error_behind(error)) is not None:
                raise cause from error
            if (remedy := remedy_for(error, None)) is not None:
                raise UserError(remedy) from error
            if isinstance(error, TypeError | ValueError) and self._is_of_trusted_packages():
                raise UserError(in_one_line(error)) from error
            raise
        hide_from_loggers(self.model, self.datamodule)
        self._take_checkpoint()
        self.read_watch = ReadWatch(self.setting("read_timeout"))
        for name, default in {"max_loss": MAX_LOSS, "skip_steps": 0, "lr_reference_batch": None}.items():
            if isinstance(self.model, WatchedTask):
                setattr(self.model, name, self.setting(name))
            elif self.setting(name) != default:
                raise UserError(
                    f"{name} is for tasks that are a ssl_ebm.tasks.divergence.WatchedTask, and "
                    f"{type(self.model).__name__} is none: leave it out, or make it one"
                )
        if isinstance(self.datamodule, StreamData):
            self.datamodule.read_timeout = self.read_watch.seconds
        if self.setting("activation_checkpointing"):
            checkpoint_activations(self.model)
        if (backend := self.setting("compile")) is not None:
            compile_stages(self.model, backend)

    def _take_checkpoint(self) -> None:
        """What the model needs of a checkpoint before the data is made: its tokenizer; to begin with: all."""
        asked, start = self.setting("ckpt_path"), self.setting("start_from")
        if asked is None and start is not None and self.command == "fit":
            take_weights(self.model, read_checkpoint(start), start)
        elif asked is not None:  # its weights are the Trainer's business
            self.model.on_load_checkpoint(read_checkpoint(asked))

    def _is_of_trusted_packages(self) -> bool:
        """Whether no class of the user's own is made, of whose constructor a traceback says more."""
        paths = [(self.setting(part) or {}).get("class_path", "") for part in ("model", "data")]
        return all(path.startswith("ssl_ebm.") for path in paths if path)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.command]["trainer"]
        kwargs |= {"default_root_dir": str(self.run_dir), **launched_settings(config)}
        kwargs["precision"] = bearable(config["precision"], config["accelerator"])
        if config["logger"] in (None, True):
            # `fit` adds Weights & Biases under the folder's lock. A start that resumes gets the next version.
            name = "metrics" if self.command == "fit" else self.command
            kwargs["logger"] = [MetricsTable(self.run_dir, name=name)]
        seed, resumed_from = self.setting("seed_everything"), self.setting("ckpt_path")
        start = self.setting("start_from") if resumed_from is None else None
        checkpoint = LastCheckpoint(self.run_dir, self.setting("checkpoint_every"))
        callbacks: list[Callback] = [SeededSteps(seed), checkpoint]
        if self.command == "fit":
            self._room = MakeRoom(self.run_dir, resumed_from)
            callbacks.append(self._room)
            given = ["ssl-ebm", self.command, *self.arguments, *self.flags]
            command = command_without_secrets(given)
            callbacks += [RunRecord(self.run_dir, command, seed, resumed_from, start)]
            callbacks.append(StopOnSignal(checkpoint))
        self.predictions = Predictions(self.run_dir) if self.command == "predict" else None
        if self.predictions is not None:
            callbacks.append(self.predictions)
        if config["enable_progress_bar"] is not False:
            interactive = sys.stdout.isatty()
            callbacks.append(RichProgressBar() if interactive else ProgressLines())
            kwargs["enable_progress_bar"] = interactive
        self.trainer_defaults = {"callbacks": callbacks}
        if config["plugins"] is None:
            kwargs["plugins"] = [WholeFileIO()]
            if SLURMEnvironment.detect():  # StopOnSignal queues the job again
                kwargs["plugins"].append(SLURMEnvironment(auto_requeue=False))
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError) as error:  # what the Trainer says of its settings
            raise UserError(str(error)) from error
        if self.command == "fit":
            trainer.callbacks.insert(0, SaveFirst(checkpoint))  # type: ignore[attr-defined]
        return trainer

    # --- running ---

    def _run_subcommand(self, subcommand: str) -> None:
        """Building is one step and ``execute`` another, so that a caller can look at the model in between."""

    def execute(self) -> Any:
        """Runs the command; returns what the Trainer's method returns.

        A read of data that hangs in this process for `--read_timeout` seconds is a warning here, from another
        thread; the command ``ssl-ebm`` ends the process, which the system may hold.

        Raises:
            UserError: as for the class; another process trains in this folder.
        """
        if self.command != "fit" or self.trainer.global_rank:
            return self._execute()
        with only_run_in(self.run_dir):
            return self._execute()

    def _execute(self) -> Any:
        self._add_wandb()
        arguments = self._prepare_subcommand_kwargs(self.command)
        arguments["ckpt_path"] = self.setting("ckpt_path")
        give_up = give_up_hanging_read(self.read_watch.seconds, self._what_then)
        try:
            with self.read_watch.giving_up(give_up):
                result = getattr(self.trainer, self.command)(weights_only=True, **arguments)
        except UserError:
            raise
        except (KeyboardInterrupt, SystemExit) as stop:
            stop.add_note(self._what_then())  # for who says that it was interrupted
            raise
        except Exception as error:
            take_late_signal(error)
            remedy = remedy_for(error, self.setting("ckpt_path"), self._what_then())
            if remedy is None:
                raise
            raise UserError(remedy) from error
        if self.command == "fit":
            rank_zero_info(f"checkpoint: {last_checkpoint(self.run_dir)}")
        if self.predictions is not None:
            self.predictions.write(result, self.trainer)
        return result

    def _what_then(self) -> str:
        """After a fault. What began here and took no step has no checkpoint: the folder's is another's."""
        begins = self.command == "fit" and not goes_on_in(self.run_dir, self.setting("ckpt_path"))
        return AGAIN if begins and (self._room.is_due or not self.trainer.global_step) else GO_ON

    def _add_wandb(self) -> None:
        wandb = self.setting("wandb")
        if self.command != "fit":
            if wandb != "off" and "--wandb" in self._given():  # a config file is that of a training
                rank_zero_warn(
                    f"{self.command} writes to {self.run_dir} alone: leave --wandb out, which is for fit"
                )
            return
        if getattr(self.trainer, "fast_dev_run", False):
            return
        if self.setting("trainer.logger") not in (None, True):
            if wandb != "off":
                rank_zero_warn(
                    f"trainer.logger is set, and so --wandb {wandb} does nothing: leave trainer.logger out, "
                    "or add lightning.pytorch.loggers.WandbLogger to it"
                )
            return
        resumed = goes_on_in(self.run_dir, self.setting("ckpt_path"))
        with shown_without_secrets():
            logger = wandb_logger(self.run_dir, wandb, resumed=resumed)
        if logger is not None:
            self.trainer.loggers.append(logger)
            self.trainer.callbacks.append(KeepWandbRun(self.run_dir, str(logger.version)))  # type: ignore[attr-defined]
