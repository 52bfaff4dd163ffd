import Foundation
import Testing

/// `sigma-eval loglikelihood`: choices' log-likelihoods, and what sharing of prefixes must not change.
@Suite struct LoglikelihoodTests {
    /// Contexts that share beginnings, end in spaces or are empty; choices that begin alike, or are each other's beginning.
    static let lines = """
        {"id":"a","context":"What is 12 + 35? 12 + 35 =","choices":[" 47"," 48"," 47."," 4"],"answer":0}
        {"id":{"n":[1]},"context":"What is 12 + 35? 12 +","choices":[" 35 = 47"," 35 = 4"," 7"," 35 = 47"],"answer":1}

        {"context":"What is 12 + 35? ","choices":["yes","no"],"answer":null}
        {"context":"","choices":["What is","Why is"]}
        {"context":"Héllo, wörld 日本 \u{1F680}","choices":["!"," ?","日"]}
        {"context":"What is 12 + 35? 12 + 35 =","choices":[" 47"]}

        """

    struct Choice: Decodable, Equatable {
        var logprob: Double
        var greedy: Bool
        var tokens: Int
        var token_logprobs: [Double]
    }
    struct Line: Decodable {
        var best: Int
        var best_normed: Int
        var choices: [Choice]
    }

    private func run(_ text: String, _ more: [String] = [], model: String = TestModels.demo) throws -> [UInt8] {
        let result = try Subprocess.run(
            "sigma-eval", ["loglikelihood", "-", "--json", "--model", model] + more, input: Array(text.utf8))
        #expect(result.code == 0, "\(result.errors)")
        return result.output
    }
    private func lines(_ output: [UInt8]) throws -> [Line] {
        try output.split(separator: UInt8(ascii: "\n")).map { try JSONDecoder().decode(Line.self, from: Data($0)) }
    }

