import Foundation
import Testing

@Suite struct EvalTests {
    static let text = "What is 12 + 35? 12 + 35 = 47. What is 58 - 23? Héllo, wörld 日本 \u{1F680}!\n"

    func object(_ arguments: [String], input: [UInt8] = []) throws -> [String: Double] {
        let result = try Subprocess.run("sigma-eval", arguments, input: input)
        #expect(result.code == 0, "\(result.errors)")
        #expect(result.errors.isEmpty)
        return try #require(try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Double])
    }

    // MARK: - perplexity

    @Test func perplexityIsThatOfThePromptLogProbabilities() throws {
        let file = try Scratch.file("text.txt", Self.text)
        let model = ["--model", TestModels.demo]
        let found = try object(["perplexity", file, "--json"] + model)
        let run = try JSONRun(model + ["--raw", file, "--max-tokens", "0", "--logprobs", "0"])
        let positions = (run.events[1]["positions"] as? [[String: Any]] ?? []).map(Event.init)
        let values = positions.compactMap(\.logprob)
        let mean = -values.reduce(0, +) / Double(values.count)
        #expect(found["tokens"] == Double(values.count))
        #expect(abs(found["nll"]! - mean) < 1e-6)
        #expect(abs(found["perplexity"]! - exp(mean)) < 1e-5 * exp(mean))
        let variance = values.reduce(0) { $0 + ($1 + mean) * ($1 + mean) } / Double(values.count - 1)
        #expect(abs(found["nll_se"]! - (variance / Double(values.count)).squareRoot()) < 1e-6)
    }

    @Test func windows() throws {
        let tokenizer = try TestModels.tokenizer()
        let text = String(repeating: Self.text, count: 30)
        let count = tokenizer.encode(text, recognizingSpecials: false).count
        let file = try Scratch.file("text.txt", text)
        for context in [2, 7, 100, 1000] {
            let found = try object([
                "perplexity", file, "--json", "--model", TestModels.demo, "--context", "\(context)",
            ])
            // With bos every token is scored; without, all but each window's first.
            let windows = (count + context - 1) / context
            #expect(found["tokens"] == Double(tokenizer.addsBos ? count : count - windows), "\(context)")
        }
    }

    @Test(arguments: [TestModels.demo, TestModels.demoFloat]) func threadsChangeNothing(model: String) throws {
        let text = Array(String(repeating: Self.text, count: 20).utf8)
        let arguments = ["perplexity", "-", "--json", "--model", model, "--context", "600"]
        let one = try Subprocess.run("sigma-eval", arguments + ["--threads", "1"], input: text)
        let two = try Subprocess.run("sigma-eval", arguments + ["--threads", "2"], input: text)
        #expect(one.code == 0)
        #expect(one.output == two.output)
    }

    @Test func wrongUsage() throws {
        let model = ["--model", TestModels.demo]
        let file = try Scratch.file("text.txt", Self.text)
        for (arguments, code) in [
            ([], 0), (["perplexity"], 64), (["perplexity", file, "--context", "1"], 64),
            (["perplexity", file, "--threads", "0"], 64), (["perplexity", Scratch.path("missing")], 66),
            (["perplexity", try Scratch.file("short", "a")], 65), (["perplexity", Scratch.folder], 65),
            (["compare", file], 64), (["compare", file, "--reference", Scratch.path("missing")], 66),
            (["compare", file, "--reference", TestModels.bare], 64),
            (["tokenize", file, "--special", "--decode"], 64), (["tokenize", Scratch.path("missing")], 66),
            (["tokenize", "--decode", file], 65),
            (["tokenize", "--decode", try Scratch.file("ids", "[1,100000]")], 65),
            (["tokenize", "--decode", try Scratch.file("ids", "[1,\"a\"]")], 65),
            (["tokenize", "--decode", try Scratch.file("ids", "{}")], 65),
        ] as [([String], Int32)] {
            let result = try Subprocess.run("sigma-eval", arguments.isEmpty ? [] : arguments + model)
            #expect(result.code == code, "\(arguments): \(result.errors)")
        }
        let bare = try Subprocess.run("sigma-eval", ["perplexity", file, "--model", TestModels.bare])
        #expect(bare.code == 65)
    }

    // MARK: - compare

