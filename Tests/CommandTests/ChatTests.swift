import Foundation
import SystemLibrary
import Testing

/// The chat as a person sees it, through a pseudo-terminal.
@Suite struct ChatTests {
    static let demo = ["--model", TestModels.demo, "--threads", "1"]
    static let greedy = demo + ["--temperature", "0"]
    /// Talks nonsense, and does not stop by itself.
    static let endless = [
        "--model", TestModels.endless, "--threads", "1", "--temperature", "20", "--top-k", "0", "--top-p", "1",
        "--max-tokens", "1000000", "--context", "1000000",
    ]
    static let question = "What is 347 + 586?"

    /// Places of the answer's line ends do not matter here.
    static func has(_ screen: VirtualTerminal, _ text: String) -> Bool { screen.text.contains(text) }

    @Test func answersStreamAndTheConversationGoesOn() throws {
        let whole = try JSONRun(Self.greedy + ["--prompt", Self.question])
        let chat = try ChatProcess(Self.greedy)
        try chat.waitForPrompt()
        chat.enter(Self.question)
        try chat.wait("the answer") { Self.has($0, "933") && $0.cursorRow == ">" }
        // Thinking was shown as it came, then folded to its number of tokens.
        let thoughts = try #require(whole.done.stat("thinking_tokens"))
        #expect(Self.has(chat.screen, "thought: \(thoughts) tokens"))
        #expect(!Self.has(chat.screen, "thinking:"))
        let written = String(decoding: chat.output, as: UTF8.self)
        #expect(written.components(separatedBy: "thinking: ").count > 5)
        for line in whole.text("answer").split(separator: "\n") { #expect(Self.has(chat.screen, String(line))) }

        // The second turn has only its own tokens to read: the answer was read while nobody typed. When, is up to the machine.
        chat.enter("What is 12 + 35?")
        try chat.wait("the second answer") { Self.has($0, "47") && $0.cursorRow == ">" }
        chat.enter("/stats")
        try chat.wait("statistics") { Self.has($0, "2 questions") && $0.cursorRow == ">" }
        #expect(Self.has(chat.screen, "were in the cache") && !Self.has(chat.screen, " 0 were in the cache"))
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    @Test func thinkingUnfolds() throws {
        let whole = try JSONRun(Self.greedy + ["--prompt", Self.question])
        let lines = whole.text("thinking").split(separator: "\n").map(String.init)
        try #require(lines.count > 2)
        let chat = try ChatProcess(Self.greedy)
        try chat.waitForPrompt()
        chat.enter(Self.question)
        try chat.wait("the answer") { Self.has($0, "thought:") && $0.cursorRow == ">" }
        #expect(!Self.has(chat.screen, lines[1]))
        // Ctrl-O, with something typed that stays.
        chat.type("half a")
        chat.type("\u{f}")
        try chat.wait("the thinking") { screen in
            lines.allSatisfy { Self.has(screen, $0) } && screen.cursorRow == "> half a"
        }
        chat.type("\u{15}")
        chat.enter("/think show")
        try chat.wait("the confirmation") { Self.has($0, "Thinking is shown") && $0.cursorRow == ">" }
        let rows = chat.screen.rows.count
        chat.enter("What is 12 + 35?")
        try chat.wait("the second answer") { Self.has($0, "47.") && $0.cursorRow == ">" }
        #expect(chat.screen.rows[rows...].contains { $0.hasPrefix("thought: ") })
        #expect(chat.screen.rows.count > rows + 4)
        chat.enter("/quit")
        #expect(try chat.end() == 0)
    }

    @Test func controlCStopsTheAnswerAndKeepsTheConversation() throws {
        let chat = try ChatProcess(Self.endless + ["--no-think"])
        try chat.waitForPrompt()
        chat.enter("one")
        // A good part of the answer is there.
        try chat.wait("an answer") { $0.text.count > 200 }
        chat.type("\u{3}")
        try chat.wait("the stop") { Self.has($0, "Stopped.") && $0.cursorRow == ">" }
        // By another process's signal as well.
        chat.enter("two")
        let length = chat.screen.text.count
        try chat.wait("the next answer") { $0.text.count > length + 200 }
        kill(chat.pid, SIGINT)
        try chat.wait("the second stop") {
            $0.text.components(separatedBy: "Stopped.").count == 3 && $0.cursorRow == ">"
        }
        chat.enter("/stats")
        try chat.wait("both turns") { Self.has($0, "2 questions") }
        // At the prompt it drops what was typed, then tells how to leave.
        chat.type("never sent\u{3}")
        try chat.wait("a new prompt") { $0.cursorRow == ">" && Self.has($0, "> never sent") }
        chat.type("\u{3}")
        try chat.wait("the hint") { Self.has($0, "Ctrl-D leaves") }
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    @Test func stoppedThinkingIsNoTurn() throws {
        let chat = try ChatProcess(Self.endless)
        try chat.waitForPrompt()
        chat.enter("one")
        try chat.wait("thinking") { Self.has($0, "thinking: 3") }
        chat.type("\u{3}")
        try chat.wait("the stop") { Self.has($0, "not part of the conversation") && $0.cursorRow == ">" }
        chat.enter("/undo")
        try chat.wait("nothing") { Self.has($0, "nothing to take back") }
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    @Test func whatIsTypedMeanwhileStandsAtThePrompt() throws {
        let chat = try ChatProcess(Self.endless + ["--no-think"])
        try chat.waitForPrompt()
        chat.enter("one")
        try chat.wait("an answer") { $0.text.count > 100 }
        chat.type("typed ahéad")
        chat.type("\u{3}")
        try chat.wait("the prompt with it") { $0.cursorRow == "> typed ahéad" }
        chat.type("\u{15}\u{4}")
        #expect(try chat.end() == 0)
    }

    // MARK: - Editing

    @Test func editingAndHistory() throws {
        let state = Scratch.path("state")
        let chat = try ChatProcess(Self.greedy, stateFolder: state)
        try chat.waitForPrompt()
        // Ctrl-A, Delete, to the end, Backspace, a word back, text in between.
        chat.type("Xhello wrold")
        chat.type("\u{1}\u{1b}[3~\u{5}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{1b}[1;5Dbig ")
        try chat.wait("the edited line") { $0.cursorRow == "> big hello" && $0.column == 6 }
        chat.type("\u{15}\u{b}")
        try chat.wait("an empty line") { $0.cursorRow == ">" }
        for text in ["/think", "/system", "/no-such"] {
            chat.enter(text)
            try chat.wait(text) {
                $0.cursorRow == ">" && $0.rows.suffix(3).contains { $0.contains("hink") || $0.contains("here is no") }
            }
        }
        chat.type("draft\u{1b}[A")
        try chat.wait("the last one") { $0.cursorRow == "> /no-such" }
        chat.type("\u{1b}[A\u{1b}[A\u{1b}[A")
        try chat.wait("the oldest") { $0.cursorRow == "> /think" }
        chat.type("\u{1b}[B\u{e}\u{1b}[B")
        try chat.wait("what was being typed") { $0.cursorRow == "> draft" }
        chat.type("\u{15}\u{12}sys")
        try chat.wait("the search") { $0.cursorRow == "(search: sys) /system" }
        chat.type("\u{1b}[D")
        try chat.wait("the found line") { $0.cursorRow == "> /system" && $0.column == 8 }
        chat.type("\u{15}\u{b}/th\t")
        try chat.wait("the completion") { $0.cursorRow == "> /think" && $0.column == 9 }
        chat.type("\u{15}\u{4}")
        #expect(try chat.end() == 0)

        // The next chat knows them.
        let next = try ChatProcess(Self.greedy, stateFolder: state)
        try next.waitForPrompt()
        next.type("\u{1b}[A")
        try next.wait("the last chat's message") { $0.cursorRow == "> /no-such" }
        next.type("\u{3}\u{4}")
        #expect(try next.end() == 0)
        let kept = try String(contentsOfFile: state + "/sigma/history", encoding: .utf8)
        #expect(kept == "/think\n/system\n/no-such\n")
    }

    @Test func pastedTextKeepsItsLines() throws {
        let state = Scratch.path("state")
        let chat = try ChatProcess(Self.greedy + ["--no-think"], stateFolder: state)
        try chat.waitForPrompt()
        #expect(chat.screen.pasteIsBracketed)
        chat.paste("What is\n12 + 35?")
        try chat.wait("both lines") { $0.cursorRow == ". 12 + 35?" && Self.has($0, "> What is\n. 12 + 35?") }
        chat.type("\u{1b}\r\u{1b}[A\u{1b}[A")
        try chat.wait("the cursor in the first line") { $0.cursorRow == "> What is" && $0.column == 2 }
        chat.enter("")
        try chat.wait("the answer") { $0.cursorRow == ">" && $0.rows.count > 4 }
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
        let kept = try String(contentsOfFile: state + "/sigma/history", encoding: .utf8)
        #expect(kept == "What is\\n12 + 35?\\n\n")
    }

    @Test func anotherWindowSizeIsFollowed() throws {
        let chat = try ChatProcess(Self.greedy, columns: 60, height: 20)
        try chat.waitForPrompt()
        let text = "the quick brown fox jumps over the lazy dog and 日本語 too, twice at least 🦉"
        chat.type(text)
        /// The whole message in rows, prompt first, and nothing left over behind it.
        func shows(_ screen: VirtualTerminal, columns: Int, _ text: String) -> Bool {
            guard let first = screen.rows.lastIndex(where: { $0.hasPrefix("> ") }) else { return false }
            let rows = screen.rows[first...]
            let joined = rows.joined().filter { $0 != " " }
            return joined == (">" + text).filter { $0 != " " } && rows.dropLast().allSatisfy { $0.count <= columns }
                && screen.rows.filter { $0.hasPrefix("> ") }.count == 1
        }
        try chat.wait("the message") { shows($0, columns: 60, text) && $0.row == $0.rows.count - 1 }
        for columns in [30, 17, 40, 9, 80] {
            chat.resize(columns: columns, height: 20)
            try chat.wait("the message in \(columns) columns") { shows($0, columns: columns, text) }
            // It goes on where it was.
            chat.type("!")
            try chat.wait("a character more") { shows($0, columns: columns, text + "!") }
            chat.type("\u{7f}")
            try chat.wait("a character less") { shows($0, columns: columns, text) }
        }
        chat.type("\u{1}\u{b}\u{4}")
        #expect(try chat.end() == 0)
    }

    @Test func aMessageLongerThanTheScreen() throws {
        let chat = try ChatProcess(Self.greedy, columns: 20, height: 6)
        try chat.waitForPrompt()
        chat.paste((1...30).map { "line \($0)" }.joined(separator: "\n"))
        try chat.wait("its end") { $0.cursorRow == ". line 30" }
        chat.type(String(repeating: "\u{1b}[A", count: 29))
        try chat.wait("its beginning") { $0.cursorRow == "> line 1" }
        chat.type("\u{3}")
        try chat.wait("a new prompt") { $0.cursorRow == ">" }
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    // MARK: - Commands

    @Test func commands() throws {
        let chat = try ChatProcess(Self.greedy + ["--no-think"])
        try chat.waitForPrompt()
        for (text, answer) in [
            ("/help", "begins with / is written with two"), ("/think", "Thinking is off"),
            ("/think on", "Thinking is on"),
            ("/think off", "is off"), ("/think perhaps", "There is no /think perhaps"), ("/system", "no system prompt"),
            ("/system Be brief.", "read again"), ("/system", "Be brief."), ("/system off", "read again"),
            ("/save", "/save FILE"), ("/load", "/load FILE"), ("/load /no/such/file", "error: /no/such/file"),
            ("/stats", "0 questions"), ("/undo", "nothing to take back"), ("/clear", "A new conversation"),
        ] {
            let count = chat.screen.rows.count
            chat.enter(text)
            try chat.wait("the answer to \(text)") { screen in
                screen.cursorRow == ">" && screen.rows.count > count
                    && screen.rows[(count - 1)...].joined(separator: "\n").contains(answer)
            }
        }
        // A message with a slash is a message.
        chat.enter("//etc")
        try chat.wait("an answer") {
            $0.cursorRow == ">" && $0.rows.last == ">" && $0.rows.suffix(2).first != "> //etc"
        }
        chat.enter("/stats")
        try chat.wait("a turn") { Self.has($0, "1 question") }
        chat.enter("/undo")
        try chat.wait("no turn") { Self.has($0, "0 questions left") }
        chat.enter("/quit")
        #expect(try chat.end() == 0)
    }

    @Test func theContextLimitIsTold() throws {
        let chat = try ChatProcess(Self.greedy + ["--no-think", "--context", "60"])
        try chat.waitForPrompt()
        for _ in 0..<6 where !Self.has(chat.screen, "/clear begins anew") {
            let count = chat.screen.rows.filter { $0.hasPrefix(">") }.count
            chat.enter(Self.question)
            try chat.waitForPrompt(after: count)
        }
        #expect(Self.has(chat.screen, "/clear begins anew"))
        chat.enter("/clear")
        try chat.wait("the new conversation") { Self.has($0, "A new conversation") && $0.cursorRow == ">" }
        let count = chat.screen.rows.count
        chat.enter(Self.question)
        try chat.wait("an answer again") { $0.rows.count > count + 1 && $0.cursorRow == ">" }
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    // MARK: - Sessions

    @Test func sessionsAreResumed() throws {
        let file = Scratch.path("session")
        let first = try ChatProcess(Self.greedy + ["--session", file])
        try first.waitForPrompt()
        first.enter(Self.question)
        try first.wait("the answer") { Self.has($0, "933") && $0.cursorRow == ">" }
        first.type("\u{4}")
        #expect(try first.end() == 0)
        #expect(Self.has(first.screen, "The conversation is in "))

        let second = try ChatProcess(Self.greedy + ["--session", file])
        try second.waitForPrompt()
        #expect(Self.has(second.screen, "1 question") && Self.has(second.screen, Self.question))
        #expect(Self.has(second.screen, "933"))
        second.enter("What is 12 + 35?")
        try second.wait("the second answer") { Self.has($0, "47.") && $0.cursorRow == ">" }
        second.enter("/stats")
        try second.wait("what was in the cache") { Self.has($0, "2 questions") && $0.cursorRow == ">" }
        #expect(!Self.has(second.screen, " 0 were in the cache"))
        // A signal ends it, and keeps what there is.
        kill(second.pid, SIGTERM)
        #expect(try second.end() == 0)

        let third = try ChatProcess(Self.greedy + ["--session", file])
        try third.waitForPrompt()
        #expect(Self.has(third.screen, "2 questions"))
        third.enter("/save \(file).copy")
        try third.wait("the copy") { Self.has($0, ".copy") && $0.cursorRow == ">" }
        third.enter("/clear")
        third.enter("/load \(file).copy")
        try third.wait("the conversation") { $0.text.components(separatedBy: "2 questions").count >= 3 }
        third.type("\u{4}")
        #expect(try third.end() == 0)

        // Another model's, and a damaged one.
        let other = try ChatProcess(["--model", TestModels.demoFloat, "--session", file])
        #expect(try other.end() == 65)
        #expect(Self.has(other.screen, "another model file"))
        var bytes = try Data(contentsOf: URL(fileURLWithPath: file))
        bytes[bytes.count / 2] ^= 4
        try bytes.write(to: URL(fileURLWithPath: file))
        let damaged = try ChatProcess(Self.greedy + ["--session", file])
        #expect(try damaged.end() == 65)
    }

    @Test func longPromptsShowTheirProgress() throws {
        let chat = try ChatProcess(Self.greedy + ["--no-think", "--max-tokens", "8", "--context", "100000"])
        try chat.waitForPrompt()
        chat.paste((0..<2500).map { "word\($0)" }.joined(separator: " "))
        try chat.wait("the paste") { Self.has($0, "word2499") && $0.cursorIsVisible }
        chat.enter("")
        try chat.wait("the prompt") { $0.cursorRow == ">" }
        let written = String(decoding: chat.output, as: UTF8.self)
        #expect(written.contains("reading ") && written.contains("%"))
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    // MARK: - Not a chat

    @Test func withoutATerminalAPromptIsNeeded() throws {
        // Not both ends, or a terminal that cannot move its cursor.
        let dumb = try ChatProcess(Self.greedy, environment: ["TERM": "dumb"])
        #expect(try dumb.end() == 64)
        let result = try Subprocess.run("sigma-run", Self.greedy)
        #expect(result.code == 64 && result.errors.contains("no prompt"))
        let both = try Subprocess.run("sigma-run", Self.greedy + ["--prompt", "a", "--session", "b"])
        #expect(both.code == 64 && both.errors.contains("--session"))
        let raw = try ChatProcess(Self.greedy + ["--raw"])
        #expect(try raw.end() == 64)
        let bare = try ChatProcess(["--model", TestModels.bare])
        #expect(try bare.end() == 65)
    }

    @Test func expertTraces() throws {
        let trace = Scratch.path("trace")
        let run = try JSONRun(Self.greedy + ["--prompt", Self.question, "--expert-trace", trace])
        let replay = try Subprocess.run(
            "sigma-eval", ["routing", "--model", TestModels.demo, "--replay", trace, "--json"])
        #expect(replay.code == 0, "\(replay.errors)")
        let report = try #require(JSONSerialization.jsonObject(with: Data(replay.output)) as? [String: Any])
        // Every token that was computed: all but the last, which was only chosen.
        let made = try #require(run.done.stat("generated_tokens"))
        let tokens = try #require(report["tokens"] as? Int)
        #expect(abs(tokens - (run.prompt.count + made)) <= 1 && tokens > run.prompt.count)
    }
}
