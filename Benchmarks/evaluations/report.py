"""A run's results beside the report's, as Markdown, JSON and a plot."""

import json
import math
from dataclasses import asdict, dataclass, field


@dataclass
class Row:
    name: str
    title: str
    table: int | None
    metric: str
    shots: int
    reported: float | None
    #: in percent, of the questions that were asked
    score: float | None = None
    error: float | None = None
    questions: int = 0
    all_questions: int = 0
    seconds: float = 0
    answer_tokens: int = 0
    remark: str = ""
    #: of parts with names: score, error, questions
    parts: dict = field(default_factory=dict)


def mean(values):
    """Mean and standard error of the mean, in percent: of the questions as a draw from more of their kind.

    Where all values are 0, or all 1, their variance says nothing: the error is that at Laplace's estimate, one right and one wrong added."""
    count = len(values)
    average = sum(values) / count
    if count < 2:
        return 100 * average, None
    variance = sum((value - average) ** 2 for value in values) / (count - 1)
    if average in (0, 1):
        share = (sum(values) + 1) / (count + 2)
        variance = share * (1 - share)
    return 100 * average, 100 * math.sqrt(variance / count)


def number(value, error=None):
    if value is None:
        return ""
    return f"{value:.2f}" + (f" ± {error:.2f}" if error is not None else "")


def markdown(rows, about):
    lines = [f"# {about['title']}", ""]
    lines += [f"- {name}: {value}" for name, value in about.items() if name != "title"]
    lines += ["", "Scores are percentages with one standard error: how far another draw of as many questions would be off.", "",
              "| benchmark | metric, shots | report | here | questions | time | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        table = f" (table {row.table})" if row.table else ""
        asked = f"{row.questions} of {row.all_questions}" if row.all_questions else ""
        lines.append(f"| {row.title}{table} | {row.metric}, {row.shots} | {number(row.reported)} | {number(row.score, row.error)} | {asked} | "
                     f"{row.seconds / 60:.1f} min | {row.remark} |")
    for row in rows:
        if len(row.parts) > 1:
            lines += ["", f"## {row.title}", "", "| part | score | questions |", "|---|---|---|"]
            lines += [f"| {name} | {number(part['score'], part['error'])} | {part['questions']} |" for name, part in sorted(row.parts.items())]
    return "\n".join(lines) + "\n"


def write(folder, rows, about):
    (folder / "report.md").write_text(markdown(rows, about), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")
    plot(folder / "report.svg", rows, about["title"])


def plot(path, rows, title):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = [row for row in rows if row.score is not None]
    if not rows:
        return
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.45 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        axes.barh(place, row.score, height=0.55, color="#3b6fb6", label="here, with one standard error" if place == 0 else None)
        if row.error is not None:
            axes.errorbar(row.score, place, xerr=row.error, color="black", capsize=3)
        if row.reported is not None:
            axes.plot([row.reported] * 2, [place - 0.38, place + 0.38], color="#c0392b", linewidth=2)
    if any(row.reported is not None for row in rows):
        axes.plot([], [], color="#c0392b", linewidth=2, label="report")
    axes.set_yticks(range(len(rows)), [f"{row.title} ({row.metric})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent")
    axes.set_title(title, fontsize=11)
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path)
    pyplot.close(figure)
