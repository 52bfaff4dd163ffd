"""The machinery of run.py without a model: answers that are kept, seeds, draws, estimates, reports, and data sets on small examples."""

import importlib.util
import io
import json
import sys
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import estimate  # noqa: E402
import recipes  # noqa: E402
import report  # noqa: E402
import run as runner  # noqa: E402
from answer_store import AnswerStore, digest  # noqa: E402
from progress import Progress, duration  # noqa: E402
from served_model import ServedModel  # noqa: E402
from server import Server  # noqa: E402


class ScriptedServer:
    """Speaks as much of the protocol as ServedModel needs. A character is a token; the log-probability of one is minus its code, and x is greedy."""

    def __init__(self, failing_after=None):
        self.bodies, self.failing_after, self.busy = [], failing_after, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def reply(self, value, status=200):
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.send_header("content-type", "application/json")
                if status == 429:
                    self.send_header("retry-after", "0.01")
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                if self.path == "/v1/models":
                    self.reply({"data": [{"id": "scripted", "max_model_len": 100}]})
                else:
                    self.reply({"bos_token_id": None, "eos_token_id": 0, "eos_token": "", "bos_token": None})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/tokenize":
                    return self.reply({"tokens": list(map(ord, body["prompt"]))})
                outer.bodies.append(body)
                if outer.failing_after is not None and len(outer.bodies) > outer.failing_after:
                    return self.reply({"error": {"message": "broken", "code": "internal"}}, 500)
                if outer.busy:
                    outer.busy -= 1
                    return self.reply({"error": {"message": "busy", "code": "busy"}}, 429)
                if body.get("echo"):
                    return self.reply(outer.scored(body))
                prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
                if len(prompt) > 100:
                    return self.reply({"error": {"message": "too long", "code": "context_length_exceeded"}}, 400)
                text = f"{prompt} with seed {body['seed']}"
                choice = {"index": 0, "finish_reason": "stop", "text": text, "message": {"content": text}}
                self.reply({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 5}})

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @staticmethod
    def scored(body):
        choices = []
        for index, tokens in enumerate(body["prompt"]):
            values = [None] + [-float(token) for token in tokens[1:]] + [-0.5]
            tops = [None] + [{"t": value, "other": value if token == ord("x") else 0.0} for value, token in zip(values[1:], tokens[1:])] + [{"t": -0.5}]
            choices.append({"index": index, "logprobs": {"token_logprobs": values, "top_logprobs": tops}})
        return {"choices": choices[::-1]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def instance(*arguments, repeats=1):
    return SimpleNamespace(args=arguments, arguments=arguments, request_type="x", repeats=repeats, task_name="t", doc_id=id(arguments))


class ServedModelTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "answers.jsonl")

    def model(self, scripted, **more):
        store = AnswerStore(self.path)
        self.addCleanup(store.close)
        return ServedModel(Server(scripted.url), store, Progress("test", io.StringIO()), **more)

    def test_log_likelihoods(self):
        with ScriptedServer() as scripted:
            requests = [instance("ab", "c"), instance("ab", "xx"), instance("ab ", "d"), instance("", "x"), instance("z", "xy")]
            found = self.model(scripted).loglikelihood(requests, disable_tqdm=True)
            self.assertEqual(found, [(-99.0, False), (-240.0, True), (-132.0, False), (-120.0, True), (-241.0, False)])
            # One context's choices: the first alone, then the others together.
            contexts = [[bytes(tokens).decode() for tokens in body["prompt"]] for body in scripted.bodies]
            alone = [prompts for prompts in contexts if prompts[0].startswith("ab")]
            self.assertEqual([len(prompts) for prompts in alone], [1, 2])
            # Nothing is asked again.
            asked = len(scripted.bodies)
            self.assertEqual(self.model(scripted).loglikelihood(requests, disable_tqdm=True), found)
            self.assertEqual(len(scripted.bodies), asked)

    def test_long_contexts_are_cut_and_counted(self):
        with ScriptedServer() as scripted:
            model = self.model(scripted)
            self.assertEqual(model.loglikelihood([instance("a" * 200, "bc")], disable_tqdm=True), [(-197.0, False)])
            self.assertEqual(len(scripted.bodies[0]["prompt"][0]), 99)
            self.assertEqual(model.cut, 1)

    def test_repeats_have_seeds_of_their_own(self):
        with ScriptedServer() as scripted:
            settings = {"until": ["\n", ""], "do_sample": True, "max_gen_toks": 7}
            one, other = instance("one", settings, repeats=3), instance("other", settings, repeats=3)
            requests = [one] * 3 + [other] * 3
            found = self.model(scripted, parallel=3).generate_until(requests)
            self.assertEqual([text.split(" with")[0] for text in found], ["one"] * 3 + ["other"] * 3)
            self.assertEqual(len({body["seed"] for body in scripted.bodies}), 6)
            for body in scripted.bodies:
                self.assertEqual((body["max_tokens"], body["stop"], body["temperature"]), (7, ["\n"], 0.6))
                self.assertNotIn("do_sample", body)
            # The same again, and with another seed others.
            self.assertEqual(self.model(scripted).generate_until(requests), found)
            self.assertEqual(len(scripted.bodies), 6)
            self.assertNotEqual(self.model(scripted, seed=2).generate_until(requests), found)

    def test_an_interrupted_run_goes_on(self):
        requests = [instance(f"question {index}", {"until": []}) for index in range(20)]
        with ScriptedServer(failing_after=8) as scripted:
            with self.assertRaisesRegex(Exception, "500: broken"):
                self.model(scripted, parallel=1).generate_until(requests)
        self.assertEqual(len(self.path.read_text().splitlines()), 8)
        # The crash was in the middle of a line.
        with open(self.path, "a") as file:
            file.write('{"key": "cut sh')
        with ScriptedServer() as scripted:
            found = self.model(scripted, parallel=2).generate_until(requests)
            self.assertEqual(len(scripted.bodies), 12)
            self.assertEqual([text.split(" with")[0] for text in found], [f"question {index}" for index in range(20)])
        self.assertEqual(len([json.loads(line) for line in self.path.read_text().splitlines()]), 20)

    def test_chats(self):
        with ScriptedServer() as scripted:
            context = json.dumps([{"role": "user", "content": "hello"}])
            settings = {"until": [], "thinking_budget": 32768, "max_gen_toks": 4096, "top_k": 20}
            self.model(scripted, chat=True).generate_until([instance(context, settings)])
            self.model(scripted, chat=True, thinks=False).generate_until([instance(context, settings)])
            self.model(scripted, chat=True, budgets={"thinking_budget": 5, "max_gen_toks": 6}).generate_until([instance(context, settings)])
            first, second, third = scripted.bodies
            self.assertEqual((first["messages"], first["thinking_budget"], first["top_k"]), (json.loads(context), 32768, 20))
            self.assertEqual(second["chat_template_kwargs"], {"enable_thinking": False})
            self.assertNotIn("thinking_budget", second)
            self.assertEqual((third["thinking_budget"], third["max_tokens"]), (5, 6))

    def test_what_has_no_room_is_wrong_and_counted(self):
        with ScriptedServer() as scripted:
            model = self.model(scripted)
            self.assertEqual(model.generate_until([instance("q" * 101, {})]), [""])
            self.assertEqual(model.cut, 1)

    def test_a_busy_server_is_asked_again(self):
        with ScriptedServer() as scripted:
            scripted.busy = 3
            self.assertTrue(self.model(scripted, parallel=1).generate_until([instance("one", {})])[0].startswith("one"))
            self.assertEqual(len(scripted.bodies), 4)


