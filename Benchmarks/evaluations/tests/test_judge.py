"""The judge against pairs by hand: pairs/*.txt, at least 200 of a kind."""

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import judge  # noqa: E402


def pairs(name):
    found = []
    for line in (HERE / f"pairs/{name}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("# "):
            found.append([part.replace("¶", "\n") for part in line.split(" | ")] if " | " in line else [line[:-2].rstrip(), ""])
    assert len(found) >= 200, f"{name}: {len(found)} pairs"
    return [[part for part in fields] for fields in found]


class JudgeTest(unittest.TestCase):
    def check(self, name, judgement):
        wrong = [(fields, found) for fields in pairs(name) for expected, found in [judgement(*fields)] if expected != found]
        self.assertEqual(wrong, [], f"{len(wrong)} wrong")

    def test_mathematical_equality(self):
        self.check("math", lambda verdict, reference, answer="": (verdict == "=", judge.equal(reference, answer)))

    def test_last_box(self):
        self.check("boxed", lambda verdict, reference, text="": (verdict == "=", judge.solved(reference, text)))

    def test_letters(self):
        self.check("letters", lambda letter, text="": (None if letter == "-" else letter, judge.letter(text)))

    def test_numbers(self):
        self.check("numbers", lambda number, text="": (None if number == "-" else float(number), judge.number(text)))

    def test_equality_goes_both_ways(self):
        for _, reference, answer in [pair for pair in pairs("math") if pair[0] == "=" and len(pair) == 3]:
            self.assertTrue(judge.equal(answer, reference), f"{answer} and {reference}")

    def test_letters_beyond_four(self):
        self.assertEqual(judge.letter("The answer is (J).", "ABCDEFGHIJ"), "J")
        self.assertIsNone(judge.letter("The answer is (J).", "ABCD"))
        self.assertIsNone(judge.letter("The answer is I think unclear.", "ABCD"))

    def test_hostile_answers_end(self):
        for text in ["\\boxed{" * 5000, "{" * 100_000, "9^{9^{9^{9}}}", "\\boxed{9^{9^{9^{9}}}}", "10^{10^{10}}", "(" * 3000 + ")" * 3000,
                     "\\sqrt{" * 300 + "2" + "}" * 300, "1" * 50_000, "\x00\ud7ff\u202e"]:
            self.assertFalse(judge.equal("7", text))
            self.assertFalse(judge.solved("7", text))
            judge.letter(text)
            judge.number(text)


if __name__ == "__main__":
    unittest.main()
