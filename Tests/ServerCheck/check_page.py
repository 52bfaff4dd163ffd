"""The page of sigma-serve in headless Chromium: what it does, and what it looks like.

    .venv-clients/bin/python Tests/ServerCheck/check_page.py [--screenshots FOLDER]

Answers come from the demo model, and, for what that never says, from a script. Every check looks at pixels too: at whether what the page has is
painted where it should be, and in which colours.
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageStat
from playwright.sync_api import sync_playwright

from scripted_server import ScriptedServer
from serving import ROOT, serving

CODE = """Here is a function that reverses a list in place, and **why** it is *linear*:

```python
def reverse(items):
    left, right = 0, len(items) - 1
    while left < right:
        items[left], items[right] = items[right], items[left]
        left, right = left + 1, right - 1
```

1. Each step swaps two items, with `left < right`.
2. So there are at most:
   - n / 2 swaps,
   - n / 2 + 1 comparisons.

| items | swaps |
|---|---|
| 10 | 5 |
| 1,000 | 500 |

> The list itself is changed. See [the manual](https://docs.python.org/3/tutorial/) or https://example.com/a_b.
"""
HOSTILE = ("<img src=x onerror=\"document.title='owned'\"> <script>document.title='owned'</script> "
           "[a](javascript:document.title='owned') <b>bold</b> &lt;i&gt;\n\n```<html>\n<script>document.title='owned'</script>\n```")


class Look:
    """A screenshot, kept as a file, and questions to its pixels."""

    def __init__(self, page, folder, name):
        data = page.screenshot(path=str(Path(folder) / f"{name}.png"))
        self.image = Image.open(io.BytesIO(data)).convert("RGB")
        self.name, self.page = name, page

    def box(self, selector):
        box = self.page.locator(selector).first.bounding_box()
        assert box, f"{self.name}: {selector} is not shown"
        left, top = max(0, int(box["x"])), max(0, int(box["y"]))
        right, bottom = min(self.image.width, int(box["x"] + box["width"])), min(self.image.height, int(box["y"] + box["height"]))
        assert right > left and bottom > top, f"{self.name}: {selector} is outside the picture: {box}"
        return self.image.crop((left, top, right, bottom))

    def background(self, selector="body"):
        """The most frequent colour."""
        crop = self.box(selector)
        return max(crop.getcolors(crop.width * crop.height))[1]

    def is_painted(self, selector):
        """Whether something that can be read stands there: enough pixels that differ clearly from the background."""
        crop, back = self.box(selector), self.background(selector)
        others = sum(count for count, colour in crop.getcolors(crop.width * crop.height) if contrast(colour, back) >= 3)
        assert others > 20, f"{self.name}: nothing to be read in {selector}: {others} pixels"
        return True

    def brightness(self):
        return ImageStat.Stat(self.image.convert("L")).mean[0]


def contrast(a, b):
    """WCAG's contrast of two colours."""
    def light(colour):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    bright, dark = sorted((light(a), light(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def fits(page):
    """Nothing is wider than the window."""
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= window, (width, window)


def ask(page, text):
    page.fill("#ask", text)
    page.press("#ask", "Enter")


def finished(page):
    page.wait_for_selector("#send:not([hidden])")


class Checks:
    def __init__(self, browser, folder, server, scripted):
        self.browser, self.folder, self.server, self.scripted = browser, folder, server, scripted
        self.errors = []

    def open(self, port=None, **options):
        context = self.browser.new_context(viewport={"width": 1200, "height": 800}, **options)
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if "Content Security" in message.text else None)
        page.goto(f"http://127.0.0.1:{port or self.scripted.port}/")
        page.wait_for_selector("#state[data-is]")
        return page

    def look(self, page, name):
        fits(page)
        return Look(page, self.folder, name)

    def empty(self):
        page = self.open(color_scheme="light")
        look = self.look(page, "empty")
        assert look.is_painted("#empty h2") and look.is_painted("#send") and look.is_painted("#model") and look.brightness() > 220
        assert page.evaluate("document.activeElement.id") == "ask"

    def answers(self):
        """The demo model: a question, a second, an edit, a retry, another conversation, and all of it again after a reload."""
        page = self.open(self.server.port)
        page.click("#open-settings")
        page.fill("[name=temperature]", "0")
        page.click("#settings button.main")
        ask(page, "What is 347 + 586?")
        finished(page)
        assert page.inner_text(".assistant .text").strip() == "347 + 586 = 933.", page.inner_text(".assistant")
        assert "tokens/s" in page.inner_text(".numbers") and "cached" in page.inner_text(".numbers")
        assert "Thought · " in page.inner_text("details.thinking summary") and page.inner_text("#status").startswith("The answer: 347")
        assert not page.locator("details.thinking[open]").count()
        page.click("details.thinking summary")
        look = self.look(page, "answer")
        assert look.is_painted("details.thinking div") and look.is_painted(".assistant .text")
        ask(page, "What is 12 + 30?")
        finished(page)
        assert page.locator(".turn").count() == 4 and " 0 cached" not in page.locator(".numbers").last.inner_text()
        page.locator(".assistant .tools button", has_text="Retry").last.click()
        finished(page)
        assert page.locator(".turn").count() == 4 and "42" in page.locator(".assistant .text").last.inner_text()
        page.press("#ask", "ArrowUp")
        page.fill(".edit textarea", "What is 20 + 30?")
        page.press(".edit textarea", "Enter")
        finished(page)
        assert page.locator(".turn").count() == 4 and "50" in page.locator(".assistant .text").last.inner_text()
        page.keyboard.press("Control+Shift+O")
        ask(page, "What is 5 + 6?")
        finished(page)
        assert page.locator("#list li").count() == 2 and page.locator(".turn").count() == 2
        page.reload()
        assert page.locator("#list li").count() == 2 and page.locator(".turn").count() == 2
        page.click("#list li:nth-child(2) .open")
        assert page.locator(".turn").count() == 4
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#list li:nth-child(2) .delete")
        assert page.locator("#list li").count() == 1 and page.locator("#empty").count() == 1

    def thinking(self):
        page = self.open(color_scheme="light")
        self.scripted.released.clear()
        self.scripted.script = [*[("thinking", f"Step {i}: swap two items. ") for i in range(40)], "hold", ("text", "Done."), "end"]
        ask(page, "How do I reverse a list?")
        page.wait_for_selector("summary:has-text('40 tokens')")
        page.click("details.thinking summary")
        look = self.look(page, "thinking")
        assert look.is_painted("details.thinking summary") and look.is_painted("details.thinking div") and look.is_painted("#stop")
        assert "Thinking · 40 tokens" in page.inner_text("summary") and page.inner_text("#status") == "The model thinks."
        self.scripted.released.set()
        finished(page)
        assert "Thought · 40 tokens" in page.inner_text("summary") and page.inner_text(".assistant .text").strip() == "Done."

    def stop(self):
        page = self.open()
        self.scripted.released.clear()
        self.scripted.script = [("text", "The first half"), "hold", "end"]
        ask(page, "Go on")
        page.wait_for_selector("text=The first half")
        page.keyboard.press("Escape")
        finished(page)
        assert "stopped" in page.inner_text(".numbers")
        self.scripted.released.set()
        self.scripted.script = [("text", ", and the second"), "end"]
        page.click("text=Continue")
        page.wait_for_selector("text=The first half, and the second")
        assert self.scripted.bodies[-1]["input"][-1] == {"role": "assistant", "content": "The first half"}

    def code(self):
        page = self.open(color_scheme="light")
        pieces = [CODE[i:i + 7] for i in range(0, len(CODE), 7)]
        self.scripted.script = [("thinking", "A list. "), *[("text", piece) for piece in pieces], "end"]
        ask(page, "Write a function that reverses a list.")
        finished(page)
        text = ".assistant .text"
        counts = {tag: page.locator(f"{text} {tag}").count() for tag in
                  ["pre code", "ol > li", "ul > li", "table tr", "blockquote a", "strong", "em", "p code, li code"]}
        assert counts == {"pre code": 1, "ol > li": 2, "ul > li": 2, "table tr": 3, "blockquote a": 2, "strong": 1, "em": 1,
                          "p code, li code": 1}, counts
        assert page.inner_text(f"{text} pre").startswith("def reverse(items):\n    left, right")
        bottom = page.evaluate("(log => log.scrollHeight - log.scrollTop - log.clientHeight)(document.getElementById('log'))")
        assert bottom < 5, f"the end is in sight: {bottom}"
        page.evaluate("document.getElementById('log').scrollTop = 0")
        look = self.look(page, "code")
        assert look.is_painted(f"{text} pre") and look.is_painted(f"{text} .code header")
        assert look.background(f"{text} pre") != look.background("#log")

    def hostile(self):
        page = self.open()
        self.scripted.script = [("thinking", HOSTILE), *[("text", HOSTILE[i:i + 3]) for i in range(0, len(HOSTILE), 3)], "end"]
        ask(page, HOSTILE)
        finished(page)
        assert page.title() == "Sigma"
        assert page.locator("#log img, #log script, #log b, #log a").count() == 0
        assert '<img src=x onerror="document.title=' in page.inner_text(".assistant .text")

    def narrow(self):
        page = self.open(color_scheme="light")
        page.set_viewport_size({"width": 360, "height": 700})
        self.scripted.script = [("text", CODE + "\n\n" + "unbroken" * 40), "end"]
        ask(page, "Write a function that reverses a list, and explain it.")
        finished(page)
        page.evaluate("document.getElementById('log').scrollTop = 0")
        look = self.look(page, "narrow")
        assert look.is_painted(".assistant .text") and look.is_painted("#send") and look.is_painted("#menu")
        assert page.locator("#side").is_hidden()
        page.click("#menu")
        page.wait_for_timeout(400)
        assert self.look(page, "narrow-menu").is_painted("#new")
        page.keyboard.press("Escape")
        page.wait_for_timeout(400)
        assert page.locator("#side").is_hidden()

    def dark(self):
        page = self.open(color_scheme="dark")
        self.scripted.script = [("thinking", "A list. "), ("text", CODE), "end"]
        ask(page, "Write a function that reverses a list.")
        finished(page)
        end = Look(page, self.folder, "dark-end")
        assert end.is_painted(".numbers") and end.is_painted(".assistant .text blockquote")
        page.evaluate("document.getElementById('log').scrollTop = 0")
        look = self.look(page, "dark")
        assert look.brightness() < 60
        for selector in (".user .body", ".assistant .text p", ".assistant .text pre", "#send", "summary", "#hint"):
            assert look.is_painted(selector)
        page.click("#open-settings")
        page.select_option("[name=theme]", "light")
        page.click("#settings button.main")
        assert self.look(page, "dark-settings-light").brightness() > 200

    def error(self):
        page = self.open(color_scheme="light")
        self.scripted.script = [(429, "too many requests are waiting; try again in 3 s")]
        ask(page, "Hello?")
        finished(page)
        assert "Too many requests" in page.inner_text(".error") and "Too many" in page.inner_text("#status")
        assert self.look(page, "error").is_painted(".error")
        self.scripted.script = [("text", "Now."), "end"]
        page.click("text=Retry")
        page.wait_for_selector(".assistant .text >> text=Now.")
        assert page.locator(".error:visible").count() == 0

    def gone(self):
        page = self.open(color_scheme="light")
        self.scripted.released.clear()
        self.scripted.script = [("text", "A beginning"), "hold"]
        ask(page, "Hello?")
        page.wait_for_selector("text=A beginning")
        page.route("**/*", lambda route: route.abort())
        self.scripted.released.set()
        finished(page)
        page.wait_for_selector("#banner:not([hidden])")
        assert "was lost" in page.inner_text(".error") and page.inner_text(".assistant .text").strip() == "A beginning"
        look = self.look(page, "gone")
        assert look.is_painted("#banner") and look.is_painted(".error")
        page.unroute("**/*")
        page.click("#again")
        page.wait_for_selector("#banner", state="hidden")

    def key(self):
        with serving(ROOT / "Models/demo.gguf", environment={"SIGMA_API_KEY": "secret"}, binary=self.server.process.args[0]) as server:
            page = self.open(server.port)
            page.wait_for_selector("#banner:not([hidden])")
            page.click("#open-settings")
            page.fill("[name=key]", "secret")
            self.look(page, "settings")
            page.click("#settings button.main")
            page.wait_for_selector("#banner", state="hidden")
            ask(page, "What is 1 + 2?")
            finished(page)
            assert page.locator(".error:visible").count() == 0

    def names(self):
        """What a screen reader says: every control has a name, and the answer is not announced before it is whole."""
        page = self.open()
        self.scripted.script = [("text", "One."), "end"]
        ask(page, "Count")
        finished(page)
        unnamed = page.evaluate("""[...document.querySelectorAll('button, input, textarea, select')].filter(element =>
            !(element.textContent.trim() || element.ariaLabel || element.labels?.length)).map(element => element.outerHTML)""")
        assert not unnamed, unnamed
        assert page.locator("[aria-live]").count() == 1 and page.inner_text("#status") == "The answer: One."
        snapshot = page.locator("body").aria_snapshot()
        for part in ("navigation \"Conversations\"", "textbox \"Your question\"", "heading \"Sigma\"", "button \"Settings\""):
            assert part in snapshot, (part, snapshot)


def check_page(server, folder):
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert executable, "Chromium is not installed"
    scripted = ScriptedServer(server.port)
    names = [name for name, value in vars(Checks).items() if callable(value) and not name.startswith("_") and name not in ("open", "look")]
    with contextlib.closing(scripted), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        checks = Checks(browser, folder, server, scripted)
        for name in names:
            try:
                getattr(checks, name)()
            except Exception as error:
                raise AssertionError(f"the page, {name}: {error}") from error
            assert not checks.errors, (name, checks.errors)
        version = browser.version
        browser.close()
    return f"page in Chromium {version}: {', '.join(names)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screenshots", help="a folder to keep them in")
    parser.add_argument("--binary")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, serving(ROOT / "Models/demo.gguf", binary=arguments.binary) as server:
        folder = arguments.screenshots or temporary
        Path(folder).mkdir(parents=True, exist_ok=True)
        print(check_page(server, folder))


if __name__ == "__main__":
    sys.exit(main())