    @Test func aModelIsLikeItself() throws {
        let file = try Scratch.file("text.txt", Self.text)
        let found = try object(
            ["compare", file, "--json", "--model", TestModels.demo, "--reference", TestModels.demo])
        #expect(found["kl_mean"] == 0)
        #expect(found["kl_max"] == 0)
        #expect(found["top1_agreement"] == 1)
    }

    @Test func quantizationIsNear() throws {
        let text = String(repeating: Self.text, count: 15)
        let file = try Scratch.file("text.txt", text)
        let arguments = ["compare", file, "--json", "--model", TestModels.demo, "--reference", TestModels.demoFloat]
        let found = try object(arguments)
        let (mean, p99, most) = (found["kl_mean"]!, found["kl_p99"]!, found["kl_max"]!)
        #expect(0 < mean && mean <= p99 && p99 <= most && most.isFinite)
        #expect(found["top1_agreement"]! > 0.8 && found["top1_agreement"]! <= 1)
        #expect(try object(arguments + ["--threads", "1"]) == found)
        // The other direction is another number.
        let back = try object([
            "compare", file, "--json", "--model", TestModels.demoFloat, "--reference", TestModels.demo,
        ])
        #expect(back["kl_mean"]! != mean)
    }

    @Test func divergenceIsThatOfTheDistributions() throws {
        let file = try Scratch.file("text.txt", "What is 1 + 2?")
        let found = try object(
            ["compare", file, "--json", "--model", TestModels.demo, "--reference", TestModels.demoFloat])
        func distributions(_ model: String) throws -> [[Int: Double]] {
            let run = try JSONRun(["--model", model, "--raw", file, "--max-tokens", "0", "--logprobs", "512"])
            let positions = (run.events[1]["positions"] as? [[String: Any]] ?? []).map(Event.init)
            return positions.dropLast().map { Dictionary(uniqueKeysWithValues: $0.top.map { ($0.id, $0.logprob) }) }
        }
        let (p, q) = (try distributions(TestModels.demoFloat), try distributions(TestModels.demo))
        let divergences = zip(p, q).map { p, q in p.reduce(0) { $0 + exp($1.value) * ($1.value - q[$1.key]!) } }
        #expect(abs(found["kl_mean"]! - divergences.reduce(0, +) / Double(divergences.count)) < 1e-5)
        #expect(abs(found["kl_max"]! - divergences.max()!) < 1e-5)
    }

    // MARK: - tokenize

    @Test func bytesComeBack() throws {
        let model = ["--model", TestModels.demo]
        var random = SystemRandomNumberGenerator()
        for bytes in [
            Array(Self.text.utf8), [], [0xff, 0xfe, 0x00, 0x80, 0x0a], Array("<|end|><|user|> a\r\n\r\n".utf8),
            (0..<5000).map { _ in UInt8.random(in: 0...255, using: &random) },
        ] {
            let ids = try Subprocess.run("sigma-eval", ["tokenize", "-"] + model, input: bytes)
            #expect(ids.code == 0, "\(ids.errors)")
            let list = try #require(try JSONSerialization.jsonObject(with: Data(ids.output)) as? [Int])
            #expect(list == (try TestModels.tokenizer()).encode(bytes, recognizingSpecials: false).map(Int.init))
            let back = try Subprocess.run("sigma-eval", ["tokenize", "--decode", "-"] + model, input: ids.output)
            #expect(back.output == bytes)
        }
    }

    @Test func specials() throws {
        let file = try Scratch.file("text.txt", "<|user|>a<|end|>")
        let tokenizer = try TestModels.tokenizer()
        let plain = try Subprocess.run("sigma-eval", ["tokenize", file, "--model", TestModels.demo])
        let special = try Subprocess.run("sigma-eval", ["tokenize", file, "--special", "--model", TestModels.demo])
        let ids = tokenizer.encode("<|user|>a<|end|>", recognizingSpecials: true)
        #expect(special.text == "[" + ids.map(String.init).joined(separator: ",") + "]\n")
        #expect(ids.count == 3)
        #expect(plain.text != special.text)
        let back = try Subprocess.run(
            "sigma-eval", ["tokenize", "--decode", "-", "--model", TestModels.demo], input: special.output)
        #expect(back.text == "<|user|>a<|end|>")
    }
}
