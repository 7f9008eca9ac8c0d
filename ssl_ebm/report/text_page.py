"""The page of a masked text autoencoder: what it predicts, how sure it is, and what it says of texts.

Every number on it is of `ssl_ebm.evaluation.text_quality`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from ssl_ebm.report.charts import Series, legend, lines
from ssl_ebm.report.document import document
from ssl_ebm.report.sections import section
from ssl_ebm.report.tables import cell, interval, table, tiles, value

Results = Mapping[str, Any]

KINDS = {
    "masked text": "latent_ebm",
    "trigram": "least_squares",
    "bigram": "ensemble",
    "unigram": "matched_noise",
}
SPLITS = {"val": "validation", "test": "test"}
GLARING = 10.0  # nats from which a token is shaded in full


def headline(results: Results) -> str:
    """What came of it, in a sentence."""
    ours, trigram, times = (
        results["perplexity"],
        results["trigram"]["perplexity"],
        results["perplexity_over_trigram"],
    )
    figures = f"perplexity {ours[0]:.3g}, the trigram {trigram[0]:.3g}"
    if times[2] < 1:
        return f"Hidden words are foreseen better than by a trigram: {figures} ({times[0]:.2f} times)"
    if times[1] > 1:
        return f"A trigram foresees hidden words better than this network: {figures} ({times[0]:.2f} times)"
    return f"Hidden words are foreseen about as well as by a trigram: {figures}"


def render(results: Results, about: Mapping[str, Any]) -> str:
    """The whole page, which needs nothing else.

    Args:
        results: of `text_quality`.
        about: "steps", "parameters", "device", "versions", and "task" and "data" with their settings.
    """
    split = SPLITS[results["split"]]
    many = results["documents"] > 1
    documents = f"{results['documents']:,} documents" if many else "one document"
    lead = (
        f"{about['steps']:,} steps. {results['sequences']:,} sequences of {split} text, of "
        f"{documents}, {100 * results['ratio']:g} % of their tokens hidden ({results['hidden_tokens']:,}), "
        f"all by [MASK]; 95 % intervals over {'documents' if many else 'parts of it'}; seed "
        f"{results['seed']}."
    )
    sections = [
        _predictions(results),
        _calibration(results["calibration"]),
        _fills(results["examples"]["fills"]),
        _pairs(results["pairs"]),
        _swapped(results),
        _caveats(results),
        _setup(about),
    ]
    body = f"""<h1>{escape(headline(results))}</h1>
