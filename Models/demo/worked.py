"""Arithmetic worked column by column in text, as a tiny model can follow it: every line needs only digits in plain sight.

Each function returns the lines of the work and the result *as read off the lines*, never computed by other means, so that
`tasks.py --check` can hold it against ordinary arithmetic. A line ends with the running result, its newest digit in front.
"""


def aligned(a: int, b: int) -> tuple[str, str]:
    """Both numbers with as many digits as the longer one, so that columns stand at equal distances."""
    width = max(len(str(a)), len(str(b)))
    return str(a).zfill(width), str(b).zfill(width)


def plain(digits: str) -> str:
    """A number without leading zeros."""
    return digits.lstrip("0") or "0"


def add(a: int, b: int) -> tuple[list[str], str]:
    x, y = aligned(a, b)
    lines, running, carry = [f"{x}+{y}"], "", 0
    for i in reversed(range(len(x))):
        total = int(x[i]) + int(y[i]) + carry
        left = f"{x[i]}+{y[i]}" + ("+1" if carry else "")
        carry = total // 10
        if i == 0:
            running = f"{total}{running}"
            lines.append(f"{left}={total}: {running}")
        else:
            running = f"{total % 10}{running}"
            lines.append(f"{left}={total}" + (" carry 1" if carry else "") + f": {running}")
    return lines, plain(running)


def subtract(a: int, b: int) -> tuple[list[str], str]:
    """a - b; where b is larger, the difference the other way round with a minus sign."""
    x, y = aligned(a, b)
    lines = [f"{x}-{y}"]
    negative = x < y  # equally long, so this compares the leftmost digits that differ, as the model has to
    if negative:
        x, y = y, x
        lines.append(f"swap: {x}-{y}")
    running, borrow = "", 0
    for i in reversed(range(len(x))):
        top, rest = int(x[i]), int(y[i]) + borrow
        left = f"-{y[i]}" + ("-1" if borrow else "")
        borrow = int(top < rest)
        digit = top + 10 * borrow - rest
        running = f"{digit}{running}"
        lines.append(f"{top + 10 * borrow}{left}={digit}" + (" borrow 1" if borrow else "") + f": {running}")
    return lines, ("-" if negative else "") + plain(running)


def multiply_digit(a: str, digit: str) -> tuple[list[str], str]:
    """A number times one digit."""
    lines, running, carry = [f"{a}*{digit}"], "", 0
    for i in reversed(range(len(a))):
        total = int(a[i]) * int(digit) + carry
        left = f"{a[i]}*{digit}" + (f"+{carry}" if carry else "")
        carry = total // 10
        if i == 0:
            running = f"{total}{running}"
            lines.append(f"{left}={total}: {running}")
        else:
            running = f"{total % 10}{running}"
            lines.append(f"{left}={total}" + (f" carry {carry}" if carry else "") + f": {running}")
    return lines, plain(running)


def multiply(a: int, b: int) -> tuple[list[str], str]:
    """a times b of at most two digits: one row per digit of b, then their sum."""
    lines, rows = [], []
    for shift, digit in enumerate(reversed(str(b))):
        work, row = multiply_digit(str(a), digit)
        lines += work
        rows.append(plain(row + "0" * shift))
    if len(rows) == 1:
        return lines, rows[0]
    work, result = add(int(rows[0]), int(rows[1]))
    return lines + work, result


def divide(a: int, b: int) -> tuple[list[str], str, str]:
    """Long division by one digit: quotient and remainder."""
    lines, running, rest = [f"{a}/{b}"], "", 0
    for digit in str(a):
        part = int(f"{rest}{digit}")
        quotient, rest = divmod(part, b)
        running += str(quotient)
        lines.append(f"{part}/{b}={quotient} left {rest}: {running}")
    return lines, plain(running), str(rest)


def compare(a: int, b: int) -> tuple[list[str], str]:
    """"<", ">" or "=", by the leftmost column that differs."""
    x, y = aligned(a, b)
    lines = [f"{x}, {y}"]
    for p, q in zip(x, y):
        sign = "<" if p < q else ">" if p > q else "="
        lines.append(f"{p}{sign}{q}")
        if sign != "=":
            break
    return lines, sign


def sort(numbers: list[int]) -> tuple[list[str], list[int]]:
    """Takes the smallest of what is left, again and again."""
    lines, left, result = [], list(numbers), []
    while left:
        least = min(left)
        lines.append(f"{', '.join(map(str, left))}: {least}")
        left.remove(least)
        result.append(least)
    return lines, result


def tally(items: list[str], wanted: str | None) -> tuple[list[str], int]:
    """Counts along the list: all items, or those that equal `wanted`."""
    steps, count = [], 0
    for item in items:
        count += wanted is None or item == wanted
        steps.append(f"{item} {count}")
    return [", ".join(steps)], count