class EstimateTest(unittest.TestCase):
    def test_shared_beginnings_count_once(self):
        model = SimpleNamespace(tok_encode=lambda text: list(text), chat=False, body=lambda *_: {"max_tokens": 10})
        recipe = SimpleNamespace(tokens=4, reported=50)
        speeds = estimate.Speeds(prompt=100, scored=50, answer=2)
        requests = [instance("shared " * 10 + end, {}, repeats=2) for end in "abcd"]
        cost = estimate.cost(requests, recipe, model, speeds)
        self.assertAlmostEqual(cost.prompt_tokens, 74)
        self.assertEqual((cost.answer_tokens, cost.most_answer_tokens, cost.questions), (32, 80, 4))
        self.assertAlmostEqual(cost.seconds, 0.74 + 16)
        for request in requests:
            request.request_type, request.args = "loglikelihood", (request.args[0], "!")
        self.assertAlmostEqual(estimate.cost(requests, recipe, model, speeds).seconds, 78 / 50)
        self.assertAlmostEqual(estimate.left_error(recipe, 100), 5)


class ReportTest(unittest.TestCase):
    def test_standard_errors(self):
        score, error = report.mean([1, 0, 1, 1])
        self.assertAlmostEqual(score, 75)
        self.assertAlmostEqual(error, 25)
        self.assertEqual(report.mean([1]), (100, None))
        # No question right of eight is not "0, certainly".
        self.assertAlmostEqual(report.mean([0] * 8)[1], 100 * (0.1 * 0.9 / 8) ** 0.5)
        self.assertAlmostEqual(report.mean([1] * 8)[1], 100 * (0.1 * 0.9 / 8) ** 0.5)

    def test_files(self):
        rows = [report.Row("gsm8k", "GSM8K", 2, "EM", 8, 71.65, 12.5, 3.31, 100, 1319, 60), report.Row("mmlu", "MMLU", 2, "EM", 5, 64.81, remark="no data")]
        rows[0].parts = {"a": {"score": 1.0, "error": None, "questions": 1}, "b": {"score": 2.0, "error": 1.0, "questions": 9}}
        with tempfile.TemporaryDirectory() as folder:
            report.write(Path(folder), rows, {"title": "test"})
            text = Path(folder, "report.md").read_text()
            self.assertIn("| GSM8K (table 2) | EM, 8 | 71.65 | 12.50 ± 3.31 | 100 of 1319 | 1.0 min |  |", text)
            self.assertIn("| MMLU (table 2) | EM, 5 | 64.81 |  |  | 0.0 min | no data |", text)
            self.assertIn("| b | 2.00 ± 1.00 | 9 |", text)
            self.assertEqual(json.loads(Path(folder, "report.json").read_text())["rows"][0]["score"], 12.5)
            self.assertIn("<svg", Path(folder, "report.svg").read_text())

    def test_progress(self):
        self.assertEqual(duration(65), "1 min 05 s")
        self.assertEqual(duration(3 * 3600 + 125), "3 h 02 min")
        stream = io.StringIO()
        progress = Progress("row", stream)
        progress.begin(10, "answers")
        progress.add(1, is_new=False)
        # What an earlier run has done says nothing.
        self.assertIsNone(progress.seconds_left())
        progress.start -= 10
        progress.shown = 0
        progress.add(1, is_new=True, tokens=10)
        self.assertAlmostEqual(progress.seconds_left(), 80, delta=5)
        self.assertRegex(stream.getvalue(), "row: 1 of 10 answers\nrow: 2 of 10 answers, [01].. tokens/s, 1 min")


class RecipesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from lm_eval.tasks import TaskManager

        cls.manager = TaskManager(include_path=str(HERE.parent / "tasks"))

    def test_rows_of_both_tables(self):
        self.assertEqual(len(recipes.chosen(2, None)), 12)
        self.assertEqual(len(recipes.chosen(6, None)), 8)
        self.assertEqual([recipe.name for recipe in recipes.chosen(None, ["gsm8k", "bbh"])], ["bbh", "gsm8k"])
        with self.assertRaisesRegex(ValueError, "no task gsm9k"):
            recipes.chosen(2, ["gsm9k"])

    def test_settings_of_the_report(self):
        """Section 4.3, and the repeats of table 6."""
        manager = self.manager
        for recipe in recipes.RECIPES:
            if not recipe.task or not recipe.task.startswith("sigma_"):
                continue
            self.assertIn(recipe.task, manager.all_tasks)
            text = next(path for path in (HERE.parent / "tasks").glob("*.yaml") if f"task: {recipe.task}\n" in path.read_text()).read_text()
            if recipe.metric.startswith("avg@") and recipe.table:
                repeats = int(recipe.metric[4:])
                self.assertIn("include: _chat\n", text)
                self.assertEqual(repeats == 1, f"repeats: {repeats}" not in text or repeats == 1, recipe.name)
        chat = (HERE.parent / "tasks/_chat").read_text()
        for setting in ["max_gen_toks: 4096", "thinking_budget: 32768", "temperature: 0.6", "top_p: 0.95", "top_k: 20"]:
            self.assertIn(setting, chat)

    def test_tasks_of_the_harness_exist(self):
        known = self.manager.all_tasks
        for recipe in recipes.RECIPES:
            if recipe.task and not recipe.task.startswith("sigma_"):
                self.assertIn(recipe.task, known)


