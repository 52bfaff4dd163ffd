import Foundation
import SampleFiles
import Sigma
import Testing

/// `sigma-convert` with GGUF files.
@Suite struct ConvertTests {
    @Test func plainFilesBothWays() throws {
        let source = try Scratch.file("plain.gguf", PlainModel { _ in .q4_k }.bytes)
        let (native, plain) = (Scratch.path("native.gguf"), Scratch.path("again.gguf"))
        let imported = try Subprocess.run("sigma-convert", [source, native])
        #expect(imported.code == 0, "\(imported.errors)")
        #expect(imported.output.isEmpty)
        let run = try JSONRun(["--model", native, "--raw", "--prompt", "the inn", "--max-tokens", "2"])
        #expect(run.prompt == [257, 32, 258, 110])
        let exported = try Subprocess.run("sigma-convert", [native, plain, "--plain-gguf"])
        #expect(exported.code == 0 && exported.errors.contains("architecture qwen3moe"))
        let own = Scratch.path("own.gguf")
        let other = try Subprocess.run("sigma-convert", [TestModels.bare, own, "--plain-gguf"])
        #expect(other.code == 0 && other.errors.contains("architecture sigma"))
        #expect(try GGUFFile(path: own)["general.architecture"]?.string == "sigma")
        let inspection = try Subprocess.run("sigma-convert", ["--inspect", own])
        #expect(inspection.code == 0 && inspection.text.contains("architecture sigma"), "\(inspection.errors)")
    }

    /// A model file goes where its name leads, and never to standard output.
    @Test func outputs() throws {
        let source = try Scratch.file("plain.gguf", PlainModel { _ in .q4_k }.bytes)
        for arguments in [[source, "-"], ["--synthetic", "sigma-moe-tiny", "-"]] {
            let refused = try Subprocess.run("sigma-convert", arguments)
            #expect(refused.code == 64 && refused.output.isEmpty)
            UsageTests().expectShort(refused.errors, "standard output")
        }
        #expect(!FileManager.default.fileExists(atPath: "-"))
        let (target, link) = (Scratch.path("target.gguf"), Scratch.path("link.gguf"))
        #expect(symlink(target, link) == 0)
        #expect(try Subprocess.run("sigma-convert", [source, link]).code == 0)
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == target)
        #expect(chmod(target, 0o600) == 0)
        #expect(try Subprocess.run("sigma-convert", [source, target]).code == 0)
        #expect(try FileManager.default.attributesOfItem(atPath: target)[.posixPermissions] as? Int == 0o600)
    }

    /// Types as --inspect and other tools write them.
    @Test(arguments: ["Q8_0", "q8_0", "BF16", "F32"]) func spellingsOfTypes(_ type: String) throws {
        let output = Scratch.path("typed.gguf")
        let result = try Subprocess.run(
            "sigma-convert",
            [packageRoot + "/Tests/Fixtures/reference/sigma-top1", output, "--type", type, "--output-type", type])
        #expect(result.code == 0, "\(result.errors)")
        #expect(try ModelFile(path: output).weights.head.type.name == type.lowercased())
        let refused = try Subprocess.run("sigma-convert", ["a", "b", "--type", "Q5_1"])
        #expect(refused.code == 64)
        UsageTests().expectShort(refused.errors, "Q5_1")
    }

    /// The demo model in each k-quant: the file is whole, its head has six bits, its answers are likely where the float model's are, and a sum comes
    /// out right.
    @Test(arguments: [("q6_k", 0.0006), ("q5_k", 0.001), ("q4_k", 0.003), ("q3_k", 0.01)])
    func typesOfFewBits(_ type: String, divergenceLimit: Double) throws {
        let output = Scratch.path("\(type).gguf")
        let converted = try Subprocess.run(
            "sigma-convert", [packageRoot + "/Models/demo/checkpoint", output, "--type", type])
        #expect(converted.code == 0, "\(converted.errors)")
        #expect(converted.errors.contains("no CUDA kernels") == ["q5_k", "q3_k"].contains(type))
        #expect(!converted.errors.contains("more bytes"))
        let inspected = try Subprocess.run("sigma-convert", ["--inspect", output, "--verify"])
        #expect(inspected.code == 0, "\(inspected.errors)")
        #expect(String(decoding: inspected.output, as: UTF8.self).contains("records are intact"))
        let weights = try ModelFile(path: output).weights
        #expect(weights.head.type == .q6_k && weights.layers[0].query.type.name == type)
        #expect(weights.types.filter(\.isQuantized).map(\.name).sorted() == Set([type, "q6_k"]).sorted())

        let conversations = (1...40).map { i in
            "<|endoftext|><|user|>What is \(90 + i) - \(2 * i)?<|end|><|assistant|><think></think>\(90 + i) - \(2 * i) = \(90 - i).<|end|>"
        }
        let text = try Scratch.file("sums.txt", conversations.joined())
        let compared = try Subprocess.run(
            "sigma-eval",
            ["compare", text, "--conversations", "--json", "--model", output, "--reference", TestModels.demoFloat])
        let found = try #require(try JSONSerialization.jsonObject(with: Data(compared.output)) as? [String: Double])
        #expect(found["kl_mean"]! > 0 && found["kl_mean"]! < divergenceLimit, "\(found)")
        let run = try JSONRun(
            ["--model", output, "--prompt", "What is 58 - 23?", "--temperature", "0", "--max-tokens", "200"])
        #expect(run.text("answer").contains("35"), "\(run.text("answer"))")
    }

    @Test func damagedAndForeignFiles() throws {
        var model = PlainModel { _ in .q4_k }
        let whole = model.bytes
        model.architecture = "llama"
        for (bytes, word) in [(Array(whole.prefix(whole.count / 2)), "bad.gguf"), (model.bytes, "llama")] {
            let path = try Scratch.file("bad.gguf", bytes)
            let output = Scratch.path("out.gguf")
            let result = try Subprocess.run("sigma-convert", [path, output])
            #expect(result.code == 65)
            UsageTests().expectShort(result.errors, word)
            #expect(!FileManager.default.fileExists(atPath: output))
        }
    }
}
