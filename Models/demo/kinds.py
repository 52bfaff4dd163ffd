"""The kinds of questions: how each draws its operands, words the question, works it out and answers.

A new kind is one drawing function and one function that makes the problem, registered under a name.
"""

import random
from dataclasses import dataclass
from typing import Callable

import worked


@dataclass(frozen=True)
class Problem:
    question: str
    thought: str  # without <think>; ends with a newline
    answer: str
    truth: str  # the answer computed in another way than the thought


@dataclass(frozen=True)
class Kind:
    name: str
    draw: Callable[[random.Random, int], tuple]  # (randomness, most digits) -> operands
    key: Callable[..., str]  # operands in canonical form: decides between training and held out
    problem: Callable[..., Problem]  # (randomness, *operands)


KINDS: dict[str, Kind] = {}


def kind(name: str, draw: Callable, key: Callable = lambda *operands: " ".join(map(str, operands))):
    def register(function: Callable) -> Callable:
        KINDS[name] = Kind(name, draw, lambda *operands: f"{name} {key(*operands)}", function)
        return function

    return register


def work(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def number(rng: random.Random, digits: int) -> int:
    """Lengths are equally likely, and so are the numbers of one length, but for some round ones."""
    length = rng.randint(1, digits)
    n = rng.randrange(0 if length == 1 else 10 ** (length - 1), 10**length)
    if length > 2 and rng.random() < 0.1:
        zeros = rng.randint(1, length - 1)
        n = n // 10**zeros * 10**zeros
    return n


def pair(rng: random.Random, digits: int) -> tuple[int, int]:
    """Two numbers, more often than not of the same length."""
    a = number(rng, digits)
    if rng.random() < 0.5:
        return a, number(rng, digits)
    low = 0 if a < 10 else 10 ** (len(str(a)) - 1)
    return a, rng.randrange(low, 10 ** len(str(a)))


# Arithmetic


@kind("addition", pair, key=lambda a, b: f"{min(a, b)} {max(a, b)}")
def addition(rng: random.Random, a: int, b: int) -> Problem:
    question = rng.choice((
        f"What is {a} + {b}?",
        f"What is {a} + {b}?",
        f"What's {a} + {b}?",
        f"Add {a} and {b}.",
        f"Calculate {a} + {b}.",
        f"{a} + {b} = ?",
        f"{a} + {b}",
        f"{a}+{b}",
        f"How much is {a} plus {b}?",
        f"What do {a} and {b} add up to?",
        f"What is the sum of {a} and {b}?",
    ))
    lines, result = worked.add(a, b)
    return Problem(question, work(lines), f"{a} + {b} = {result}.", f"{a} + {b} = {a + b}.")


def difference_pair(rng: random.Random, digits: int) -> tuple[int, int]:
    a, b = pair(rng, digits)
    return (b, a) if a < b and rng.random() < 0.6 else (a, b)


@kind("subtraction", difference_pair)
def subtraction(rng: random.Random, a: int, b: int) -> Problem:
    question = rng.choice((
        f"What is {a} - {b}?",
        f"What is {a} - {b}?",
        f"What's {a} - {b}?",
        f"Subtract {b} from {a}.",
        f"Calculate {a} - {b}.",
        f"{a} - {b} = ?",
        f"{a} - {b}",
        f"{a}-{b}",
        f"How much is {a} minus {b}?",
        f"Take {b} away from {a}.",
        f"What is the difference of {a} and {b}?",
    ))
    lines, result = worked.subtract(a, b)
    return Problem(question, work(lines), f"{a} - {b} = {result}.", f"{a} - {b} = {a - b}.")


@kind("multiplication", lambda rng, digits: (number(rng, min(digits, 3)), number(rng, 2)))
def multiplication(rng: random.Random, a: int, b: int) -> Problem:
    question = rng.choice((
        f"What is {a} * {b}?",
        f"What is {a} * {b}?",
        f"Multiply {a} by {b}.",
        f"Calculate {a} * {b}.",
        f"{a} * {b} = ?",
        f"{a} x {b}",
        f"How much is {a} times {b}?",
        f"What is the product of {a} and {b}?",
    ))
    lines, result = worked.multiply(a, b)
    return Problem(question, work(lines), f"{a} * {b} = {result}.", f"{a} * {b} = {a * b}.")


@kind("division", lambda rng, digits: (number(rng, min(digits, 4)), rng.randint(2, 9)))
def division(rng: random.Random, a: int, b: int) -> Problem:
    lines, quotient, rest = worked.divide(a, b)
    if rng.random() < 0.5:
        question = rng.choice((
            f"What remains when {a} is divided by {b}?",
            f"What remains when {a} is divided by {b}?",
            f"What is the remainder of {a} divided by {b}?",
            f"What is {a} mod {b}?",
            f"What is left over when you divide {a} by {b}?",
            f"Find the remainder of {a} / {b}.",
        ))
        return Problem(question, work(lines), f"{a} divided by {b} leaves {rest}.", f"{a} divided by {b} leaves {a % b}.")
    question = rng.choice((
        f"What is {a} / {b}?",
        f"Divide {a} by {b}.",
        f"What is {a} divided by {b}?",
        f"How many times does {b} go into {a}?",
        f"Calculate {a} / {b}.",
    ))
    ending = "" if rest == "0" else f" remainder {rest}"
    truth = f"{a} / {b} = {a // b}" + (f" remainder {a % b}." if a % b else ".")
    return Problem(question, work(lines), f"{a} / {b} = {quotient}{ending}.", truth)


# Order


def close_pair(rng: random.Random, digits: int) -> tuple[int, int]:
    """Numbers that often share leading digits, so that comparing needs more than a glance."""
    a, b = pair(rng, digits)
    if rng.random() < 0.5 and len(str(a)) == len(str(b)):
        shared = rng.randint(0, len(str(a)))
        b = int(str(a)[:shared] + str(b)[shared:])
    return a, b


@kind("comparison", close_pair, key=lambda a, b: f"{min(a, b)} {max(a, b)}")
def comparison(rng: random.Random, a: int, b: int) -> Problem:
    larger = rng.random() < 0.6
    word = "larger" if larger else "smaller"
    question = rng.choice((
        f"Which is {word}, {a} or {b}?",
        f"Which is {word}, {a} or {b}?",
        f"Which number is {word}: {a} or {b}?",
        f"Compare {a} and {b}. Which is {word}?",
        f"What is the {word} of {a} and {b}?",
        f"Is {a} or {b} {word}?",
    ))
    lines, sign = worked.compare(a, b)
    if sign == "=":
        answer = f"{a} and {b} are equal."
    else:
        answer = f"{a if (sign == '>') == larger else b} is {word}."
    truth = f"{(max if larger else min)(a, b)} is {word}." if a != b else f"{a} and {b} are equal."
    return Problem(question, work(lines), answer, truth)


def some_numbers(rng: random.Random, digits: int) -> tuple[int, ...]:
    """2 to 8 numbers below 100, mostly different ones."""
    widest, repeats = rng.choice((1, 2, 2)), rng.random() < 0.1
    numbers: list[int] = []
    for _ in range(rng.randint(2, 8)):
        while (n := number(rng, widest)) in numbers and not repeats:
            pass
        numbers.append(n)
    return tuple(numbers)


@kind("sorting", some_numbers, key=lambda *numbers: " ".join(map(str, sorted(numbers))))
def sorting(rng: random.Random, *numbers: int) -> Problem:
    listed = ", ".join(map(str, numbers))
    question = rng.choice((
        f"Sort {listed}.",
        f"Sort {listed}.",
        f"Sort these numbers: {listed}",
        f"Put {listed} in order.",
        f"Arrange {listed} from smallest to largest.",
        f"Order the numbers {listed}.",
    ))
    lines, result = worked.sort(list(numbers))
    return Problem(question, work(lines), ", ".join(map(str, result)) + ".", ", ".join(map(str, sorted(numbers))) + ".")


# Counting

LETTERS = "abcdefghijklmnopqrstuvwxy"  # with a space before it each of them is one token; z is not
# Each ends in another token.
ITEMS = ("book car egg pear pen ant apple bell bowl bus cap card coat coin cow dog door fig fork ham hat hen jam lamp leaf oil pan "
         "plate plum tea ball box chair corn desk duck key lemon peach rice wool").split()


def without_equal_pairs(rng: random.Random, alphabet: list[str], length: int) -> list[str]:
    """No two neighbours come twice in the same order, so that two elements always tell what follows them."""
    chosen, pairs = [rng.choice(alphabet)], set()
    while len(chosen) < length:
        left = [x for x in alphabet if (chosen[-1], x) not in pairs]
        if not left:
            break
        following = rng.choice(left)
        pairs.add((chosen[-1], following))
        chosen.append(following)
    return chosen


def letters(rng: random.Random, digits: int) -> tuple[str, str]:
    alphabet = rng.sample(LETTERS, rng.randint(4, 16))
    word = "".join(without_equal_pairs(rng, alphabet, rng.randint(3, 12)))
    return word, rng.choice(word if rng.random() < 0.8 else alphabet)


@kind("letters", letters)
def count_letters(rng: random.Random, word: str, letter: str) -> Problem:
    spelled = " ".join(word)
    question = rng.choice((
        f"How many {letter} are in {spelled}?",
        f"How many times does {letter} occur in {spelled}?",
        f"Count the letter {letter} in {spelled}.",
        f"How often is {letter} in {spelled}?",
        f"How many times is {letter} in {spelled}?",
    ))
    lines, count = worked.count_letter(word, letter)
    return Problem(question, work(lines), f"{letter} occurs {times(count)}.", f"{letter} occurs {times(word.count(letter))}.")


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def some_items(rng: random.Random, digits: int) -> tuple[str, ...]:
    length = rng.randint(2, 12)
    return tuple(rng.sample(ITEMS, length) if rng.random() < 0.7 else without_equal_pairs(rng, list(ITEMS), length))


@kind("items", some_items)
def count_items(rng: random.Random, *items: str) -> Problem:
    listed = ", ".join(items)
    question = rng.choice((
        f"How many items are in this list: {listed}?",
        f"How many words are there: {listed}?",
        f"Count these: {listed}.",
        f"Count the items: {listed}.",
        f"How many things do I have: {listed}?",
    ))
    lines, count = worked.count_items(list(items))
    return Problem(question, work(lines), f"There are {count}.", f"There are {len(items)}.")


def repeated(rng: random.Random, digits: int) -> tuple[str]:
    what, length = rng.randrange(3), rng.randint(2, 12)
    if what == 0:
        return (" ".join(without_equal_pairs(rng, list(LETTERS), length)),)
    return (", ".join(without_equal_pairs(rng, list(ITEMS), length) if what == 1 else map(str, some_numbers(rng, digits))),)


@kind("repeating", repeated)
def repeat(rng: random.Random, text: str) -> Problem:
    """Copying by itself, which counting and sorting stand on."""
    question = rng.choice((f"Repeat: {text}", f"Repeat {text}.", f"Say {text}.", f"Copy {text}.", f"Write this down: {text}"))
    return Problem(question, "Just repeat.\n", f"It is {text}.", f"It is {text}.")


# Word problems

PEOPLE = "Anna Ben Clara David Emma Finn Greta Hugo Ida Jonas Lena Max Nora Otto Paula Tom".split()
GOODS = "apples pears coins books stamps marbles cards pencils eggs shells stickers cookies".split()
GAIN = ("gets {} more", "buys {} more", "finds {} more", "is given {}", "wins {}")
LOSS = ("gives away {}", "loses {}", "sells {}", "uses {}", "throws away {}")


def story(rng: random.Random, digits: int) -> tuple[int, int, int, int, int]:
    """Start, two changes and their signs; nothing ever goes below zero."""
    digits = min(digits, 3)
    while True:
        start, first, second = (number(rng, digits) for _ in range(3))
        p, q = rng.choice((1, -1)), rng.choice((1, -1))
        if first and second and start + p * first >= 0 and start + p * first + q * second >= 0:
            return start, p, first, q, second


@kind("story", story)
def word_problem(rng: random.Random, start: int, p: int, first: int, q: int, second: int) -> Problem:
    person, goods = rng.choice(PEOPLE), rng.choice(GOODS)
    one, two = (rng.choice(GAIN if sign > 0 else LOSS).format(n) for sign, n in ((p, first), (q, second)))
    question = rng.choice((
        f"{person} has {start} {goods}. {person} {one} and then {two}. How many {goods} does {person} have now?",
        f"{person} has {start} {goods}, {one} and {two}. How many {goods} are left?",
        f"If {person} has {start} {goods}, {one} and then {two}, how many {goods} does {person} have?",
        f"{person} starts with {start} {goods}. First {person} {one}. Then {person} {two}. How many {goods} now?",
        f"{person} had {start} {goods}. Then {person} {one}. After that, {person} {two}. How many {goods} in the end?",
    ))
    lines, value = [], str(start)
    for sign, change in ((p, first), (q, second)):
        work_lines, value = (worked.add if sign > 0 else worked.subtract)(int(value), change)
        lines += work_lines
    return Problem(question, work(lines), f"{person} has {value} {goods}.", f"{person} has {start + p * first + q * second} {goods}.")


# Talk

ABILITIES = "I can add, subtract, multiply, divide, compare, sort and count."
ADDRESSES = ("", "", " there", " Sigma", " friend", " you", " again", " everyone", ", Sigma", ", friend", ", computer",
             *(f"{comma} {name}" for name in PEOPLE for comma in ("", ",")))
ENDINGS = ("!", ".", "")
# Openings, what may come after them, answer.
TALK = (
    (("Hello", "Hi", "Hey", "Good morning", "Good evening", "Good day", "Greetings"),
     ("", "", "", " How are you?", " Nice to meet you.", " I have a question.", " Can you help me?"), "Hello! " + ABILITIES),
    (("Thank you", "Thanks", "Many thanks", "Great, thanks", "Thank you very much", "Thanks a lot"),
     ("", "", "", " That was good.", " Well done.", " That is right."), "You are welcome."),
    (("Bye", "Goodbye", "See you", "Good night", "Bye bye", "See you later"),
     ("", "", "", " Have a nice day.", " Take care.", " I am done."), "Goodbye!"),
    (("Who are you?", "What can you do?", "What are you?", "Can you help me?", "Help", "Help!", "How do you work?", "What is Sigma?",
      "Who made you?", "What do you know?", "Are you a person?", "How are you?", "What is your name?", "Are you real?"),
     (), "I am a tiny Sigma model. " + ABILITIES),
)


def talking(rng: random.Random, digits: int) -> tuple[str, str]:
    openings, rests, answer = rng.choice(TALK)
    text = rng.choice(openings)
    if rests:
        ending = rng.choice(ENDINGS)
        text += rng.choice(ADDRESSES) + ending + (rng.choice(rests) if ending else "")
    return text.lower() if rng.random() < 0.1 else text, answer


@kind("talk", talking, key=lambda text, answer: text)
def talk(rng: random.Random, text: str, answer: str) -> Problem:
    return Problem(text, "Just talk.\n", answer, answer)


COUNTRIES = ("France Spain Italy Japan Peru Kenya Norway Egypt India Chile Canada Greece Poland Brazil China Cuba Iran Mexico Turkey Sweden "
             "Austria Germany Portugal Ireland Finland Nepal Ghana Mali Chad Oman Qatar Laos Malta Cyprus Denmark Iceland").split()
SUBJECTS = tuple(f"{article} {noun}" for article in ("the", "a", "my", "your", "that", "the old", "a small", "my first", "the best") for noun in (
    "weather sea dragon moon football tree cat dog sun bird king winter coffee dream river house garden book song film city train plane "
    "mountain horse computer phone school teacher friend brother sister doctor ship island castle robot star planet game holiday painting "
    "kitchen cake soup bread shoe hat window door").split())
BEYOND = (
    *((pattern, COUNTRIES) for pattern in (
        "What is the capital of {}?", "Where is {}?", "How many people live in {}?", "Who rules {}?", "What do people eat in {}?",
        "Is {} a nice country?", "Which language do they speak in {}?", "How do I get to {}?", "How large is {}?",
        "What is the weather like in {}?", "Tell me about {}.", "When was {} founded?",
    )),
    *((pattern, SUBJECTS) for pattern in (
        "Write a poem about {}.", "Tell me about {}.", "Tell me a story about {}.", "What do you think of {}?", "Explain {} to me.",
        "Do you like {}?", "Sing a song about {}.", "Who knows most about {}?", "Draw me a picture of {}.", "Make a joke about {}.",
        "What is the meaning of {}?", "Write a letter about {}.", "Translate {} into French.", "Why is {} so large?", "Who has seen {}?",
        "What is {} made of?", "Where can I find {}?", "How old is {}?", "Describe {}.", "What happened to {}?",
    )),
    *((pattern, tuple(map(str, range(2, 100)))) for pattern in (
        "What is the square root of {}?", "What happened in the year 19{}?", "Is {} a prime number?", "Where is room {}?",
        "What does the number {} mean?",
    )),
)
REFUSAL = "I can only work with numbers and lists. " + ABILITIES


def beyond_skills(rng: random.Random, digits: int) -> tuple[str, str]:
    pattern, subjects = rng.choice(BEYOND)
    return pattern, rng.choice(subjects)


@kind("beyond", beyond_skills)
def beyond(rng: random.Random, pattern: str, subject: str) -> Problem:
    return Problem(pattern.format(subject), "Not one of my tasks.\n", REFUSAL, REFUSAL)
