import SampleFiles
import Sigma
import SigmaConversion
import SystemLibrary
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Native model files: intact, damaged, and things that are something else.
@Suite struct ModelFileTests {
    /// The bytes of a converted fixture.
    private static let good: [UInt8] = {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try! Converter.convert(
            Converter.Options(
                input: ReferenceFixture.folder + "/sigma-shared-experts", output: path, overrides: try! Overrides(),
                headScreening: .on))
        return Array(try! Data(contentsOf: URL(filePath: path)))
    }()

    private func error(_ bytes: [UInt8]) throws -> SigmaError? {
        try withTemporaryFile(bytes) { path in sigmaError { _ = try ModelFile(path: path) } }
    }

    private func place(of text: String, in bytes: [UInt8] = good) throws -> Int {
        let wanted = Array(text.utf8)
        return try #require(
            (0..<(bytes.count - wanted.count)).first { Array(bytes[$0..<($0 + wanted.count)]) == wanted })
    }

    @Test(arguments: ReferenceFixture.all, [WeightType.q8_0, .f32]) func fixturesLoad(
        _ fixture: ReferenceFixture, _ type: WeightType
    ) throws {
        let model = try fixture.model(type)
        #expect(model.name == fixture.name)
        #expect(model.weights.layers.count == model.configuration.layerCount)
        #expect(try model.tokenizerDefinition() == nil)
        try model.verify()
        try model.checkIntact()
    }

    @Test func verifyReportsProgressAndStops() throws {
        let model = try ReferenceFixture.named("sigma-top1").model(.bf16)
        var shares: [Double] = []
        try model.verify {
            shares.append($0)
            return true
        }
        #expect(shares == shares.sorted())
        #expect(shares.last == 1)
        #expect(sigmaError { try model.verify { _ in false } }?.kind == .interrupted)
    }

    /// A right checksum of wrong numbers says nothing: verifying looks at the numbers too.
    @Test(arguments: [WeightType.f32, .f16, .bf16, .q8_0, .q4_0]) func weightsThatAreNotFinite(_ type: WeightType)
        throws
    {
        let fixture = ReferenceFixture.named("sigma-shared-experts")
        let model = try fixture.model(type)
        let layer = model.weights.layers[1]
        guard case .mixture(let router, _, let experts, let shared?) = layer.feedForward else {
            Issue.record("no experts")
            return
        }
        let base = model.gguf.file.bytes.baseAddress!
        func place(_ matrix: WeightMatrix) -> Int {
            // The last number of the last row, or its scale.
            let row = matrix.data(row: matrix.rows - 1) - base
            switch matrix.type {
            case .f32: return row + 4 * matrix.columns - 2
            case .f16, .bf16: return row + 2 * matrix.columns - 2
            default:
                let values = matrix.columns / 32 * (matrix.type == .q8_0 ? 512 : 256)
                return row + values + 2 * ((matrix.rows - 1) % 16)
            }
        }
        let targets: [(String, WeightMatrix)] = [
            ("blk.1.ffn_gate_inp.weight", router), ("blk.1.attn_v.weight", layer.value),
            ("blk.1.ffn_experts", experts.down(2)), ("blk.1.ffn_up_shexp.weight", shared.up),
            ("token_embd.weight", model.weights.embedding), ("output.weight", model.weights.head),
        ]
        for (name, matrix) in targets {
            let infinity: [UInt8] = matrix.type == .f32 || matrix.type == .bf16 ? [0x80, 0xff] : [0x00, 0xfc]
            var bytes = Array(model.gguf.file.bytes)
            bytes.replaceSubrange(place(matrix)..<place(matrix) + 2, with: infinity)
            try Self.renewChecksums(of: &bytes, like: model)
            try withTemporaryFile(bytes) { path in
                let error = try #require(sigmaError { try ModelFile(path: path).verify() }, "\(name)")
                #expect(error.kind == .damaged && error.item == name, "\(error)")
                #expect(error.message.contains("not finite"))
            }
        }
    }

    /// Makes the checksums of a file right whose weights were changed.
    private static func renewChecksums(of bytes: inout [UInt8], like model: ModelFile) throws {
        let sums = try #require(model.gguf.entry(ModelFileFormat.Key.checksums))
        func put(_ value: UInt32, _ place: Int) {
            withUnsafeBytes(of: value.littleEndian) { bytes.replaceSubrange(place..<place + 4, with: $0) }
        }
        var record = 0
        for tensor in model.gguf.tensors {
            let count = tensor.name.hasSuffix("ffn_experts") ? model.configuration.expertCount : 1
            let size = tensor.byteCount / count
            for part in 0..<count {
                let start = tensor.offset + part * size
                let crc = bytes[start..<start + size].withUnsafeBytes { CRC32C.checksum($0) }
                // Kind and count come first.
                put(crc, sums.offset + 12 + 4 * record)
                record += 1
            }
        }
        let hole = try #require(model.gguf.entry(ModelFileFormat.Key.headerChecksum)).offset
        put(bytes[..<model.gguf.dataOffset].withUnsafeBytes { ModelFileFormat.headerChecksum($0, hole: hole) }, hole)
    }

    /// Files from before the key are of models that think.
    @Test func filesWithoutTheThinksKey() throws {
        func format(_ key: String) throws -> ChatFormat? {
            var writer = GGUFWriter(architecture: "sigma", alignment: 32)
            writer.set("sigma.chat.style", "chatml")
            writer.set(key, false)
            writer.set("sigma.chat.opens_thinking", false)
            writer.set("sigma.chat.thinking_prompt", "")
            writer.set("sigma.chat.closing_phrase", "")
            writer.set("sigma.chat.stop_tokens", [Int32(1)])
            return try withTemporaryFile(writer.layout().header) { path in
                try ModelFileMetadata.chatFormat(of: GGUFFile(path: path), vocabularySize: 2)
            }
        }
        #expect(try format("sigma.chat.other")?.thinks == true)
        #expect(try format("sigma.chat.thinks")?.thinks == false)
    }

    // MARK: something else

    @Test func checkpointFolder() throws {
        let path = ReferenceFixture.folder + "/sigma-top1"
        let error = try #require(sigmaError { _ = try ModelFile(path: path) })
        #expect(error.kind == .damaged)
        #expect(error.remedy?.description.contains("sigma-convert \(path) sigma-top1.gguf") == true)
    }

    @Test func safetensorsFile() throws {
        let folder = ReferenceFixture.folder + "/sigma-top1"
        let error = try #require(sigmaError { _ = try ModelFile(path: folder + "/model.safetensors") })
        #expect(error.kind == .damaged)
        #expect(error.remedy?.description.contains("sigma-convert \(folder) sigma-top1.gguf") == true)
    }

    @Test func foreignGGUF() throws {
        let error = try #require(try error(GGUFBytes.good.bytes))
        #expect(error.kind == .damaged)
        #expect(error.message.contains("'x'"))
        #expect(error.remedy?.description.contains("sigma-convert /") == true)
    }

    /// A header with nothing behind it, which need not end where data could begin.
    @Test func headersWithoutTensors() throws {
        var bytes = GGUFBytes(data: [])
        for key in [nil, "general.architecture", "a", "ab", "abc"] {
            if let key { bytes.keys.append(GGUFBytes.key(key, 8, GGUFBytes.string("x"))) }
            let error = try #require(try error(bytes.header))
            #expect(error.kind == .damaged)
        }
    }

    @Test func noFile() { #expect(sigmaError { _ = try ModelFile(path: "/nonexistent.gguf") }?.kind == .noInput) }
    @Test func textFile() throws { #expect(try error(Array("hello, world".utf8))?.kind == .damaged) }

    // MARK: one corruption, one test

    @Test func newerVersion() throws {
        var bytes = Self.good
        bytes[try place(of: "sigma.format_version") + 20 + 4] = 9
        let error = try #require(try error(bytes))
        #expect(error.message == "expected format version 2, found 9")
        #expect(error.remedy?.description.contains("sigma-convert") == true)
    }

    @Test func missingTensor() throws {
        var bytes = Self.good
        bytes[try place(of: "output_norm.weight")] = UInt8(ascii: "X")
        let error = try #require(try error(bytes))
        #expect(error.item == "output_norm.weight")
        #expect(error.message.contains("missing"))
    }

    @Test(arguments: ["output_screen.mean", "output_screen.coarse", "output_screen.fine"])
    func missingScreenTensor(_ name: String) throws {
        var bytes = Self.good
        // Two of the three are left, and one that nobody knows.
        bytes[try place(of: name)] = UInt8(ascii: "X")
        let error = try #require(try error(bytes))
        #expect(error.item == name)
        #expect(error.message.contains("missing"))
    }

    @Test func screenOfAnotherShape() throws {
        for (name, dimension) in [("output_screen.coarse", 0), ("output_screen.fine", 1)] {
            var bytes = Self.good
            // Name, number of dimensions, dimensions: fewer bytes than there are.
            bytes[try place(of: name) + name.utf8.count + 4 + 8 * dimension] -= 1
            let error = try #require(try error(bytes))
            #expect(error.item == name)
            #expect(error.message.contains("dimensions"))
        }
    }

    /// Canonically equal to Unicode, and two names all the same.
    @Test func namesThatDifferInNormalization() throws {
        var bytes = Self.good
        for (name, marks) in [("blk.0.attn_q.weight", "a\u{323}\u{307}"), ("blk.0.attn_k.weight", "a\u{307}\u{323}")] {
            let place = try place(of: name)
            let renamed = Array(marks.utf8) + [UInt8](repeating: 0x78, count: name.utf8.count - marks.utf8.count)
            bytes.replaceSubrange(place..<place + renamed.count, with: renamed)
        }
        #expect(try error(bytes)?.kind == .damaged)
    }

    @Test func tensorTooMany() throws {
        // Attention biases are optional, so a renamed one is missed by nobody.
        let path = FileManager.default.temporaryDirectory.path + "/sigma-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Converter.convert(
            Converter.Options(
                input: ReferenceFixture.folder + "/sigma-attention-bias", output: path, overrides: try Overrides()))
        var bytes = Array(try Data(contentsOf: URL(filePath: path)))
        bytes[try place(of: "attn_q.bias", in: bytes)] = UInt8(ascii: "X")
        #expect(try error(bytes)?.message.contains("no place") == true)
    }

    @Test func shapeMismatch() throws {
        var bytes = Self.good
        // A group of rows fewer than the configuration says.
        let place = try place(of: "sigma.vocab_size") + 16 + 4
        bytes[place] -= 16
        let error = try #require(try error(bytes))
        #expect(error.item == "token_embd.weight")
        #expect(error.message.contains("dimensions"))
    }

    @Test func wrongTensorType() throws {
        var bytes = Self.good
        // A bf16 norm said to be 16-bit integers: the same size, but no weights.
        let place = try place(of: "output_norm.weight") + 18 + 4 + 8
        #expect(bytes[place] == 30)
        bytes[place] = 25
        let error = try #require(try error(bytes))
        #expect(error.item == "output_norm.weight")
        #expect(error.message.contains("I16"))
    }

    @Test func oddHeadDimension() throws {
        var bytes = Self.good
        bytes[try place(of: "sigma.attention.key_length") + 26 + 4] = 33
        #expect(try error(bytes)?.message.contains("even number") == true)
    }

    @Test func missingKey() throws {
        var bytes = Self.good
        bytes[try place(of: "sigma.rope.freq_base")] = UInt8(ascii: "X")
        #expect(try error(bytes)?.item == "sigma.rope.freq_base")
    }

    @Test func keyOfAnotherKind() throws {
        var bytes = Self.good
        // A float where a uint32 was: the same size.
        bytes[try place(of: "sigma.block_count") + 17] = 6
        let error = try #require(try error(bytes))
        #expect(error.item == "sigma.block_count")
        #expect(error.message.contains("float32"))
    }

    @Test func notANumberInANorm() throws {
        let model = try withTemporaryFile(Self.good) { try GGUFFile(path: $0) }
        let norm = try #require(model.tensor("output_norm.weight"))
        var bytes = Self.good
        (bytes[norm.offset], bytes[norm.offset + 1]) = (0xc0, 0x7f)
        let error = try #require(try error(bytes))
        #expect(error.item == "output_norm.weight")
        #expect(error.offset == UInt64(norm.offset))
    }

    @Test func headerChecksum() throws {
        var bytes = Self.good
        // A changed name breaks no structure.
        bytes[try place(of: "sigma-shared-experts")] = UInt8(ascii: "X")
        let error = try #require(try error(bytes))
        #expect(error.message.contains("header is damaged"))
        #expect(error.item == "sigma.header_checksum")
    }

    /// Against the definition, bit by bit, at every length around the steps of the fast ways.
    @Test func checksumsAreCRC32C() {
        var generator = SplitMix64(state: 7)
        let bytes = (0..<2400).map { _ in UInt8.random(in: 0...255, using: &generator) }
        for count in [0, 1, 9, 255, 256] + Array(500...530) + [767, 768, 1023, 1024, 1040, 2399] {
            let slice = bytes[1..<1 + count]
            let found = Array(slice).withUnsafeBytes { CRC32C.checksum($0) }
            #expect(found == definedCRC32C(slice), "\(count) bytes")
            let (first, rest) = (Array(slice.prefix(count / 3)), Array(slice.dropFirst(count / 3)))
            let begun = first.withUnsafeBytes { CRC32C.checksum($0) }
            #expect(rest.withUnsafeBytes { CRC32C.checksum($0, continuing: begun) } == found)
        }
        #expect(definedCRC32C("123456789".utf8) == 0xe306_9283)
    }

    @Test func everyRecordHasAChecksum() throws {
        let gguf = try withTemporaryFile(Self.good) { try GGUFFile(path: $0) }
        for tensor in gguf.tensors {
            // The last byte: of the last expert, for experts.
            var bytes = Self.good
            bytes[tensor.offset + tensor.byteCount - 1] ^= 1
            let error = try withTemporaryFile(bytes) { path in
                sigmaError { try ModelFile(path: path).verify() }
            }
            #expect(error?.kind == .damaged)
            #expect(error?.item == tensor.name)
            if tensor.name.hasSuffix("ffn_experts") { #expect(error?.message.contains("expert 3") == true) }
        }
    }

    @Test func truncatedWhileInUse() throws {
        try withTemporaryFile(Self.good) { path in
            let model = try ModelFile(path: path)
            try model.checkIntact()
            truncate(path, 16384)
            #expect(sigmaError { try model.verify() }?.kind == .inputOutput)
            #expect(sigmaError { try model.checkIntact() }?.kind == .inputOutput)
        }
    }

    @Test func damagedHeadersOnlyGiveErrors() throws {
        let headerSize = try withTemporaryFile(Self.good) { try GGUFFile(path: $0).dataOffset }
        // The rest of the header is padding.
        let used = try #require(Self.good[..<headerSize].lastIndex { $0 != 0 }) + 1
        var generator = SplitMix64(state: 3)
        for _ in 0..<1500 {
            var bytes = Self.good
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                bytes[Int.random(in: 0..<used, using: &generator)] ^= UInt8.random(in: 1...255, using: &generator)
            }
            let error = try error(bytes)
            #expect(error?.kind == .damaged)
        }
    }

    // MARK: tokenizer

    @Test(arguments: TokenizerFixtures.names) func tokenizersReadBack(_ name: String) throws {
        var definition = try TokenizerFixtures.definition(name)
        // What an unused id was called is not kept.
        definition.tokens = TokenTable(
            (0..<definition.tokens.count).map { definition.kinds[$0] == .unused ? [] : Array(definition.tokens[$0]) })
        definition.bos = 5
        definition.eos = 6
        definition.addsBos = true
        var writer = GGUFWriter(architecture: "sigma", alignment: 32)
        ModelFileTokenizer.write(definition, to: &writer)
        let file = try withTemporaryFile(writer.layout().header) { try GGUFFile(path: $0) }
        #expect(try ModelFileTokenizer.definition(of: file, vocabularySize: definition.tokens.count) == definition)
        let error = sigmaError {
            _ = try ModelFileTokenizer.definition(of: file, vocabularySize: definition.tokens.count - 1)
        }
        #expect(error?.item == "tokenizer.ggml.tokens")
    }

    @Test func damagedTokenizersOnlyGiveErrors() throws {
        let definition = try TokenizerFixtures.definition("gpt2")
        var writer = GGUFWriter(architecture: "sigma", alignment: 32)
        ModelFileTokenizer.write(definition, to: &writer)
        let good = writer.layout().header
        var generator = SplitMix64(state: 4)
        for _ in 0..<1000 {
            var bytes = good
            bytes[Int.random(in: 0..<bytes.count, using: &generator)] ^= UInt8.random(in: 1...255, using: &generator)
            try withTemporaryFile(bytes) { path in
                let error = sigmaError {
                    _ = try ModelFileTokenizer.definition(
                        of: try GGUFFile(path: path), vocabularySize: definition.tokens.count)
                }
                if let error { #expect(error.kind == .damaged) }
            }
        }
    }
}
