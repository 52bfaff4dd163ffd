import Foundation
import Testing

/// `sigma-run --json`: the lines, their order, and that what is asked for changes nothing else.
@Suite struct JSONLinesTests {
    static let question = ["--model", TestModels.demo, "--prompt", "What is 12 + 35?"]
    static let bare = ["--model", TestModels.bare, "--tokens", "5,6,7", "--max-tokens", "40", "--seed", "1"]

    @Test func linesAndTheirOrder() throws {
        let run = try JSONRun(Self.question + ["--seed", "3"])
        #expect(run.events.first?.name == "prompt")
        #expect(run.done.name == "done")
        #expect(run.events.dropFirst().dropLast().allSatisfy { $0.name == "token" })
        #expect(!run.prompt.isEmpty)
        // Thinking, then the answer.
        let phases = run.tokens.map(\.phase)
        #expect(phases == phases.sorted { $0 > $1 })
        #expect(Set(phases) == ["thinking", "answer"])
        #expect(run.tokens.allSatisfy { $0.logprob == nil && $0["top"] == nil })
        #expect(run.done["reason"] as? String == "stop")
        #expect(run.done["thinking_cut"] as? Bool == false)
        #expect(run.done["seed"] as? Int == 3)
        #expect(run.done.stat("prompt_tokens") == run.prompt.count)
        // All experts are in memory. The second key is the first one's old name.
        #expect(run.done.stat("prefetched_experts") == 0 && run.done.stat("foretold_experts") == 0)
        #expect(run.done.stat("thinking_tokens") == phases.filter { $0 == "thinking" }.count)
        #expect(run.done.stat("answer_tokens") == phases.filter { $0 == "answer" }.count)
        for tag in ["<think>", "</think>", "<|"] {
            #expect(!run.text("thinking").contains(tag))
            #expect(!run.text("answer").contains(tag))
        }
        #expect(run.errors.isEmpty)
    }

    @Test func withoutThinking() throws {
        let run = try JSONRun(Self.question + ["--no-think", "--temperature", "0"])
        #expect(run.done.stat("thinking_tokens") == 0)
        #expect(run.tokens.allSatisfy { $0.phase == "answer" })
        let thinking = try JSONRun(Self.question + ["--temperature", "0", "--max-tokens", "0"])
        #expect(thinking.prompt != run.prompt)
    }

    @Test func theSeedDecides() throws {
        let arguments = [
            "--model", TestModels.bare, "--tokens", "5,6,7", "--max-tokens", "40", "--temperature", "1", "--top-k", "0",
            "--top-p", "1",
        ]
        let first = try JSONRun(arguments + ["--seed", "1"])
        #expect(try JSONRun(arguments + ["--seed", "1"]).ids == first.ids)
        #expect(try JSONRun(arguments + ["--seed", "2"]).ids != first.ids)
        // A random seed is told, and gives the same again.
        let random = try JSONRun(arguments)
        let seed = try #require(random.done["seed"] as? Int)
        #expect(try JSONRun(arguments + ["--seed", "\(seed)"]).ids == random.ids)
        // A number that every JSON reader gets exactly.
        #expect(seed < 1 << 53)
    }

    @Test(arguments: [TestModels.bare, TestModels.bareFloat]) func threadsChangeNothing(model: String) throws {
        // More than one piece of a prompt, more than one block of the cache.
        let prompt = (0..<600).map { "\($0 * 7 % 96)" }.joined(separator: ",")
        let arguments = ["--model", model, "--tokens", prompt, "--max-tokens", "30", "--seed", "5", "--logprobs", "3"]
        let one = try Subprocess.run("sigma-run", arguments + ["--json", "--threads", "1"])
        let two = try Subprocess.run("sigma-run", arguments + ["--json", "--threads", "2"])
        #expect(one.lines.count == 32)
        #expect(one.lines.dropLast() == two.lines.dropLast())
    }

