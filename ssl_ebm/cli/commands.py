"""What each command calls, with what was parsed. What is heavy is imported by the command that needs it."""

import argparse
from collections.abc import Callable, Sequence
from functools import wraps

TRUST = "--trust_config"  # `ssl_ebm.tasks.naming.FLAG`, whose module is heavy
Command = Callable[[argparse.Namespace], None]


def trusting(command: Command) -> Command:
    """A command whose checkpoints may name what they like, where the user says so."""

    @wraps(command)
    def run(options: argparse.Namespace) -> None:
        from ssl_ebm.running.trust import trusts
        from ssl_ebm.tasks.naming import importing

        if getattr(options, "trust_config", False):
            options.settings = [*options.settings, TRUST]
        if not trusts(options.settings):
            command(options)
            return
        with importing(None):
            command(options)

    return run


def compare(options: argparse.Namespace) -> None:
    from ssl_ebm.report.compare import Protocol, compare

    protocol = Protocol(clips=options.clips, samples=options.samples)
    compare(options.config, options.out, seeds=options.seeds, protocol=protocol, overrides=options.settings)


def sample(options: argparse.Namespace) -> None:
    from ssl_ebm.report.sampling import sample_futures

    path = sample_futures(
        options.ckpt,
        options.input,
        options.out,
        samples=options.samples,
        horizon=options.horizon,
        start=options.start,
        size=options.size,
        seed=options.seed,
    )
    print(path)


def inpaint(options: argparse.Namespace) -> None:
    from ssl_ebm.report.inpaint import inpaint

    paths = inpaint(
        options.ckpt,
        options.input,
        options.out,
        mask=options.mask,
        samples=options.samples,
        size=options.size,
        seed=options.seed,
    )
    print(*paths, sep="\n")


def fill(options: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from ssl_ebm.report.text import TextModel

    model = TextModel(options.ckpt)
    fillings = [model.fill(text, options.top) for text in options.texts]
    if options.json:
        print(json.dumps([asdict(one) for of_text in fillings for one in of_text], indent=1))
        return
    blocks = ("\n".join(f"{one.probability:.4f}  {one.text}" for one in of_text) for of_text in fillings)
    print("\n\n".join(blocks))


def score(options: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from ssl_ebm.report.text import TextModel

    model = TextModel(options.ckpt)
    scores = [model.score(text) for text in options.texts]
    if options.json:
        print(json.dumps([asdict(one) | {"perplexity": one.perplexity} for one in scores], indent=1))
        return
    for one in scores:
        figures = f"{one.log_likelihood:9.2f} nats, {one.tokens} tokens, perplexity {one.perplexity:.1f}"
        print(f"{figures}  {one.text}")


def export(options: argparse.Namespace) -> None:
    from ssl_ebm.report.exporting import export

    print(export(options.ckpt, options.out, options.format))


def probe(options: argparse.Namespace) -> None:
    from ssl_ebm.report.probing import Plan, probe
    from ssl_ebm.report.probing_page import finding
    from ssl_ebm.running.reading import limited_reads

    plan = Plan(
        kinds=options.kind,
        layer=options.layer,
        pooling=options.pooling,
        split=options.split,
        targets=options.targets,
        train_items=options.train_items,
        test_items=options.test_items,
        baselines=not options.no_baselines,
        seed=options.seed,
    )
    of_data = [word for word in options.settings if word != TRUST]
    with limited_reads(options.read_timeout):
        found = probe(options.ckpt, options.data, options.out, plan, of_data)
    print(f"{finding(found)}: {options.out}/probe.html")


def finetune(options: argparse.Namespace) -> None:
    from ssl_ebm.report.finetuning import Budget, finetune

    budget = Budget(options.steps, options.labels, options.labels_per_class)
    line = finetune(
        options.ckpt,
        options.data,
        options.out,
        mode=options.mode,
        budget=budget,
        seeds=options.seeds,
        settings=options.settings,
    )
    print(line)


def shard(options: argparse.Namespace) -> None:
    from ssl_ebm.report.sharding import shard

    shard(options.source, options.out, options.kind, options.shard_mb, options.on_broken, options.max_broken)


def representations(options: argparse.Namespace) -> None:
    from ssl_ebm.report.representations.recipes import Sources, recipes_for
    from ssl_ebm.report.representations.study import representations

    sources = Sources(options.images, options.text, options.text_column, options.label_column, options.corpus)
    recipes = recipes_for(options.tasks, sources, options.labels, options.steps_share)
    representations(recipes, options.out, options.seeds)


def lecture(options: argparse.Namespace) -> None:
    from ssl_ebm.lecture.gallery import gallery

    gallery(options.names, options.out, options.seeds, options.images)


def benchmark(options: argparse.Namespace) -> None:
    from ssl_ebm.report.benchmark import run

    run(options.suite, options.out, only=options.only)


def run_trainer(command: str, arguments: Sequence[str]) -> None:
    from ssl_ebm.running.runs import Run

    Run(command, arguments).execute()
