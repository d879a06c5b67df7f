"""Self-contained HTML pages of charts and tables: what the reports have in common."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from landbridge.files import write_atomic

mpl.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "landbridge",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e6e6e6",
        "legend.frameon": False,
    }
)

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2026;max-width:960px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;margin-bottom:0}h2{font-size:1.15rem;margin:2rem 0 .4rem}p.lead{color:#555;margin-top:.2rem}
p.alarm{color:#a11;font-weight:600}
table{border-collapse:collapse;font-size:14px}td,th{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid #e6e6e6}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.row{display:flex;flex-wrap:wrap;gap:1.5rem;align-items:flex-start}.row svg,.row img{max-width:100%;height:auto}
figure{margin:0}figcaption{color:#555;font-size:13px;max-width:440px}
"""


def write_page(path: Path, title: str, parts: Sequence[str]) -> Path:
    """Write a page of HTML parts, whole or not at all; returns its path."""
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
    write_atomic(path, f"{head}<style>{STYLE}</style>" + "\n".join(parts) + "</html>\n")
    return path


def chart(figure: Figure, caption: str) -> str:
    """A figure as SVG inside the page, with a caption."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{html.escape(caption)}</figcaption></figure>"


def latencies(latency_ms: Sequence[float], budget_ms: float, axis: str, counted: str) -> Figure:
    """Histogram of latencies [ms] with their budget."""
    figure = Figure((4.8, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.hist(latency_ms, bins=60, range=(0, max(1.05 * budget_ms, *latency_ms)), color="#4d7c55")
    axes.axvline(budget_ms, color="#a33", linewidth=1, label="budget")
    axes.set(yscale="log", xlabel=f"{axis} [ms]", ylabel=counted)
    axes.set_ylim(bottom=0.7)  # a single late one shows
    axes.legend(fontsize=8)
    return figure


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a table."""
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th{_kind(value)}>{html.escape(str(key))}" for key, value in rows[0].items())
    body = "".join("<tr>" + "".join(_cell(value) for value in row.values()) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _kind(value: Any) -> str:
    """Numbers are set to the right, and so is what stands above them."""
    return " class=n" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _cell(value: Any) -> str:
    return f"<td{_kind(value)}>" + (f"{value:.4g}" if isinstance(value, float) else html.escape(str(value)))
