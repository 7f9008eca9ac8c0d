"""The frame of every page: one HTML document that needs nothing else."""

from html import escape

from ssl_ebm.report.style import style_sheet


def document(title: str, body: str, phases: set[tuple[int, int]] | None = None) -> str:
    """A whole page.

    Args:
        title: of the window, text.
        body: HTML.
        phases: (context, ticks) of the animations on it (see `style_sheet`).
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style_sheet(phases or set())}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