<p class="lead">{escape(lead)}</p>
{_facts(results)}
{"".join(sections)}
<p class="soft">All figures are in text_quality_{escape(results["split"])}.json beside this page.</p>"""
    return document("A masked text autoencoder", body)


def _facts(results: Results) -> str:
    accuracy = [100 * v for v in results["accuracy"]]
    facts = [
        (f"{results['perplexity'][0]:.3g}", f"masked perplexity ({interval(results['perplexity'], 1)})"),
        (f"{accuracy[0]:.1f} %", f"of hidden tokens are its first guess ({interval(accuracy, 1)})"),
        (f"{100 * results['calibration']['error']:.1f} points", "between how sure it is and how often right"),
    ]
    if results["auroc_swapped"] is not None:
        auroc = results["auroc_swapped"]
        facts.append((f"{auroc[0]:.2f}", f"AUROC, texts against the same with two words swapped "
                      f"({interval(auroc)})"))  # fmt: skip
    return tiles(facts)


def _predictions(results: Results) -> str:
    rows = [(name, results if name == "masked text" else results[name]) for name in KINDS]
    numbers = table(
        ["", "perplexity of a hidden token", "accuracy, %"],
        [
            (name, [cell(one["perplexity"], 1), cell([100 * v for v in one["accuracy"]], 1)])
            for name, one in rows
        ],
    )
    paired = table(
        ["", "this network and the trigram"],
        [
            ("perplexity, times the trigram's", [cell(results["perplexity_over_trigram"])]),
            ("accuracy above it, points", [cell([100 * v for v in results["accuracy_above_trigram"]], 1)]),
        ],
    )
    shares = results["by_ratio"]
    series = [
        Series("masked text", KINDS["masked text"], [one["perplexity"] for one in shares]),
        Series("trigram", KINDS["trigram"], [one["trigram"]["perplexity"] for one in shares]),
    ]
    percent = [100 * one["ratio"] for one in shares]
    drawn = lines(percent, series, "hidden tokens, %", "perplexity", "Perplexity by what is hidden")
    return section(
        "Hidden tokens, beside n-grams of the same text",
        f'<div class="pair"><div>{numbers}{paired}</div><div>{legend(series)}{drawn}</div></div>',
        "Perplexity is exp of the mean energy -log p(token | the rest): 50 is as unsure as a fair choice "
        "among 50 tokens; lower is better. n-grams count the training text and see the true tokens before "
        "the hidden one, also where the network sees [MASK]; so their line is nearly level, while the "
        "network has less to go by the more is hidden. The last two rows are paired differences: the same "
        "tokens.",
    )


def _calibration(results: Results) -> str:
    bins = results["bins"]
    middle = [100 * (one["from"] + one["to"]) / 2 for one in bins]
    series = [
        Series("right", "latent_ebm", [_percent(one["right"]) for one in bins]),
        Series("as sure as it says", "exact", [_percent([one["said"]]) for one in bins]),
    ]
    drawn = lines(middle, series, "probability of the first guess, %", "%", "Calibration")
    rows = [
        (
            f"{100 * one['from']:.0f} to {100 * one['to']:.0f} %",
            [f"{one['tokens']:,}", f"{100 * one['said']:.1f}", cell(_percent(one["right"]), 1)],
        )
        for one in bins
        if one["tokens"]
    ]
    counts = table(["probability of the first guess", "tokens", "said, %", "right, %"], rows)
    folded = f"<details><summary>The numbers</summary>{counts}</details>"
    return section(
        "How sure it is, and how often right",
        legend(series) + drawn + folded,
        "Hidden tokens, sorted by the probability of the likeliest one. Of guesses that are given 70 %, 70 "
        "of 100 should be right: then the lines lie on each other. Above the straight line it is too "
        "modest, below it too sure. The mean distance, weighted by tokens, is the calibration error "
        f"({100 * results['error']:.1f} points).",
    )


def _percent(figure: Sequence[float | None] | None) -> list[float | None] | None:
    if figure is None:
        return None
    found = [None if v is None else 100 * v for v in figure]
    return None if found[0] is None else found


def _fills(examples: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in examples:
        top = " · ".join(
            f"{_bold(word, word == one['truth'])}&nbsp;{_rounded(probability)}"
            for word, probability in one["top"]
        )
        text = f"{escape(one['before'])} <b>[{escape(one['truth'])}]</b> {escape(one['after'])}"
        rows.append(f"<tr><td>{text}</td><td>{top}</td><td>{one['energy']:.2f}</td></tr>")
    if not rows:
        return ""
    head = "<tr><th>text, and in brackets the hidden word</th><th>likeliest</th><th>energy, nats</th></tr>"
    return section(
        "One word hidden",
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>',
        "Words of one token, drawn at random. The network sees the whole sequence, of which a part is "
        "shown, without the word in brackets. The energy is that of the true word, -log p.",
    )


def _rounded(probability: float) -> str:
    return f"{probability:.2f}" if probability >= 0.005 else "&lt;0.01"


def _bold(word: str, really: bool) -> str:
    return f"<b>{escape(word)}</b>" if really else escape(word)


def _pairs(pairs: Results | None) -> str:
    if pairs is None:
        return ""
    numbers = table(
        [f"energy of {pairs['pairs']:,} pairs of true words, nats", "", ""],
        [
            ("joint: -log p(y1 | x) - log p(y2 | x, y1)", [cell(pairs["joint"]), ""]),
            ("marginals: -log p(y1 | x) - log p(y2 | x)", [cell(pairs["marginals"]), ""]),
            ("what the second word owes to the first", [cell(pairs["gain"]), ""]),
        ],
        empty="",
    )
    shown = []
    for one in pairs["examples"]:
        text = f"{escape(one['before'])} <b>[{escape(' '.join(one['truth']))}]</b> {escape(one['after'])}"
        rows = [
            (
                " ".join(word["pair"]) + (" (the truth)" if word["pair"] == one["truth"] else ""),
                [f"{word['energy']:.2f}", _probability(word["probability"]), _probability(word["product"])],
            )
            for word in one["words"]
        ]
        head = ["both words", "energy, nats", "joint p(y1, y2 | x)", "product of the marginals"]
        shown.append(f"<h3>{text}</h3>{table(head, rows)}")
    return section(
        "Two words hidden: the joint is not the product of the marginals",
        numbers + "".join(shown),
        "Each softmax says what stands at its place, whatever stands at the other one: their product mixes "
        "first words of one pair with second words of another. The joint is the energy of the pair: the "
        "first word, then the second given the first. The texts are those, of 32 that were tried, where the "
        "two differ most; shown are the likeliest pairs of either kind, and the true one.",
    )


def _probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}"


def _swapped(results: Results) -> str:
    examples = results["examples"]["swapped"]
    if results["auroc_swapped"] is None:
        return ""
    rows = []
    for one in examples:
        for name, words in (("as it stands", one["real"]), ("two swapped", one["swapped"])):
            total = sum(nats for _, nats in words)
            rows.append((name, [f"{total:.1f}", "".join(_shaded(piece, nats) for piece, nats in words)]))
    shown = table(["", "energy, nats", "each token, the stronger its colour the less expected"], rows)
    return section(
        "Two words swapped",
        f"<p>AUROC {value(results['auroc_swapped'], 3)} ({interval(results['auroc_swapped'], 3)})</p>{shown}",
        "Texts of 16 tokens, and the same with two of them exchanged. The energy of a text is the sum of its "
        "tokens' -log p, each given all others. AUROC is the chance that a text as it stands has a lower one "
        "than one with two tokens exchanged: 0.5 is a coin, 1 is always. The texts are spread evenly over "
        "the sequences; a few are shown.",
    )


def _shaded(piece: str, nats: float) -> str:
    share = 75 * min(1.0, nats / GLARING)
    space = " " if piece.startswith(" ") else ""
    return (
        f'{space}<span title="{nats:.2f} nats" style="background:color-mix(in srgb, '
        f'var(--c-least_squares) {share:.0f}%, transparent)">{escape(piece.strip())}</span>'
    )


def _caveats(results: Results) -> str:
    notes = [
        "One training with one seed: the intervals are those of the texts alone. What is of one document is "
        "drawn together, and a sequence counts to the document of its middle token.",
        f"n-grams counted {results['counted_tokens']:,} tokens of the training text; their weights were "
        "chosen on validation text.",
        "Perplexity depends on the tokenizer: compare it among models with the same one.",
    ]
    if results["ratio"] != results["by_ratio"][0]["ratio"]:
        notes.append(f"The table is for {100 * results['ratio']:g} % hidden.")
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<section><h2>What to keep in mind</h2><ul>{items}</ul></section>\n"


def _setup(about: Mapping[str, Any]) -> str:
    rows = [
        ("parameters", f"{about['parameters']:,}"),
        ("device", about["device"]),
        ("versions", ", ".join(f"{name} {number}" for name, number in about["versions"].items())),
    ]
    facts = table(["", "this run"], [(name, [escape(text)]) for name, text in rows])
    folded = "".join(
        f"<details><summary>{title}</summary><pre>{escape(_yaml(about[name]))}</pre></details>"
        for title, name in (("Settings of the task", "task"), ("The data", "data"))
    )
    return f"<section><h2>How it was made</h2>{facts}{folded}</section>\n"


def _yaml(content: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))
