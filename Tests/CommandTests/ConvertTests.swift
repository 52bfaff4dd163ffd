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

    /// The demo model in each k-quant: the file is whole, its head has six bits, what it says is nearly what the float model says, and sums come out
    /// right. Fewer bits cost more.
    @Test func typesOfFewBits() throws {
        let checkpoint = packageRoot + "/Models/demo/checkpoint"
        let text = try Scratch.file("sums.txt", String(repeating: EvalTests.text, count: 20))
        var before = 0.0
        for (type, limit) in [("q6_k", 0.002), ("q5_k", 0.004), ("q4_k", 0.01), ("q3_k", 0.05)] {
            let output = Scratch.path("\(type).gguf")
            let converted = try Subprocess.run("sigma-convert", [checkpoint, output, "--type", type])
            #expect(converted.code == 0, "\(converted.errors)")
            #expect(converted.errors.contains("no CUDA kernels") == ["q5_k", "q3_k"].contains(type))
            #expect(!converted.errors.contains("more bytes"))
            let inspected = try Subprocess.run("sigma-convert", ["--inspect", output, "--verify"])
            #expect(inspected.code == 0, "\(inspected.errors)")
            let listed = String(decoding: inspected.output, as: UTF8.self)
            #expect(listed.contains(type.uppercased()) && listed.contains("Q6_K"))
            #expect(try ModelFile(path: output).weights.types.subtracting([.f32, .bf16]).map(\.name).sorted() == Set([type, "q6_k"]).sorted())
            let compared = try Subprocess.run(
                "sigma-eval",
                ["compare", text, "--model", output, "--reference", TestModels.demoFloat, "--json"])
            let found = try #require(
                try JSONSerialization.jsonObject(with: Data(compared.output)) as? [String: Double])
            let divergence = try #require(found["kl_mean"])
            #expect(divergence > before && divergence < limit, "\(type): \(divergence)")
            before = divergence
            let run = try JSONRun(
                ["--model", output, "--prompt", "What is 58 - 23?", "--temperature", "0", "--max-tokens", "200"])
            let answer = run.text("answer")
            #expect(answer.contains("35"), "\(type): \(answer)")
        }
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
