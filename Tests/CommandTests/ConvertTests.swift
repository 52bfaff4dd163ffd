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
