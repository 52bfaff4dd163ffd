import Sigma
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A file of the given bytes that is gone when the closure returns.
func withTemporaryFile<T>(_ bytes: [UInt8], _ body: (String) throws -> T) throws -> T {
    let path = FileManager.default.temporaryDirectory.path + "/sigma-\(UUID().uuidString).gguf"
    defer { try? FileManager.default.removeItem(atPath: path) }
    try Data(bytes).write(to: URL(filePath: path))
    return try body(path)
}

/// The error that `body` throws; nil if it throws none. Anything but a `SigmaError` fails the test.
func sigmaError(_ body: () throws -> Void) -> SigmaError? {
    do {
        try body()
        return nil
    } catch let error as SigmaError {
        return error
    } catch {
        Issue.record("not a SigmaError: \(error)")
        return nil
    }
}

/// GGUF bytes put together by hand, so that every field can be wrong.
struct GGUFBytes {
    var magic: [UInt8] = Array("GGUF".utf8)
    var version: UInt32 = 3
    var tensorCount: UInt64?
    var keyCount: UInt64?
    var keys: [[UInt8]] = []
    var tensors: [[UInt8]] = []
    var alignment = 32
    var data = [UInt8](repeating: 7, count: 256)

    static func number<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }
    static func string(_ text: String) -> [UInt8] { string(Array(text.utf8)) }
    static func string(_ text: [UInt8]) -> [UInt8] { number(UInt64(text.count)) + text }
    static func key(_ name: String, _ kind: UInt32, _ value: [UInt8]) -> [UInt8] { string(name) + number(kind) + value }
    static func tensor(_ name: String, _ dimensions: [UInt64], type: UInt32 = 0, offset: UInt64) -> [UInt8] {
        string(name) + number(UInt32(dimensions.count)) + dimensions.flatMap { number($0) } + number(type)
            + number(offset)
    }

    /// Two keys and two tensors, all in order.
    static let good: GGUFBytes = {
        var bytes = GGUFBytes()
        bytes.keys = [key("general.architecture", 8, string("x")), key("x.count", 4, number(UInt32(5)))]
        bytes.tensors = [tensor("a", [4, 2], offset: 0), tensor("b", [8], offset: 32)]
        return bytes
    }()

    var header: [UInt8] {
        magic + Self.number(version) + Self.number(tensorCount ?? UInt64(tensors.count))
            + Self.number(keyCount ?? UInt64(keys.count)) + keys.flatMap { $0 } + tensors.flatMap { $0 }
    }
    var bytes: [UInt8] {
        let header = header
        return header + [UInt8](repeating: 0, count: (alignment - header.count % alignment) % alignment) + data
    }
}

/// Every way in which a GGUF file can be damaged has a test that names it.
@Suite struct GGUFTests {
    private func open(_ bytes: GGUFBytes) throws -> GGUFFile {
        try withTemporaryFile(bytes.bytes) { try GGUFFile(path: $0) }
    }
    private func error(_ change: (inout GGUFBytes) -> Void) -> SigmaError? {
        var bytes = GGUFBytes.good
        change(&bytes)
        return sigmaError { _ = try open(bytes) }
    }
    private func expectDamaged(
        _ message: String, item: String? = nil, sourceLocation: SourceLocation = #_sourceLocation,
        _ change: (inout GGUFBytes) -> Void
    ) {
        let error = error(change)
        #expect(error?.kind == .damaged, sourceLocation: sourceLocation)
        #expect(
            error?.message.contains(message) == true, "\(error?.description ?? "no error")",
            sourceLocation: sourceLocation)
        if let item { #expect(error?.item == item, sourceLocation: sourceLocation) }
        #expect(error?.offset != nil, sourceLocation: sourceLocation)
    }

    // MARK: intact files

    @Test func intact() throws {
        let file = try open(.good)
        #expect(file.version == 3)
        #expect(file.alignment == 32)
        #expect(file["general.architecture"]?.string == "x")
        #expect(file["x.count"]?.integer == 5)
        #expect(file["nothing"] == nil)
        let a = try #require(file.tensor("a"))
        #expect(a.dimensions == [4, 2])
        #expect(a.byteCount == 32)
        #expect(a.offset == file.dataOffset)
        #expect(file.tensor("b")?.offset == file.dataOffset + 32)
        #expect(file.bytes(a).allSatisfy { $0 == 7 })
    }

    @Test func versionTwo() throws {
        var bytes = GGUFBytes.good
        bytes.version = 2
        #expect(try open(bytes).version == 2)
    }