    @Test func numbersAreThoseOfThePrompt() throws {
        let found = try lines(run(Self.lines))
        #expect(found.map(\.choices.count) == [4, 4, 2, 2, 3, 1])
        // The same context and choice in two lines, and in one.
        #expect(found[5].choices[0] == found[0].choices[0])
        #expect(found[1].choices[3] == found[1].choices[0])
        for (context, choice, scores) in [
            ("What is 12 + 35? 12 + 35 =", " 47", found[0].choices[0]),
            ("What is 12 + 35? 12 + 35 =", " 47.", found[0].choices[2]),
            ("What is 12 + 35? 12 +", " 35 = 47", found[1].choices[0]),
            ("What is 12 + 35?", " yes", found[2].choices[0]),
        ] {
            let file = try Scratch.file("text.txt", context + choice)
            let run = try JSONRun([
                "--model", TestModels.demo, "--raw", file, "--max-tokens", "0", "--logprobs", "1",
            ])
            let positions = (run.events[1]["positions"] as? [[String: Any]] ?? []).map(Event.init)
            let expected = positions.compactMap(\.logprob).suffix(scores.tokens)
            #expect(scores.tokens == scores.token_logprobs.count && scores.tokens > 0)
            for (a, b) in zip(expected, scores.token_logprobs) { #expect(abs(a - b) <= 0.5000001e-8) }
            #expect(scores.logprob == scores.token_logprobs.reduce(0, +))
            let tops = positions.suffix(scores.tokens + 1).dropLast().map { $0.top.first?.id == $0.id }
            #expect(scores.greedy == tops.allSatisfy { $0 }, "\(choice)")
        }
    }

    @Test func sharingChangesNothing() throws {
        let output = try run(Self.lines)
        for more in [
            ["--no-sharing"], ["--threads", "1"], ["--memory", "200MiB"], ["--threads", "1", "--no-sharing"],
        ] {
            #expect(try run(Self.lines, more) == output, "\(more)")
        }
        // In another order of the lines too.
        let reversed = Self.lines.split(separator: "\n").reversed().joined(separator: "\n")
        let back = try lines(run(reversed))
        #expect(try lines(output).map(\.choices) == back.reversed().map(\.choices))
    }

    @Test func longContextsAreReadInPieces() throws {
        // More rows than a step has, shared by lines that leave it at different tokens.
        let ids = (0..<1500).map { 5 + ($0 * $0 * 31 + 7 * $0) % 85 }
        let text = [1500, 1499, 1100, 3].map { count in
            "{\"context\":\(Array(ids[..<count])),\"choices\":[[7,8,9],[7,8],[95]]}\n"
        }.joined()
        let output = try run(text, model: TestModels.bare)
        #expect(try run(text, ["--no-sharing"], model: TestModels.bare) == output)
        let run = try JSONRun([
            "--model", TestModels.bare, "--max-tokens", "0", "--logprobs", "0", "--tokens",
            (ids[..<1100] + [7, 8, 9]).map(String.init).joined(separator: ","),
        ])
        let positions = (run.events[1]["positions"] as? [[String: Any]] ?? []).map(Event.init)
        let expected = positions.compactMap(\.logprob).suffix(3)
        for (a, b) in zip(expected, try lines(output)[2].choices[0].token_logprobs) {
            #expect(abs(a - b) <= 0.5000001e-8)
        }
    }

    @Test func theTableCountsRightAnswers() throws {
        let first = Self.lines.split(separator: "\n").prefix(2).joined(separator: "\n")
        let found = try lines(run(first))
        let right = zip(found, [0, 1]).count { $0.best == $1 }
        let result = try Subprocess.run(
            "sigma-eval", ["loglikelihood", "-", "--model", TestModels.demo], input: Array(first.utf8))
        let text = String(decoding: result.output, as: UTF8.self)
        #expect(text.contains("questions     2\n"))
        #expect(text.contains("right         \(right * 50).0 %"))
        #expect(!text.contains(", 0 of them computed for another"))
    }

    @Test func ids() throws {
        let found = try run("{\"id\":\"x \\\"y\\\"\",\"context\":[5,6],\"choices\":[[7]]}\n", model: TestModels.bare)
        #expect(String(decoding: found, as: UTF8.self).hasPrefix("{\"id\":\"x \\\"y\\\"\",\"best\":0,"))
    }

    @Test func wrongUsage() throws {
        for (text, model, code) in [
            ("", TestModels.demo, 65), ("[1]\n", TestModels.demo, 65), ("{}\n", TestModels.demo, 65),
            ("{\"context\":\"a\",\"choices\":[]}\n", TestModels.demo, 65),
            ("{\"context\":\"a\",\"choices\":[\"b\"],\"answer\":1}\n", TestModels.demo, 65),
            ("{\"context\":\"a\",\"choices\":[\"b\"],\"answer\":\"0\"}\n", TestModels.demo, 65),
            ("{\"context\":\"a\",\"choices\":[[1]]}\n", TestModels.demo, 65),
            ("{\"context\":[1],\"choices\":[[100000]]}\n", TestModels.demo, 65),
            ("{\"context\":[],\"choices\":[[1]]}\n", TestModels.bare, 65),
            ("{\"context\":\"a\",\"choices\":[\"b\"]}\n", TestModels.bare, 65),
            ("{\"context\":\"a\"\n", TestModels.demo, 65),
        ] as [(String, String, Int32)] {
            let result = try Subprocess.run(
                "sigma-eval", ["loglikelihood", "-", "--model", model], input: Array(text.utf8))
            #expect(result.code == code, "\(text): \(result.errors)")
        }
        let long = "{\"context\":\"\(String(repeating: "a b c ", count: 40))\",\"choices\":[\"b\"]}\n"
        let result = try Subprocess.run(
            "sigma-eval", ["loglikelihood", "-", "--model", TestModels.demo, "--context", "20"], input: Array(long.utf8)
        )
        #expect(result.code == 64 && result.errors.contains("a sequence can have 20"))
        let second = "{\"context\":\"a\",\"choices\":[\"b\"]}\nrubbish\n"
        let damaged = try Subprocess.run(
            "sigma-eval", ["loglikelihood", "-", "--model", TestModels.demo], input: Array(second.utf8))
        #expect(damaged.code == 65 && damaged.errors.contains("32"))
    }
}
