import Sigma
import SigmaConversion
import SystemLibrary
import Testing

/// Folders and files that are not what they seem: each is named for what it is.
@Suite struct CheckpointFolderTests {
    private let scratch: Scratch
    init() throws { scratch = try Scratch() }

    private func error(_ path: String? = nil) -> SigmaError? {
        sigmaError { _ = try ConversionInput(path ?? scratch.path, overrides: .none) }
    }
    private func expect(
        _ error: SigmaError?, _ kind: SigmaError.Kind, _ file: String, _ words: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let text = error?.description ?? "no error"
        let path = file.isEmpty ? scratch.path : scratch / file
        #expect(error?.kind == kind && error?.path == path, "\(text)", sourceLocation: sourceLocation)
        for word in words { #expect(text.contains(word), "\(text)", sourceLocation: sourceLocation) }
    }

    // MARK: tensors without an index

    private func shardNames() -> [String] { scratch.files.filter { $0.hasPrefix("model-") } }

    @Test func shardsWithoutAnIndex() throws {
        try scratch.copyFixture("sigma-f32")
        try scratch.convert(to: "whole.gguf")
        try scratch.remove("model.safetensors.index.json")
        let (warnings, _) = try scratch.convert(to: "parts.gguf")
        #expect(try scratch.read("parts.gguf") == scratch.read("whole.gguf"))
        #expect(warnings.contains { $0.contains("model.safetensors.index.json") && $0.contains("3 files") })
        // Other files of tensors beside the set belong to something else.
        try scratch.write("adapter_model.safetensors", safetensors([("x", [1], [1])]))
        try scratch.write("extra.safetensors", safetensors([("x", [1], [1])]))
        try scratch.convert(to: "parts.gguf")
        #expect(try scratch.read("parts.gguf") == scratch.read("whole.gguf"))
        try scratch.remove("model-00002-of-00003.safetensors")
        expect(error(), .noInput, "", "2 of 3", "model-00002-of-00003.safetensors")
    }

    @Test func setsOfShards() throws {
        try scratch.copyFixture("sigma-f32")
        try scratch.convert(to: "whole.gguf")
        try scratch.remove("model.safetensors.index.json")
        for name in shardNames() {
            try scratch.write(name.replacing("model-", with: "weights-"), scratch.read(name))
        }
        // Of two sets the one of the usual name.
        try scratch.convert(to: "parts.gguf")
        #expect(try scratch.read("parts.gguf") == scratch.read("whole.gguf"))
        for name in shardNames() { try scratch.remove(name) }
        try scratch.convert(to: "parts.gguf")
        #expect(try scratch.read("parts.gguf") == scratch.read("whole.gguf"))
        try scratch.write("other-00001-of-00001.safetensors", safetensors([("x", [1], [1])]))
        expect(error(), .noInput, "", "It is not clear which")
    }

    @Test func oneFileOfAnotherName() throws {
        try scratch.copyFixture("sigma-top1")
        try scratch.write("consolidated.safetensors", scratch.read("model.safetensors"))
        try scratch.remove("model.safetensors")
        #expect(try scratch.convert().warnings.contains { $0.contains("consolidated.safetensors") })
        try scratch.write("second.safetensors", safetensors([("x", [1], [1])]))
        expect(error(), .noInput, "", "consolidated.safetensors, second.safetensors")
    }

    @Test(arguments: [
        ("adapter_model.safetensors", "adapter"), ("pytorch_model-00001-of-00002.bin", "PyTorch"),
        ("x.gguf", "sigma-convert"), ("README.md", "download"),
    ]) func noTensors(_ name: String, _ word: String) throws {
        try scratch.write("config.json", "{}")
        try scratch.write(name, "x")
        expect(error(), .noInput, "", "no model.safetensors", word)
    }

    // MARK: indexes

    private func index(_ change: (inout String) -> Void) throws {
        var text = String(decoding: try scratch.read("model.safetensors.index.json"), as: UTF8.self)
        change(&text)
        try scratch.write("model.safetensors.index.json", text)
    }

    /// What nobody needs may be missing; what the model needs, or could have, may not.
    @Test func tensorsThatOnlyTheIndexHas() throws {
        try scratch.copyFixture("sigma-f32")
        try scratch.convert(to: "whole.gguf")
        func promise(_ name: String) throws {
            try index {
                $0 = $0.replacing(
                    "\"weight_map\": {", with: "\"weight_map\": {\"\(name)\": \"model-00003-of-00003.safetensors\",")
            }
        }
        try promise("mtp.fc.weight")
        let (warnings, _) = try scratch.convert(to: "out.gguf")
        #expect(warnings.count(where: { $0.contains("mtp.fc.weight") }) == 1)
        #expect(try scratch.read("out.gguf") == scratch.read("whole.gguf"))
        for name in ["model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.o_proj.bias"] {
            let other = try Scratch()
            try other.copyFixture("sigma-f32")
            var text = String(decoding: try other.read("model.safetensors.index.json"), as: UTF8.self)
            try #require(!text.contains(name))
            text = text.replacing(
                "\"weight_map\": {", with: "\"weight_map\": {\"\(name)\": \"model-00003-of-00003.safetensors\",")
            try other.write("model.safetensors.index.json", text)
            let error = sigmaError { try other.convert() }
            #expect(error?.kind == .damaged && error?.item == name, "\(error?.description ?? "no error")")
        }
    }

    /// An index beside model.safetensors decides, if its files are there.
    @Test func anIndexBesideOneFile() throws {
        try scratch.copyFixture("sigma-f32")
        try scratch.convert(to: "whole.gguf")
        let shards = shardNames()
        try scratch.write("model.safetensors", safetensors([("x", [1], [1])]))
        let (warnings, _) = try scratch.convert(to: "out.gguf")
        #expect(try scratch.read("out.gguf") == scratch.read("whole.gguf"))
        #expect(warnings.contains { $0.contains("model.safetensors, which is not used") })
        for name in shards.dropFirst() { try scratch.remove(name) }
        try scratch.write("model.safetensors", scratch.read(shards[0]))
        let checkpoint = try Checkpoint(folder: scratch.path)
        #expect(checkpoint.shards.map(\.file.path) == [scratch / "model.safetensors"])
        #expect(checkpoint.warnings.contains { $0.contains(shards[1]) })
    }

    /// A file of the index may hold newer tensors for some of another's.
    @Test func overlays() throws {
        try scratch.copyFixture("sigma-top1")
        let checkpoint = try Checkpoint(folder: scratch.path)
        let norm = try #require(try checkpoint.find("model.norm.weight"))
        try scratch.write(
            "overlay.safetensors",
            safetensors([("model.norm.weight", norm.shape, (0..<norm.shape[0]).map { Float($0) })]))
        let map = checkpoint.names.map { "\"\($0)\":\"\($0 == norm.name ? "overlay" : "model").safetensors\"" }
        try scratch.write("model.safetensors.index.json", "{\"weight_map\":{\(map.joined(separator: ","))}}")
        let model = try ModelFile(path: scratch.convert().path)
        #expect(Array(model.weights.finalNorm.values) == (0..<norm.shape[0]).map { Float($0) })
    }

    // MARK: links that lead nowhere

    @Test(arguments: [
        "config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "chat_template.jinja",
    ])
    func danglingLinks(_ name: String) throws {
        try scratch.copyFixture("sigma-top1")
        unlink(scratch / name)
        #expect(symlink("../../blobs/0123", scratch / name) == 0)
        expect(error(), .noInput, name, "../../blobs/0123", "does not exist")
    }

    @Test func danglingShard() throws {
        try scratch.copyFixture("sigma-f32")
        try scratch.remove("model-00002-of-00003.safetensors")
        #expect(symlink("/nowhere/blob", scratch / "model-00002-of-00003.safetensors") == 0)
        expect(error(), .noInput, "model-00002-of-00003.safetensors", "/nowhere/blob")
    }

    @Test func foldersOfACache() throws {
        for name in ["blobs", "refs", "snapshots/aaa", "snapshots/bbb"] { try scratch.makeFolder(name) }
        expect(error(), .noInput, "config.json", "no such file")
        for name in ["aaa", "bbb"] { try scratch.write("snapshots/\(name)/config.json", "{}") }
        try scratch.write("refs/main", "bbb")
        expect(error(), .noInput, "config.json", "sigma-convert \(scratch / "snapshots/bbb") OUTPUT")
        // One level lower, and one higher.
        let inner = error(scratch / "snapshots")
        #expect(inner?.kind == .noInput && inner?.remedy?.description.contains("snapshots/aaa") == true)
        let cache = try Scratch()
        try cache.makeFolder("models--a--b/snapshots/ccc")
        try cache.write("models--a--b/snapshots/ccc/config.json", "{}")
        #expect(
            error(cache.path)?.remedy?.description.contains(cache / "models--a--b/snapshots/ccc") == true)
    }