    @Test func valuesOfAllKinds() throws {
        typealias G = GGUFBytes
        var bytes = G.good
        bytes.keys += [
            G.key("u8", 0, [200]), G.key("i8", 1, [200]), G.key("u16", 2, G.number(UInt16(65535))),
            G.key("i16", 3, G.number(Int16(-2))), G.key("i32", 5, G.number(Int32(-3))),
            G.key("f32", 6, G.number(Float(1.5).bitPattern)), G.key("bool", 7, [1]),
            G.key("u64", 10, G.number(UInt64(1) << 40)), G.key("huge", 10, G.number(UInt64.max)),
            G.key("i64", 11, G.number(Int64.min)), G.key("f64", 12, G.number(Double.pi.bitPattern)),
            G.key(
                "strings", 9, G.number(UInt32(8)) + G.number(UInt64(3)) + G.string("") + G.string("é") + G.string("abc")
            ),
            G.key("ints", 9, G.number(UInt32(5)) + G.number(UInt64(2)) + G.number(Int32(-1)) + G.number(Int32(9))),
            G.key("none", 9, G.number(UInt32(8)) + G.number(UInt64(0))),
        ]
        let file = try open(bytes)
        #expect(file["u8"]?.integer == 200)
        #expect(file["i8"]?.integer == -56)
        #expect(file["u16"]?.integer == 65535)
        #expect(file["i16"]?.integer == -2)
        #expect(file["i32"]?.integer == -3)
        #expect(file["f32"]?.double == 1.5)
        #expect(file["bool"]?.bool == true)
        #expect(file["u64"]?.integer == 1 << 40)
        #expect(file["huge"]?.integer == nil)
        #expect(file["i64"]?.integer == .min)
        #expect(file["f64"]?.double == .pi)
        let strings = try #require(file["strings"]?.array)
        #expect((0..<3).map { strings.string($0) } == ["", "é", "abc"])
        #expect(file["ints"]?.array?.integers == [-1, 9])
        #expect(file["none"]?.array?.count == 0)
    }

    @Test func writtenFilesReadBack() throws {
        var writer = GGUFWriter(architecture: "y", alignment: 64)
        writer.set("y.name", "é🙂")
        writer.set("y.float", Float(0.1))
        writer.set("y.yes", true)
        writer.set("y.big", UInt64(1) << 50)
        writer.set("y.list", [UInt32(1), 2, 3])
        writer.set("y.signed", [Int32(-1)])
        writer.set("y.texts", strings: [Array("a".utf8), [], Array("bc".utf8)])
        writer.set("y.later", UInt32(0))
        writer.addTensor("t", dimensions: [32, 3], type: GGMLType.number(8)!)
        writer.addTensor("u", dimensions: [5], type: .f32)
        var layout = writer.layout()
        layout.patch("y.later", 77)
        layout.patch("y.list", 9, index: 1)
        #expect(layout.header.count % 64 == 0)
        #expect(layout.tensorOffsets == [layout.header.count, layout.header.count + 128])
        let bytes = layout.header + [UInt8](repeating: 1, count: layout.fileSize - layout.header.count)
        let file = try withTemporaryFile(bytes) { try GGUFFile(path: $0) }
        #expect(file.alignment == 64)
        #expect(file["y.name"]?.string == "é🙂")
        #expect(file["y.float"]?.double == Double(Float(0.1)))
        #expect(file["y.big"]?.integer == 1 << 50)
        #expect(file["y.list"]?.array?.integers == [1, 9, 3])
        #expect(file["y.signed"]?.array?.integers == [-1])
        #expect(file["y.texts"]?.array.map { a in (0..<a.count).map { a.string($0) } } == ["a", "", "bc"])
        #expect(file["y.later"]?.integer == 77)
        #expect(file.tensors.map(\.name) == ["t", "u"])
        #expect(file.tensors.map(\.byteCount) == [102, 20])
    }

    // MARK: one corruption, one test

    @Test func badMagic() { expectDamaged("not a GGUF file") { $0.magic = Array("GGUX".utf8) } }
    @Test func versionOne() { expectDamaged("found 1") { $0.version = 1 } }
    @Test func versionFour() { expectDamaged("found 4") { $0.version = 4 } }
    @Test func bigEndian() { expectDamaged("big-endian") { $0.version = UInt32(3).byteSwapped } }

    @Test func truncatedAtEveryByte() throws {
        let bytes = GGUFBytes.good
        let whole = bytes.bytes
        let dataEnd = whole.count - bytes.data.count + 64
        for length in 0..<dataEnd {
            let error = try withTemporaryFile(Array(whole[..<length])) { path in
                sigmaError { _ = try GGUFFile(path: path) }
            }
            #expect(error?.kind == .damaged, "\(length) bytes")
        }
    }

