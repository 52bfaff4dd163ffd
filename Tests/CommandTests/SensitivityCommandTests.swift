import Foundation
import Sigma
import SigmaConversion
import SigmaStudies
import Testing

@Suite struct SensitivityCommandTests {
    private static let checkpoint = packageRoot + "/Models/demo/checkpoint"

    /// What the command measures is what a file with that one tensor quantized costs.
    @Test func whatIsMeasuredIsWhatAFileCosts() throws {
        let text = try Scratch.file("text.txt", EvalTests.text)
        let made = try Subprocess.run(
            "sigma-eval", ["sensitivity", text, "--model", TestModels.demoFloat, "--context", "100"])
        #expect(made.code == 0, "\(made.errors)")
        let input = try ConversionInput(TestModels.demoFloat, overrides: Overrides())
        let parts = try WeightPlan(input.weights, input.configuration).parts
        let measured = try Sensitivity(path: text + ".sensitivity", for: parts)
        #expect(measured.parts.count == parts.count && measured.tokenCount > 20)
        #expect(measured.parts.allSatisfy { $0.divergence > 0 && $0.errors.count > 3 })

        for name in ["blk.0.attn_v.weight", "blk.2.ffn_down_exps.weight", "token_embd.weight"] {
            let part = try #require(measured.parts.first { $0.name == name })
            // Quantized and widened again, so that products are the same.
            let plain = Scratch.path("one.gguf")
            let quantized = try Subprocess.run(
                "sigma-convert",
                [
                    TestModels.demoFloat, plain, "--type", "f32", "--tensor-type", "\(name)=\(part.type.name)",
                    "--plain-gguf",
                ])
            #expect(quantized.code == 0, "\(quantized.errors)")
            let widened = Scratch.path("widened.gguf")
            #expect(try Subprocess.run("sigma-convert", [plain, widened, "--type", "f32"]).code == 0)
            let compared = try Subprocess.run(
                "sigma-eval",
                [
                    "compare", text, "--model", widened, "--reference", TestModels.demoFloat, "--context", "100",
                    "--json",
                ])
            let found = try #require(
                try JSONSerialization.jsonObject(with: Data(compared.output)) as? [String: Double])
            #expect(abs(found["kl_mean"]! - part.divergence) <= 1e-3 * part.divergence + 1e-9, "\(name)")
        }

        // Threads change nothing, and the mix is a model.
        let again = Scratch.path("again.sensitivity")
        let second = try Subprocess.run(
            "sigma-eval",
            [
                "sensitivity", text, "--model", TestModels.demoFloat, "--context", "100", "--threads", "1", "--output",
                again, "--json",
            ])
        #expect(second.code == 0, "\(second.errors)")
        #expect(try Data(contentsOf: URL(filePath: again)) == Data(contentsOf: URL(filePath: text + ".sensitivity")))
        #expect(Data(second.output) == (try Data(contentsOf: URL(filePath: again))))
        let output = Scratch.path("mixed.gguf")
        let mixed = try Subprocess.run(
            "sigma-convert", [Self.checkpoint, output, "--sensitivity", again, "--size", "5MiB"])
        #expect(mixed.code == 0 && mixed.errors.contains("bits per weight"), "\(mixed.errors)")
        #expect(try Data(contentsOf: URL(filePath: output)).count <= 5 << 20)
        #expect(try Subprocess.run("sigma-convert", ["--inspect", output, "--verify"]).code == 0)
    }

    @Test func wrongUsage() throws {
        let text = try Scratch.file("text.txt", EvalTests.text)
        for (arguments, code) in [
            (["sensitivity"], 64), (["sensitivity", "-"], 64), (["sensitivity", text, "--output", ""], 64),
            (["sensitivity", Scratch.path("missing")], 66),
            // Weights that are quantized already.
            (["sensitivity", text], 65),
        ] as [([String], Int32)] {
            let result = try Subprocess.run("sigma-eval", arguments + ["--model", TestModels.demo])
            #expect(result.code == code, "\(arguments): \(result.errors)")
        }
        let output = Scratch.path("out.gguf")
        for (options, code) in [
            (["--size", "4MiB"], 64), (["--bits", "4"], 64), (["--sensitivity", text], 64),
            (["--sensitivity", text, "--size", "4MiB", "--bits", "4"], 64),
            (["--sensitivity", text, "--size", "4MiB", "--type", "q8_0"], 64),
            (["--sensitivity", text, "--bits", "0"], 64),
            (["--sensitivity", text, "--bits", "4"], 65), (["--sensitivity", output, "--bits", "4"], 66),
            (["--tensor-type", "q8_0"], 64), (["--tensor-type", "=q8_0"], 64), (["--tensor-type", "*=q9"], 64),
            (["--tensor-type", "no.such=q8_0"], 64),
        ] as [([String], Int32)] {
            let result = try Subprocess.run("sigma-convert", [Self.checkpoint, output] + options)
            #expect(result.code == code, "\(options): \(result.errors)")
            #expect(!FileManager.default.fileExists(atPath: output))
        }
    }
}