    // MARK: what lies in a file's place

    static let standIns: [(bytes: [UInt8], word: String)] = [
        (Array("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n".utf8), "git-lfs"),
        (Array("<!DOCTYPE html>\n<html>".utf8), "web page"), (Array("\u{feff}\n <HTML lang=en>".utf8), "web page"),
        (Array("<?xml version=\"1.0\"?><Error><Code>AccessDenied".utf8), "web page"),
        ([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], "compressed"),
        (Array("PK\u{3}\u{4}".utf8) + [20, 0, 0, 0, 8], "compressed"),
        ([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4, 0xe6], "compressed"),
        ([0x28, 0xb5, 0x2f, 0xfd, 4, 0x58, 0, 0, 0], "compressed"),
        (Array("BZh91AY&SY".utf8), "compressed"),
    ]

    @Test(arguments: standIns.indices) func standInFiles(_ index: Int) throws {
        let (bytes, word) = Self.standIns[index]
        for name in [
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
            "chat_template.jinja", "chat_template.json",
        ] {
            let folder = try Scratch()
            try folder.copyFixture("sigma-top1")
            try folder.write(name, bytes)
            let error = error(folder.path)
            #expect(
                error?.kind == .damaged && error?.path == folder / name, "\(name): \(error?.description ?? "no error")")
            #expect(error?.message.contains(word) == true && error?.remedy != nil, "\(error?.description ?? "")")
        }
        try scratch.copyFixture("sigma-f32")
        try scratch.write("model-00002-of-00003.safetensors", bytes)
        expect(error(), .damaged, "model-00002-of-00003.safetensors", word)
        try scratch.write("x.gguf", bytes)
        expect(error(scratch / "x.gguf"), .damaged, "x.gguf", word)
        let model = sigmaError { _ = try ModelFile(path: scratch / "x.gguf") }
        #expect(model?.message.contains(word) == true)
    }

    @Test func oneFileOfACheckpoint() throws {
        try scratch.copyFixture("sigma-top1")
        expect(
            error(scratch / "model.safetensors"), .damaged, "model.safetensors", "sigma-convert \(scratch.path) OUTPUT")
        let gguf = try Scratch()
        try gguf.write("m.gguf", "x")
        #expect(error(gguf.path)?.remedy?.description.contains(gguf / "m.gguf") == true)
        try gguf.remove("m.gguf")
        try gguf.write("adapter_config.json", "{}")
        #expect(error(gguf.path)?.message.contains("LoRA") == true)
    }
}
