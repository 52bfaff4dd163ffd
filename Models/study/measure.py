"""What is written down about routing: of single steps while a model trains, and of the frozen model on held-out text."""

import csv
from pathlib import Path

import torch
import torch.nn.functional as F

from routing_statistics import Routing, layer_statistics
from runs import Run
from sigma_reference import Layout, Sigma
from strategies import Routed, load_balancing_loss, spread

AT_ONCE = 32  # windows


@torch.no_grad()
def columns_of(routed: list[Routed]) -> dict[str, str]:
    """Of each layer, in one batch: relative deviation of the most and the least used expert, entropy of f (nats), equation 1, spread of
    a token's scores and logits, mean and largest difference of the biases."""
    columns = {}
    for i, layer in enumerate(routed):
        f, bias = layer.f.double(), layer.router.e_score_correction_bias
        columns |= {
            f"most_{i}": f"{(f.max() * layer.expert_count - 1).item():.4f}",
            f"least_{i}": f"{(f.min() * layer.expert_count - 1).item():.4f}",
            f"entropy_{i}": f"{-torch.special.xlogy(f, f).sum().item():.4f}",
            f"lbl_{i}": f"{load_balancing_loss(layer).item():.4f}",
            f"score_sd_{i}": f"{spread(layer.scores).item():.4g}",
            f"logit_sd_{i}": f"{spread(layer.logits).item():.4g}",
            f"bias_mean_{i}": f"{bias.mean().item():.4g}",
            f"bias_range_{i}": f"{(bias.max() - bias.min()).item():.4g}",
        }
    return columns


@torch.no_grad()
def write_frozen(folder: Path, run: Run, model: Sigma, windows: list[list[int]]):
    """`experts.csv`: f and p of every expert. `frozen.csv`, written last: a row for each layer; the loss is nats per token."""
    routing, total, targets = Routing(model), 0.0, 0
    for first in range(0, len(windows), AT_ONCE):
        part = windows[first : first + AT_ONCE]
        x, _ = model.hidden(torch.tensor([token for window in part for token in window]), Layout.of([len(window) for window in part]))
        # Every token but a window's first is a target.
        logits = torch.cat([rows[:-1] for rows in model.lm_head(x).split([len(window) for window in part])])
        wanted = torch.tensor([token for window in part for token in window[1:]])
        total += F.cross_entropy(logits, wanted, reduction="sum").item()
        targets += len(wanted)
    rows, shares = [], []
    for layer in routing.layers:
        logits, scores, _ = routing.of(layer)
        found, bias = layer_statistics(routing, layer, tau=1.0), routing.bias(layer)
        rows.append(dict(
            variant=run.name, seed=run.seed, layer=layer, experts_per_token=found["experts_per_token"], tokens=len(scores),
            loss=f"{total / targets:.6f}", most=f"{found['deviation_max']:.6f}", least=f"{found['deviation_min']:.6f}",
            entropy=f"{found['entropy']:.6f}", unused=len(found["unused"]), lbl=f"{found['lbl']:.6f}", top1_lbl=f"{found['top1_lbl']:.6f}",
            score_sd=f"{spread(scores).item():.5g}", logit_sd=f"{spread(logits).item():.5g}", bias_mean=f"{bias.mean().item():.5g}",
            bias_range=f"{(bias.max() - bias.min()).item():.5g}",
        ))
        shares += [
            dict(layer=layer, expert=i, f=f"{f:.6f}", p=f"{p:.6f}") for i, (f, p) in enumerate(zip(found["f"], found["p"], strict=True))
        ]
    write_rows(folder / "experts.csv", shares)
    write_rows(folder / "frozen.csv", rows)


def write_rows(file: Path, rows: list[dict]):
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as rows:
        return list(csv.DictReader(rows))
