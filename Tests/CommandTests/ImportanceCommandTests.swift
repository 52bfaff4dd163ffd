import Foundation
import Sigma
import SigmaConversion
import SigmaStudies
import Testing

@Suite struct ImportanceCommandTests {
    /// Text to importance matrix to weighted model file.
    @Test func theWholeWay() throws {
        let text = try Scratch.file("text.txt", String(repeating: EvalTests.text, count: 10))
        let made = try Subprocess.run(
            "sigma-eval", ["imatrix", text, "--model", TestModels.demoFloat, "--context", "100", "--json"])
        #expect(made.code == 0, "\(made.errors)")
        let report = try #require(try JSONSerialization.jsonObject(with: Data(made.output)) as? [String: Any])
        let path = text + ".imatrix"
        #expect(report["output"] as? String == path)
        let matrix = try ImportanceMatrix(path: path, for: ModelFile(path: TestModels.demoFloat).configuration)
        #expect(report["tokens"] as? Int == matrix.tokenCount && matrix.tokenCount > 100)

        let checkpoint = packageRoot + "/Models/demo/checkpoint"
        let output = Scratch.path("weighted.gguf")
        let converted = try Subprocess.run("sigma-convert", [checkpoint, output, "--imatrix", path])
        #expect(converted.code == 0, "\(converted.errors)")
        // The default types.
        let model = try ModelFile(path: output)
        #expect(model.weights.layers[0].query.type == .q4_k && model.weights.head.type == .q6_k)
        let plain = Scratch.path("plain.gguf")
        #expect(try Subprocess.run("sigma-convert", [checkpoint, plain]).code == 0)
        #expect(try Data(contentsOf: URL(filePath: plain)) != Data(contentsOf: URL(filePath: output)))

        // Threads change nothing.
        let again = Scratch.path("again.imatrix")
        let second = try Subprocess.run(
            "sigma-eval",
            ["imatrix", text, "--model", TestModels.demo, "--context", "100", "--threads", "1", "--output", again])
        #expect(second.code == 0)
        let third = try Subprocess.run(
            "sigma-eval",
            ["imatrix", text, "--model", TestModels.demo, "--context", "100", "--threads", "2", "-o", path])
        #expect(third.code == 0)
        #expect(try Data(contentsOf: URL(filePath: again)) == Data(contentsOf: URL(filePath: path)))
    }

    @Test func wrongUsage() throws {
        let text = try Scratch.file("text.txt", EvalTests.text)
        let model = ["--model", TestModels.demo]
        for (arguments, code) in [
            (["imatrix"], 64), (["imatrix", "-"], 64), (["imatrix", text, "--output", ""], 64),
            (["imatrix", Scratch.path("missing")], 66),
            (["imatrix", text, "--output", Scratch.path("missing") + "/x"], 66),
        ] as [([String], Int32)] {
            let result = try Subprocess.run("sigma-eval", arguments + model)
            #expect(result.code == code, "\(arguments): \(result.errors)")
        }
        let checkpoint = packageRoot + "/Models/demo/checkpoint"
        for (file, code) in [(text, Int32(65)), (Scratch.path("missing"), 66), (TestModels.demo, 65)] {
            let result = try Subprocess.run("sigma-convert", [checkpoint, Scratch.path("out"), "--imatrix", file])
            #expect(result.code == code, "\(result.errors)")
        }
    }

    // MARK: - Conversations

    /// Only what the assistant wrote counts, with its stop token, and each conversation is a window of its own.
    @Test func repliesAreScored() throws {
        let replies = ["4 + 3 = 7.", "9 - 5 = 4."]
        let prompts = ["What is 4 + 3?", "What is 9 - 5?"].map {
            "<|endoftext|><|user|>\($0)<|end|><|assistant|><think></think>"
        }
        let tokenizer = try TestModels.tokenizer()
        var values: [Double] = []
        for (prompt, reply) in zip(prompts, replies) {
            let file = try Scratch.file("one.txt", prompt + reply + "<|end|>")
            let run = try JSONRun(["--model", TestModels.demo, "--raw", file, "--max-tokens", "0", "--logprobs", "0"])
            let all = (run.events[1]["positions"] as? [[String: Any]] ?? []).map(Event.init).compactMap(\.logprob)
            values += all.suffix(tokenizer.encode(reply, recognizingSpecials: false).count + 1)
        }
        let file = try Scratch.file("both.txt", zip(prompts, replies).map { $0 + $1 + "<|end|>" }.joined())
        let result = try Subprocess.run(
            "sigma-eval", ["perplexity", file, "--conversations", "--json", "--model", TestModels.demo])
        #expect(result.code == 0, "\(result.errors)")
        let found = try #require(try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Double])
        #expect(found["tokens"] == Double(values.count))
        #expect(abs(found["nll"]! + values.reduce(0, +) / Double(values.count)) < 1e-6)

        let compared = try Subprocess.run(
            "sigma-eval",
            ["compare", file, "--conversations", "--json", "--model", TestModels.demo, "--reference", TestModels.demo])
        let same = try #require(try JSONSerialization.jsonObject(with: Data(compared.output)) as? [String: Double])
        #expect(same["tokens"] == found["tokens"] && same["kl_mean"] == 0 && same["kl_se"] == 0)
        #expect(same["nll"] == found["nll"] && same["nll_difference"] == 0)

        let plain = try Scratch.file("plain.txt", "4 + 3 = 7.")
        let refused = try Subprocess.run(
            "sigma-eval", ["perplexity", plain, "--conversations", "--model", TestModels.demo])
        #expect(refused.code == 65)
        let bare = try Subprocess.run(
            "sigma-eval", ["perplexity", plain, "--conversations", "--model", TestModels.bare])
        #expect(bare.code == 65)
    }

    /// The difference of two models' scores, and the standard error of the divergence, by their definitions.
    @Test func errorsOfTheComparison() throws {
        let file = try Scratch.file("text.txt", String(repeating: EvalTests.text, count: 3))
        func object(_ arguments: [String]) throws -> [String: Double] {
            let result = try Subprocess.run("sigma-eval", arguments + ["--json"])
            return try #require(try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Double])
        }
        let found = try object(["compare", file, "--model", TestModels.demo, "--reference", TestModels.demoFloat])
        let own = try object(["perplexity", file, "--model", TestModels.demo])
        let reference = try object(["perplexity", file, "--model", TestModels.demoFloat])
        #expect(abs(found["nll"]! - own["nll"]!) < 1e-9)
        #expect(abs(found["nll_difference"]! - (own["nll"]! - reference["nll"]!)) < 1e-6)
        // Token by token the difference is far surer than either.
        #expect(found["nll_difference_se"]! > 0 && found["nll_difference_se"]! < own["nll_se"]!)
        #expect(found["kl_se"]! > 0 && found["kl_se"]! < found["kl_max"]!)
    }
}
