import Foundation
import Sigma
import SystemLibrary
import Testing

/// `sigma-convert --synthetic`: the real width, few layers.
@Suite struct SyntheticTests {
    @Test func writesAModelThatRuns() throws {
        let path = Scratch.path("synthetic.gguf")
        defer { try? FileManager.default.removeItem(atPath: path) }
        let result = try Subprocess.run(
            "sigma-convert",
            ["--synthetic", "sigma-moe-tiny", path, "--layers", "2", "--type", "q4_0", "--output-type", "q4_0"])
        #expect(result.code == 0, "\(result.errors)")
        #expect(result.output.isEmpty)
        let line = try #require(result.errors.split(separator: "\n").first { $0.hasPrefix("predictability: ") })
        let measured = try #require(Double(line.dropFirst(16).prefix { $0 != " " }))
        #expect((70...80).contains(measured), "\(line)")

        let c = try ModelFile(path: path).configuration
        #expect(c.layerCount == 2)
        #expect((c.hiddenSize, c.headCount, c.kvHeadCount, c.headDim) == (1536, 16, 4, 96))
        #expect((c.expertCount, c.expertIntermediateSize, c.vocabularySize) == (96, 768, 200_064))
        #expect((c.scoring, c.qkNorm, c.ropeTheta, c.contextLength) == (.sigmoid, true, 1_000_000, 131_072))
        #expect(c.expertsPerToken == [1, 1] && !c.tiedEmbeddings)

        let run = try Subprocess.run(
            "sigma-run", ["--model", path, "--raw", "--prompt", "Hello", "--max-tokens", "3", "--temperature", "0"])
        #expect(run.code == 0, "\(run.errors)")
        #expect(!run.output.isEmpty)
    }

    /// Real tokens on random weights: text goes in and comes out, and constraints hold.
    @Test func aTokenizerOfAFolder() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path
        let path = Scratch.path("real-tokens.gguf")
        defer { try? FileManager.default.removeItem(atPath: path) }
        let arguments = [
            "--synthetic", "sigma-moe-tiny", path, "--layers", "1", "--type", "q4_0", "--output-type", "q4_0",
        ]
        let result = try Subprocess.run(
            "sigma-convert", arguments + ["--tokenizer", root + "/Models/demo/checkpoint"])
        #expect(result.code == 0, "\(result.errors)")
        let file = try ModelFile(path: path)
        let (found, wanted) = (
            try file.tokenizerDefinition(), try ModelFile(path: TestModels.demo).tokenizerDefinition()
        )
        let tokenizer = try Tokenizer(try #require(found))
        let text = "What is 347 + 586? Héllo"
        let ids = tokenizer.encode(text, recognizingSpecials: false)
        #expect(ids == (try Tokenizer(try #require(wanted)).encode(text, recognizingSpecials: false)))
        #expect(
            tokenizer.decode(ids, specials: .named).elementsEqual(text.utf8)
                && file.configuration.vocabularySize == 200_064)
        let run = try Subprocess.run(
            "sigma-run",
            ["--model", path, "--raw", "--prompt", text, "--max-tokens", "40", "--regex", "[a-c]{3}-[0-9]{2}"])
        #expect(run.code == 0, "\(run.errors)")
        #expect(run.text.trimmingCharacters(in: .newlines).firstMatch(of: /^[a-c]{3}-[0-9]{2}$/) != nil, "\(run.text)")
        // A folder without a tokenizer is refused, and nothing is written.
        try FileManager.default.removeItem(atPath: path)
        for folder in [Scratch.folder + "/nowhere", root + "/docs"] {
            let refused = try Subprocess.run("sigma-convert", arguments + ["--tokenizer", folder])
            #expect([65, 66].contains(refused.code), "\(refused.errors)")
            #expect(!FileManager.default.fileExists(atPath: path))
        }
    }

    @Test(arguments: [SIGINT, SIGTERM, SIGHUP]) func interruptedInTheMiddle(_ signal: Int32) throws {
        let folder = Scratch.path("interrupted")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        let process = try Subprocess(
            "sigma-convert", ["--synthetic", "sigma-moe-tiny", folder + "/out.gguf", "--layers", "4", "--type", "q8_0"])
        // A file under another name is there while the weights are written.
        for _ in 0..<1200 {
            if try !FileManager.default.contentsOfDirectory(atPath: folder).isEmpty { break }
            usleep(50_000)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 1)
        kill(process.pid, signal)
        _ = process.readToEnd()
        let end = process.wait()
        #expect(end.code == 130, "\(end.errors)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
    }

    @Test(arguments: [
        ["--synthetic", "sigma-moe-tiny"],
        ["--synthetic", "unheard-of", "out.gguf"],
        ["--synthetic", "sigma-moe-tiny", "in", "out.gguf"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--layers", "0"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--layers", "1025"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--seed", "-1"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--predictability", "1"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--predictability", "nan"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--predictability", "0.2"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--type", "q2_k"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--override", "a=b"],
        ["--synthetic", "sigma-moe-tiny", "out.gguf", "--verify"],
        ["--layers", "2", "in", "out.gguf"],
        ["--seed", "2", "in", "out.gguf"],
        ["--predictability", "0.7", "in", "out.gguf"],
        ["--tokenizer", "folder", "in", "out.gguf"],
        ["--inspect", "in", "--type", "q4_k"],
        ["--inspect", "in", "--plain-gguf"],
        ["--plain-gguf", "--head-screen", "on", "in", "out.gguf"],
    ])
    func wrongUsage(_ arguments: [String]) throws {
        let result = try Subprocess.run("sigma-convert", arguments)
        #expect(result.code == 64, "\(result.errors)")
        #expect(!FileManager.default.fileExists(atPath: "out.gguf"))
    }

    @Test func aFolderThatIsMissing() throws {
        let path = Scratch.path("nothing") + "/out.gguf"
        let result = try Subprocess.run("sigma-convert", ["--synthetic", "sigma-moe-tiny", path, "--layers", "1"])
        #expect(result.code == 66, "\(result.errors)")
    }
}