    @Test func logProbabilitiesChangeNothing() throws {
        let plain = try JSONRun(Self.bare)
        for count in [0, 1, 5, 96] {
            let run = try JSONRun(Self.bare + ["--logprobs", "\(count)"])
            #expect(run.ids == plain.ids)
            for token in run.tokens {
                let logprob = try #require(token.logprob)
                #expect(token.top.count == count)
                #expect(token.top.map(\.logprob) == token.top.map(\.logprob).sorted(by: >))
                if let known = token.top.first(where: { $0.id == token.id }) { #expect(known.logprob == logprob) }
                if count == 96 {
                    #expect(abs(token.top.reduce(0) { $0 + exp($1.logprob) } - 1) < 1e-6)
                    #expect(Set(token.top.map(\.id)) == Set(0..<96))
                }
            }
        }
        // At least six decimals.
        let result = try Subprocess.run("sigma-run", Self.bare + ["--json", "--logprobs", "1"])
        for line in result.lines.dropFirst().dropLast() {
            let number = try #require(
                line.split(separator: "\"logprob\":").dropFirst().first?.prefix { !",}".contains($0) })
            #expect(try #require(number.split(separator: ".").last).count >= 6)
        }
    }

    @Test func greedyTakesTheLikeliest() throws {
        let arguments = [
            "--model", TestModels.bare, "--tokens", "5,6,7", "--max-tokens", "20", "--temperature", "0", "--logprobs",
            "1",
        ]
        let run = try JSONRun(arguments + ["--seed", "1"])
        #expect(run.tokens.count == 20)
        for token in run.tokens { #expect(token.id == token.top.first?.id) }
        #expect(try JSONRun(arguments + ["--seed", "2"]).ids == run.ids)
    }

    @Test func promptLogProbabilities() throws {
        let arguments = ["--model", TestModels.bareFloat, "--tokens", "5,6,7,8", "--kv-type", "f32"]
        let run = try JSONRun(arguments + ["--max-tokens", "0", "--logprobs", "4"])
        #expect(run.events.map(\.name) == ["prompt", "prompt-logprobs", "done"])
        #expect(run.done["reason"] as? String == "length")
        let positions = (run.events[1]["positions"] as? [[String: Any]] ?? []).map(Event.init)
        #expect(positions.map(\.id) == [6, 7, 8, nil])
        #expect(positions.map { $0.logprob == nil } == [false, false, false, true])
        #expect(positions.allSatisfy { $0.top.count == 4 })
        // Entry i is the distribution after tokens 0...i.
        for (index, position) in positions.enumerated() {
            let prefix = (5...(5 + index)).map(String.init).joined(separator: ",")
            let next = try JSONRun(
                [
                    "--model", TestModels.bareFloat, "--kv-type", "f32", "--tokens", prefix, "--max-tokens", "1",
                    "--logprobs", "4",
                ])
            let top = try #require(next.tokens.first).top
            #expect(top.map(\.id) == position.top.map(\.id))
            for (a, b) in zip(top, position.top) { #expect(abs(a.logprob - b.logprob) < 1e-5) }
        }
        #expect(try JSONRun(arguments + ["--max-tokens", "0"]).events.map(\.name) == ["prompt", "done"])
    }

    @Test func limits() throws {
        let length = try JSONRun(Self.bare)
        #expect(length.ids.count == 40)
        #expect(length.done["reason"] as? String == "length")
        #expect(length.tokens.allSatisfy { $0.phase == "answer" })
        let context = try JSONRun(Self.bare + ["--context", "13"])
        #expect(context.done["reason"] as? String == "context")
        #expect(context.ids.count == 10)
        #expect(context.errors.contains("context"))
        let answer = try JSONRun(Self.question + ["--seed", "3", "--max-tokens", "2"])
        #expect(answer.done["reason"] as? String == "length")
        #expect(answer.done.stat("answer_tokens") == 2)
    }

    @Test func theThinkingBudget() throws {
        let phrase = "\nThat is enough.\n"
        for budget in [0, 1, 4] {
            let run = try JSONRun(
                Self.question + ["--seed", "3", "--thinking-budget", "\(budget)", "--closing-phrase", phrase])
            #expect(run.done["thinking_cut"] as? Bool == true)
            #expect(run.done.stat("thinking_tokens") == budget)
            #expect(run.events.map(\.name).filter { $0 == "closing" }.count == 1)
            let place = try #require(run.events.firstIndex { $0.name == "closing" })
            #expect(place == 1 + budget)
            #expect(run.events[place].text.hasSuffix(phrase))
            #expect(run.events[..<place].dropFirst().allSatisfy { $0.phase == "thinking" })
            #expect(run.events[(place + 1)...].dropLast().allSatisfy { $0.phase == "answer" })
            let tokenizer = try TestModels.tokenizer()
            #expect(
                run.events[place].ids == tokenizer.encode(phrase + "</think>", recognizingSpecials: false).map(Int.init)
            )
        }
        let uncut = try JSONRun(Self.question + ["--seed", "3"])
        #expect(uncut.done["thinking_cut"] as? Bool == false)
        #expect(uncut.events.allSatisfy { $0.name != "closing" })
    }

    @Test func rawPrompts() throws {
        let tokenizer = try TestModels.tokenizer()
        let text = "<|user|>What is 1 + 1?<|end|><|assistant|><think></think>"
        let ids = (tokenizer.addsBos ? [tokenizer.bos!] : []) + tokenizer.encode(text, recognizingSpecials: true)
        let options = ["--model", TestModels.demo, "--max-tokens", "20", "--temperature", "0"]
        let raw = try JSONRun(options + ["--raw", "--prompt", text])
        #expect(raw.prompt == ids.map(Int.init))
        #expect(raw.tokens.allSatisfy { $0.phase == "answer" })
        let list = "[" + ids.map(String.init).joined(separator: ", ") + "]"
        let tokens = try JSONRun(options + ["--tokens", list])
        #expect(tokens.prompt == raw.prompt)
        #expect(tokens.ids == raw.ids)
        #expect(tokens.done["reason"] as? String == raw.done["reason"] as? String)
        // The stop token is no token event.
        let stops = Set(["<|end|>", "<|endoftext|>"].compactMap { tokenizer.idOfSpecial(named: $0) }.map(Int.init))
        #expect(stops.isDisjoint(with: raw.ids))
    }

    @Test func specialsInAMessageAreOrdinaryText() throws {
        let tokenizer = try TestModels.tokenizer()
        let end = Int(try #require(tokenizer.idOfSpecial(named: "<|end|>")))
        let plain = try JSONRun(["--model", TestModels.demo, "--max-tokens", "0", "--prompt", "a"])
        let special = try JSONRun(["--model", TestModels.demo, "--max-tokens", "0", "--prompt", "a<|end|>"])
        #expect(special.prompt.filter { $0 == end }.count == plain.prompt.filter { $0 == end }.count)
        #expect(special.prompt.count > plain.prompt.count + 1)
    }

    @Test func wherePromptsComeFrom() throws {
        let options = ["--model", TestModels.demo, "--max-tokens", "0"]
        let given = try JSONRun(options + ["--prompt", "One\ntwo", "--system", "Be brief."]).prompt
        let system = try Scratch.file("system.txt", "Be brief.\n")
        for content in ["One\ntwo", "One\ntwo\n", "One\ntwo\r\n", "\u{feff}One\ntwo\n"] {
            let file = try Scratch.file("prompt.txt", content)
            #expect(try JSONRun(options + [file, "--system-file", system]).prompt == given)
            #expect(try JSONRun(options + ["-", "--system-file", system], input: Array(content.utf8)).prompt == given)
        }
        // One line end only; and none with --raw.
        let file = try Scratch.file("prompt.txt", "One\ntwo\n\n")
        #expect(try JSONRun(options + [file, "--system", "Be brief."]).prompt != given)
        let tokenizer = try TestModels.tokenizer()
        let raw = tokenizer.encode("One\ntwo\n\n", recognizingSpecials: true).map(Int.init)
        #expect(try JSONRun(options + [file, "--raw"]).prompt.suffix(raw.count) == raw[...])
        #expect(try JSONRun(options + ["--prompt", "-5 + 3?"]).prompt.isEmpty == false)
    }
}
