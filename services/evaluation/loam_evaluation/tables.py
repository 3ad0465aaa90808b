"""Figures as tables for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from loam_evaluation.measure import BUDGETS, Row

_RANKING = {
    "mode": "mode",
    "embedder": "embedder",
    "chunking": "chunking",
    "ndcg@10": "nDCG@10",
    "ndcg@10_tuning_half": "tuning half",
    "ndcg@10_held_out_half": "held-out half",
    "recall@100": "Recall@100",
    "mrr@10": "MRR@10",
    "query_ms_p50": "p50 ms",
    "query_ms_p95": "p95 ms",
}
_SPANS = {
    "chunking": "chunking",
    "mode": "mode",
    "embedder": "embedder",
    "chunks": "chunks",
    "recall": "recall",
    "precision": "precision",
    "iou": "IoU",
} | {f"recall@{budget}": f"R@{budget}" for budget in BUDGETS}


def ranking(rows: Sequence[Row]) -> None:
    """One line a row, in the order measured."""
    _print(rows, _RANKING, best="ndcg@10")


def overlap(rows: Sequence[Row]) -> None:
    """One line a row, the best recall first; the default chunking is marked."""
    _print(sorted(rows, key=lambda row: -float(row["recall"])), _SPANS, best="recall")


def answers(rows: Sequence[Row]) -> None:
    """One line."""
    _print(rows, {key: key.replace("_", " ") for key in rows[0]}, best="supported")


def _print(rows: Sequence[Row], columns: dict[str, str], best: str) -> None:
    table = Table(box=None, header_style="bold")
    for key, title in columns.items():
        table.add_column(title, justify="left" if isinstance(rows[0][key], str) else "right", no_wrap=True)
    top = max(float(row[best]) for row in rows)
    for row in rows:
        style = "green" if float(row[best]) == top else None
        table.add_row(*(_cell(key, row) for key in columns), style=style)
    Console(width=140).print(table)


def _cell(key: str, row: Row) -> str:
    value = row[key]
    if isinstance(value, float):
        return f"{value:.1f}" if key.startswith("query_ms") else f"{value:.4f}"
    return f"{value} (default)" if key == "chunking" and row.get("default") else str(value)
