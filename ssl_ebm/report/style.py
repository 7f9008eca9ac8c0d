"""The style sheet of the report: ``page.css``, the colours of what is compared, and the animations."""

from importlib.resources import files

# Colours told apart by most colour-blind readers: Okabe and Ito, "Color universal design" (2008).
COLOURS = {  # kind: (light page, dark page)
    "least_squares": ("#c65200", "#f08a3c"),
    "latent_ebm": ("#0069a8", "#5cb8f2"),
    "matched_noise": ("#777777", "#a5a5a5"),
    "ensemble": ("#a87400", "#e8b93c"),
    "sharpened": ("#6b4fbb", "#a893f0"),
    "bank": ("#a8477f", "#e08fbd"),
    "telea": ("#5f6b3a", "#aebd7d"),
    "navier_stokes": ("#3a6b66", "#7dbdb5"),
    "mean_fill": ("#9a9a9a", "#777777"),
    "exact": ("#007a58", "#3ecf9f"),
    "truth": ("#007a58", "#3ecf9f"),
    "context": ("#9a9a9a", "#777777"),
}
TICK_SECONDS = 0.28  # of an animation


def style_sheet(phases: set[tuple[int, int]]) -> str:
    """The whole style sheet; ``phases`` are the (context, ticks) of the page's animations."""
    light, dark = (
        ":root { " + " ".join(f"--c-{kind}: {pair[shade]};" for kind, pair in COLOURS.items()) + " }"
        for shade in (0, 1)
    )
    rules = [light, f"@media (prefers-color-scheme: dark) {{ {dark} }}"]
    for kind in COLOURS:
        uses = {"fill": "fill", "stroke": "stroke", "bg": "background", "kind": "--kind"}
        rules += [f".{prefix}-{kind} {{ {name}: var(--c-{kind}) }}" for prefix, name in uses.items()]
    for context, ticks in sorted(phases):
        name, share = f"phase-{context}-{ticks}", 100 * context / ticks
        grey, coloured = "{ border-color: var(--c-context) }", "{ border-color: var(--kind) }"
        rules.append(f"@keyframes {name} {{ 0% {grey} {share:.4f}% {coloured} 100% {coloured} }}")
        rules.append(
            f".play-{context}-{ticks} {{ animation-name: play, {name}; "
            f"animation-duration: {ticks * TICK_SECONDS:.2f}s; "
            f"animation-timing-function: steps({ticks}, jump-none), step-end }}"
        )
    base = (files("ssl_ebm.report") / "page.css").read_text(encoding="utf-8")
    return base + "\n".join(rules)