    @Test func hugeTensorCount() { expectDamaged("tensors") { $0.tensorCount = .max } }
    @Test func tensorCountBeyondTheFile() { expectDamaged("do not fit") { $0.tensorCount = 60_000 } }
    @Test func hugeKeyCount() { expectDamaged("keys") { $0.keyCount = 1 << 63 } }
    @Test func keyCountBeyondTheFile() { expectDamaged("do not fit") { $0.keyCount = 60_000 } }
    @Test func hugeKeyLength() {
        expectDamaged("at most") { $0.keys[0] = GGUFBytes.number(UInt64.max) + Array("x".utf8) }
    }
    @Test func emptyKey() { expectDamaged("empty") { $0.keys[0] = GGUFBytes.key("", 4, [0, 0, 0, 0]) } }
    @Test func keyIsNotUTF8() {
        expectDamaged("UTF-8") {
            $0.keys[0] = GGUFBytes.string([0x61, 0xff]) + GGUFBytes.number(UInt32(4)) + [0, 0, 0, 0]
        }
    }
    @Test func duplicateKey() { expectDamaged("twice", item: "x.count") { $0.keys.append($0.keys[1]) } }
    @Test func unknownValueKind() {
        expectDamaged("kind", item: "k") { $0.keys[1] = GGUFBytes.key("k", 13, [0, 0, 0, 0]) }
    }
    @Test func boolThatIsTwo() { expectDamaged("0 or 1", item: "k") { $0.keys[1] = GGUFBytes.key("k", 7, [2]) } }
    @Test func hugeString() {
        expectDamaged("the text", item: "k") { $0.keys[1] = GGUFBytes.key("k", 8, GGUFBytes.number(UInt64(1) << 62)) }
    }
    /// Whoever needs the text refuses it; a licence or a list of data sets means nothing to us.
    @Test func textsThatAreNotUTF8() throws {
        var file = GGUFBytes.good
        file.keys[1] = GGUFBytes.key("k", 8, GGUFBytes.string([0xc0, 0x80]))
        file.keys.append(
            GGUFBytes.key(
                "list", 9,
                GGUFBytes.number(UInt32(8)) + GGUFBytes.number(UInt64(2)) + GGUFBytes.string("fine")
                    + GGUFBytes.string([0xf8])))
        file.keys.append(GGUFBytes.key("after", 4, [7, 0, 0, 0]))
        try withTemporaryFile(file.bytes) { path in
            let gguf = try GGUFFile(path: path)
            let keys = KeyReader(file: gguf)
            #expect(try keys.integer("after") == 7)
            for (key, read) in [
                ("k", { _ = try keys.string("k") }), ("list", { _ = try keys.strings("list") }),
            ] as [(String, () throws -> Void)] {
                let error = sigmaError(read)
                #expect(error?.kind == .damaged && error?.item == key && error?.offset != nil)
                #expect(error?.message.contains("not valid UTF-8") == true, "\(error?.message ?? "")")
            }
        }
    }
    @Test func arrayOfArrays() {
        expectDamaged("array of arrays", item: "k") {
            $0.keys[1] = GGUFBytes.key("k", 9, GGUFBytes.number(UInt32(9)) + GGUFBytes.number(UInt64(0)))
        }
    }
    @Test func hugeArray() {
        expectDamaged("elements", item: "k") {
            $0.keys[1] = GGUFBytes.key("k", 9, GGUFBytes.number(UInt32(12)) + GGUFBytes.number(UInt64.max / 8))
        }
    }
    @Test func hugeStringArray() {
        expectDamaged("do not fit", item: "k") {
            $0.keys[1] = GGUFBytes.key("k", 9, GGUFBytes.number(UInt32(8)) + GGUFBytes.number(UInt64(300)))
        }
    }
    @Test(arguments: [0, 3, 48, UInt32(1) << 25]) func badAlignment(_ value: UInt32) {
        expectDamaged("power of two", item: "general.alignment") {
            $0.keys.append(GGUFBytes.key("general.alignment", 4, GGUFBytes.number(value)))
        }
    }
    @Test func alignmentThatIsText() {
        expectDamaged("power of two") { $0.keys.append(GGUFBytes.key("general.alignment", 8, GGUFBytes.string("32"))) }
    }
    @Test func duplicateTensor() {
        expectDamaged("twice", item: "a") { $0.tensors[1] = GGUFBytes.tensor("a", [8], offset: 32) }
    }
    @Test func noDimensions() {
        expectDamaged("dimensions", item: "a") { $0.tensors[0] = GGUFBytes.tensor("a", [], offset: 0) }
    }
    @Test func fiveDimensions() {
        expectDamaged("dimensions", item: "a") { $0.tensors[0] = GGUFBytes.tensor("a", [1, 1, 1, 1, 1], offset: 0) }
    }
    @Test func zeroDimension() {
        expectDamaged("dimension", item: "a") { $0.tensors[0] = GGUFBytes.tensor("a", [4, 0], offset: 0) }
    }
    @Test func overflowingDimensions() {
        expectDamaged("dimension", item: "a") { $0.tensors[0] = GGUFBytes.tensor("a", [1 << 40, 1 << 40], offset: 0) }
    }
    @Test func negativeDimension() {
        expectDamaged("dimension", item: "a") { $0.tensors[0] = GGUFBytes.tensor("a", [.max], offset: 0) }
    }
    @Test func unknownTensorType() {
        expectDamaged("number 4711", item: "a") { $0.tensors[0] = GGUFBytes.tensor("a", [4], type: 4711, offset: 0) }
    }
    @Test func rowsThatAreNoWholeBlocks() {
        expectDamaged("Q8_0", item: "a") { $0.tensors[0] = GGUFBytes.tensor("a", [31], type: 8, offset: 0) }
    }
    @Test func tensorLargerThanTheFile() {
        expectDamaged("more than the file", item: "a") { $0.tensors[0] = GGUFBytes.tensor("a", [1 << 30], offset: 0) }
    }
    @Test func offsetOutside() {
        expectDamaged("outside", item: "b") { $0.tensors[1] = GGUFBytes.tensor("b", [8], offset: 1 << 40) }
    }
    @Test func hugeOffset() {
        expectDamaged("outside", item: "b") { $0.tensors[1] = GGUFBytes.tensor("b", [8], offset: .max - 31) }
    }
    @Test func tensorBeyondTheEnd() {
        expectDamaged("beyond", item: "b") { $0.tensors[1] = GGUFBytes.tensor("b", [16], offset: 224) }
    }
    @Test func misalignedOffset() {
        expectDamaged("no multiple", item: "b") { $0.tensors[1] = GGUFBytes.tensor("b", [8], offset: 36) }
    }
    @Test func overlappingTensors() {
        expectDamaged("overlaps", item: "b") { $0.tensors[0] = GGUFBytes.tensor("a", [16], offset: 0) }
    }
    @Test func tensorNameIsNotUTF8() {
        expectDamaged("UTF-8") {
            $0.tensors[0] = GGUFBytes.string([0xed, 0xa0, 0x80]) + Array(GGUFBytes.tensor("", [4], offset: 0)[8...])
        }
    }