class FunctionsTest(unittest.TestCase):
    """What tasks/functions.py makes of documents in the form that the data sets have."""

    @classmethod
    def setUpClass(cls):
        spec = importlib.util.spec_from_file_location("functions", HERE.parent / "tasks/functions.py")
        cls.functions = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(cls.functions)

    def score(self, name, doc, *answers):
        return getattr(self.functions, name)(doc, [list(answers)])["score"]

    def test_averages_over_repeats(self):
        self.assertEqual(self.score("boxed", {"answer": "204"}, "\\boxed{204}", "\\boxed{203}", "204", "So \\boxed{204}."), 0.5)
        self.assertEqual(self.score("boxed", {"Answer": 73}, "\\boxed{73}"), 1)
        self.assertEqual(self.score("boxed", {"answer": "\\frac{1}{2}"}, "\\boxed{0.5}"), 1)

    def test_gsm8k(self):
        self.assertEqual(self.score("gsm8k", {"answer": "...\n#### 1,072"}, " It is 1072.\n#### 1072"), 1)
        self.assertEqual(self.score("gsm8k", {"answer": "...\n#### 72"}, "#### 73"), 0)
        self.assertEqual(self.score("gsm8k", {"answer": "...\n#### 72"}, ""), 0)

    def test_bbh(self):
        for target, answer, right in [("(A)", "... So the answer is (A).", 1), ("(A)", "... So the answer is A.", 0), ("(A)", "So the answer is (B).", 0),
                                      ("True", "So the answer is True.", 1), ("valid", "So the answer is valid.", 1), ("valid", "invalid", 0),
                                      ("] >", "So the answer is ] >.", 1), ("apple banana", "So the answer is apple banana.", 1), ("24", "", 0),
                                      ("No", "the answer is Yes. Or rather, the answer is No.", 1)]:
            self.assertEqual(self.score("bbh", {"target": target}, answer), right, answer)

    def test_choices(self):
        doc = {"question": "Which?", "options": ["a", "b", "c", "d", "e"], "answer_index": 4}
        self.assertEqual(self.score("mmlu_pro", doc, "The answer is (E).", "\\boxed{D}"), 0.5)
        self.assertIn("E. e", self.functions.choice_prompt(doc))
        self.assertEqual(self.score("mmlu_redux", {"choices": ["a", "b", "c", "d"], "answer": 1}, "\\boxed{B}"), 1)
        arc = {"question": "Which? ", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
        self.assertEqual(self.functions.letters_target(arc), 1)
        self.assertEqual(self.functions.letters_prompt(arc), "Question: Which?\nA. x\nB. y\nAnswer:")

    def test_gpqa_options_are_shuffled_the_same_way_each_time(self):
        from datasets import Dataset

        rows = [{"Question": f"q{index}", "Correct Answer": "right", **{f"Incorrect Answer {number}": f"wrong {number}" for number in (1, 2, 3)}} for index in range(40)]
        first, second = (self.functions.gpqa_docs(Dataset.from_list(rows)) for _ in range(2))
        self.assertEqual(first["answer"], second["answer"])
        self.assertEqual(set(first["answer"]), {0, 1, 2, 3})
        self.assertTrue(all(row["options"][row["answer"]] == "right" for row in first))

    def test_programs(self):
        import os

        doc = {"prompt": "import math\n\ndef f(x):\n    '''Doubles.'''\n", "entry_point": "f", "test": "def check(g):\n    assert g(2) == 4\n"}
        os.environ["SIGMA_RUN_CODE"] = "0"
        with self.assertRaisesRegex(RuntimeError, "--run-code"):
            self.score("humaneval", doc, "    return x + x")
        os.environ["SIGMA_RUN_CODE"] = "1"
        try:
            self.assertEqual(self.score("humaneval", doc, "    return x + x", "    return x", "    return int(math.pow(x, 2))", "  return ("), 0.5)
            self.assertEqual(self.score("humaneval_chat", doc, "Here:\n```python\ndef f(x):\n    return 2 * x\n```\nDone.", "```\ndef f(x): return 3\n```"), 0.5)
            self.assertEqual(self.score("mbpp", {"test_list": ["assert g(1) == 1"], "test_setup_code": ""}, "def g(x):\n    return x\n[DONE]\nrubbish"), 1)
        finally:
            del os.environ["SIGMA_RUN_CODE"]

    def test_reasoning_gym(self):
        rows = self.functions.reasoning_gym_data(count=2, seed=5)["test"]
        self.assertEqual(rows["question"], self.functions.reasoning_gym_data(count=2, seed=5)["test"]["question"])
        for row in rows:
            self.assertEqual(self.score("reasoning_gym", row, f"\\boxed{{{row['answer']}}}", "\\boxed{nothing of the kind}"), 0.5, row["subject"])


class ArgumentsTest(unittest.TestCase):
    def test_wrong_usage(self):
        for given in [[], ["--table", "2"], ["--table", "3", "--model", "m"], ["--table", "2", "--model", "m", "--url", "u"],
                      ["--table", "2", "--url", "u", "--limit", "0"], ["--model", "m"]]:
            with self.assertRaises(SystemExit) as raised, open("/dev/null", "w") as nothing:
                sys.stderr, kept = nothing, sys.stderr
                try:
                    runner.arguments(given)
                finally:
                    sys.stderr = kept
            self.assertEqual(raised.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
