"""What is practised when: shares of the kinds of questions, by the tokens that training has seen.

Kinds that do not come along get more for a while. Plain sums come first, as the paper's later stages are harder.
"""

from kinds import KINDS

# Tokens, the most digits of a sum's numbers, and how often each kind comes, relative to the others: a column for each of KINDS.
ROWS = (
    (0, 4, (1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
    (2_000_000, 4, (3, 4, 5, 4, 3, 5, 5, 5, 2, 4, 1, 1)),
    (5_000_000, 6, (3, 4, 5, 4, 3, 5, 5, 5, 2, 4, 1, 1)),
    (15_500_000, 6, (1, 2, 1, 2, 2, 4, 8, 7, 10, 1, 1, 1)),
    (17_000_000, 6, (3, 4, 5, 4, 3, 5, 5, 5, 2, 4, 1, 1)),
    (17_868_871, 6, (4, 6, 3, 8, 6, 8, 2, 2, 1, 4, 1, 1)),  # practice 2
    (19_770_000, 6, (4, 6, 3, 8, 6, 8, 3, 3, 1, 4, 2, 2)),
    (21_250_000, 6, (5, 8, 3, 6, 3, 14, 2, 2, 1, 4, 2, 2)),
    (22_070_000, 6, (6, 9, 4, 7, 3, 9, 2, 2, 0, 5, 2, 1)),
    (22_980_000, 6, (5, 9, 3, 10, 2, 9, 3, 2, 0, 5, 2, 1)),
    (24_500_000, 6, (6, 5, 2, 15, 2, 14, 2, 2, 0, 3, 2, 1)),
    (25_450_000, 6, (7, 7, 3, 12, 2, 11, 3, 2, 0, 4, 5, 2)),
)


def lesson(tokens: int) -> tuple[tuple[str, ...], int]:
    """Names of kinds, each as often as it counts, and the most digits."""
    _, digits, shares = [row for row in ROWS if tokens >= row[0]][-1]
    return tuple(name for name, times in zip(KINDS, shares, strict=True) for _ in range(times)), digits