    @Test func emptyFileFolderAndNoFile() throws {
        let error = try withTemporaryFile([]) { path in sigmaError { _ = try GGUFFile(path: path) } }
        #expect(error?.kind == .damaged)
        #expect(sigmaError { _ = try GGUFFile(path: FileManager.default.temporaryDirectory.path) }?.kind == .damaged)
        #expect(sigmaError { _ = try GGUFFile(path: "/nonexistent/x.gguf") }?.kind == .noInput)
    }

    /// Names come from hostile files: what is printed has no control characters.
    @Test func errorsAreFitForATerminal() throws {
        let error = try #require(self.error { $0.tensors[1] = GGUFBytes.tensor("a\u{1b}[2J\u{9b}b", [9], offset: 36) })
        #expect(
            !error.description.unicodeScalars.contains {
                $0.value < 0x20 && $0 != "\n" || (0x7f..<0xa0).contains($0.value)
            })
    }

    @Test func damagedHeadersOnlyGiveErrors() throws {
        typealias G = GGUFBytes
        var good = G.good
        good.keys += [
            G.key(
                "strings", 9, G.number(UInt32(8)) + G.number(UInt64(3)) + G.string("") + G.string("é") + G.string("abc")
            ),
            G.key("general.alignment", 4, G.number(UInt32(32))),
        ]
        let whole = good.bytes
        let headerSize = good.header.count
        var generator = SplitMix64(state: 2)
        var accepted = 0
        for _ in 0..<4000 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 0..<headerSize, using: &generator)
                bytes[place] =
                    Bool.random(using: &generator)
                    ? UInt8.random(in: 0...255, using: &generator)
                    : [0, 1, 0x7f, 0x80, 0xff].randomElement(using: &generator)!
            }
            try withTemporaryFile(bytes) { path in
                if let error = sigmaError({ _ = try GGUFFile(path: path) }) {
                    #expect(error.kind == .damaged)
                    #expect(error.path == path)
                } else {
                    accepted += 1
                }
            }
        }
        #expect(accepted < 3000)
    }
}
