import Sigma
import SigmaConversion
import Testing

/// Every way in which a safetensors file, or a set of them, can be damaged.
@Suite struct SafetensorsTests {
    private let scratch: Scratch
    init() throws { scratch = try Scratch() }

    private func open(_ bytes: [UInt8]) throws -> SafetensorsFile {
        try scratch.write("x.safetensors", bytes)
        return try SafetensorsFile(path: scratch / "x.safetensors")
    }
    private func expectDamaged(
        _ header: String, dataSize: Int = 16, length: UInt64? = nil, message: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let error = sigmaError {
            _ = try open(safetensors(header, data: [UInt8](repeating: 0, count: dataSize), length: length))
        }
        #expect(error?.kind == .damaged, sourceLocation: sourceLocation)
        #expect(
            error?.message.contains(message) == true, "\(error?.description ?? "no error")",
            sourceLocation: sourceLocation)
    }
    private func entry(_ name: String, _ dtype: String, _ shape: String, _ begin: Int, _ end: Int) -> String {
        "\"\(name)\":{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":[\(begin),\(end)]}"
    }

    @Test func intact() throws {
        let header =
            "{\"__metadata__\":{\"format\":\"pt\"},\(entry("b", "BF16", "[2,2]", 8, 16)),\(entry("a", "F32", "[]", 0, 4))}   "
        let file = try open(safetensors(header, data: [UInt8](repeating: 0, count: 16)))
        #expect(file.tensors.map(\.name) == ["b", "a"])
        #expect(file.tensors[0].shape == [2, 2])
        #expect(file.tensors[0].offset == 8 + header.utf8.count + 8)
        // Tensors without elements may lie anywhere.
        let empty = safetensors(
            "{\(entry("z", "F32", "[0]", 0, 0)),\(entry("a", "F32", "[1]", 0, 4))}", data: [0, 0, 0, 0])
        #expect(try open(empty).tensors.count == 2)
    }

    @Test func shorterThanALength() { #expect(sigmaError { _ = try open([1, 2, 3]) }?.kind == .damaged) }
    @Test func headerBeyondTheEnd() {
        expectDamaged("{}", dataSize: 0, length: 1000, message: "ends inside its header")
    }
    @Test func hugeHeader() { expectDamaged("{}", length: .max, message: "at most") }
    @Test func notJSON() { expectDamaged("{\"a\":", message: "not valid JSON") }
    @Test func headerThatIsAList() { expectDamaged("[]", message: "JSON object") }
    @Test func metadataThatIsText() { expectDamaged("{\"__metadata__\":\"x\"}", message: "expected an object") }
    @Test func duplicateName() {
        expectDamaged("{\(entry("a", "F32", "[1]", 0, 4)),\(entry("a", "F32", "[1]", 4, 8))}", message: "twice")
    }
    @Test func unknownType() { expectDamaged("{\(entry("a", "F3", "[1]", 0, 4))}", message: "unknown dtype") }
    @Test func negativeShape() { expectDamaged("{\(entry("a", "F32", "[-1]", 0, 4))}", message: "shape") }
    @Test func fractionalShape() { expectDamaged("{\(entry("a", "F32", "[1.5]", 0, 4))}", message: "shape") }
    @Test func overflowingShape() {
        expectDamaged("{\(entry("a", "F32", "[4611686018427387904,4]", 0, 4))}", message: "makes no sense")
    }
    @Test func sizeMismatch() { expectDamaged("{\(entry("a", "F32", "[2]", 0, 4))}", message: "data_offsets say") }
    @Test func reversedOffsets() { expectDamaged("{\(entry("a", "F32", "[1]", 4, 0))}", message: "increasing") }
    @Test func negativeOffset() { expectDamaged("{\(entry("a", "F32", "[1]", -4, 0))}", message: "increasing") }
    @Test func offsetsOutside() { expectDamaged("{\(entry("a", "F32", "[1]", 16, 20))}", message: "only 16 bytes") }
    @Test func overlap() {
        expectDamaged("{\(entry("a", "F32", "[2]", 0, 8)),\(entry("b", "F32", "[2]", 4, 12))}", message: "overlaps")
    }
    @Test func missingFields() {
        expectDamaged("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", message: "dtype")
        expectDamaged("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", message: "shape")
        expectDamaged("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", message: "data_offsets")
        expectDamaged("{\"a\":7}", message: "object")
    }

    @Test func truncatedAtEveryByte() throws {
        let whole = safetensors([("a", [2], [1, 2]), ("b", [1, 2], [3, 4])])
        for length in 0..<whole.count {
            #expect(sigmaError { _ = try open(Array(whole[..<length])) }?.kind == .damaged)
        }
    }

    @Test func damagedHeadersOnlyGiveErrors() throws {
        let whole = safetensors([("a", [2], [1, 2]), ("b", [1, 2], [3, 4])])
        var state: UInt64 = 5
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        for _ in 0..<3000 {
            var bytes = whole
            for _ in 0...random(3) { bytes[random(bytes.count - 16)] = UInt8(random(256)) }
            if let error = sigmaError({ _ = try open(bytes) }) { #expect(error.kind == .damaged) }
        }
    }

    // MARK: shards

    @Test func missingShard() throws {
        try scratch.copyFixture("sigma-f32")
        try scratch.remove("model-00002-of-00003.safetensors")
        let error = sigmaError { _ = try Checkpoint(folder: scratch.path) }
        #expect(error?.kind == .noInput)
        #expect(error?.path?.hasSuffix("model-00002-of-00003.safetensors") == true)
    }

    @Test func truncatedShard() throws {
        try scratch.copyFixture("sigma-f32")
        try scratch.write("model-00002-of-00003.safetensors", [1, 2, 3])
        #expect(sigmaError { _ = try Checkpoint(folder: scratch.path) }?.kind == .damaged)
    }

    @Test func tensorInTwoShards() throws {
        try scratch.write("config.json", "{}")
        try scratch.write("a.safetensors", safetensors([("x", [1], [1]), ("y", [1], [1])]))
        try scratch.write("b.safetensors", safetensors([("y", [1], [2])]))
        try scratch.write("model.safetensors.index.json", #"{"weight_map":{"x":"a.safetensors","z":"b.safetensors"}}"#)
        let error = sigmaError { _ = try Checkpoint(folder: scratch.path) }
        #expect(error?.kind == .damaged)
        #expect(error?.item == "y" && error?.path == scratch / "b.safetensors")
        // Where the index names the tensor, it decides: a file may lie over another.
        for (name, value) in [("a", Float(1)), ("b", 2)] {
            try scratch.write(
                "model.safetensors.index.json",
                #"{"weight_map":{"x":"a.safetensors","w":"b.safetensors","y":"\#(name).safetensors"}}"#)
            let checkpoint = try Checkpoint(folder: scratch.path)
            let tensor = try #require(try checkpoint.find("y"))
            // The bytes are the checkpoint's.
            let found = withExtendedLifetime(checkpoint) { tensor.bytes.loadUnaligned(as: Float.self) }
            #expect(found == value)
        }
    }

    @Test func indexThatLies() throws {
        try scratch.write("config.json", "{}")
        try scratch.write("a.safetensors", safetensors([("x", [1], [1])]))
        try scratch.write("model.safetensors.index.json", #"{"weight_map":{"x":"a.safetensors","z":"a.safetensors"}}"#)
        let checkpoint = try Checkpoint(folder: scratch.path)
        // Nobody is hurt before the tensor is wanted.
        #expect(checkpoint.absentNames == ["z"])
        #expect(try checkpoint.find("x") != nil && checkpoint.find("y") == nil)
        let error = sigmaError { _ = try checkpoint.find("z") }
        #expect(error?.kind == .damaged)
        #expect(error?.item == "z" && error?.path == scratch / "a.safetensors")
    }

    @Test(arguments: ["../a.safetensors", "/etc/passwd", "..", ""]) func indexThatPointsElsewhere(_ name: String) throws
    {
        try scratch.write("config.json", "{}")
        try scratch.write("model.safetensors.index.json", "{\"weight_map\":{\"x\":\"\(name)\"}}")
        #expect(sigmaError { _ = try Checkpoint(folder: scratch.path) }?.kind == .damaged)
    }

    @Test func otherInputs() throws {
        #expect(sigmaError { _ = try Checkpoint(folder: scratch / "nothing") }?.kind == .noInput)
        let empty = sigmaError { _ = try Checkpoint(folder: scratch.path) }
        #expect(empty?.kind == .noInput)
        #expect(empty?.path == scratch / "config.json")
        try scratch.write("config.json", "{}")
        #expect(sigmaError { _ = try Checkpoint(folder: scratch.path) }?.kind == .noInput)
        #expect(sigmaError { _ = try Checkpoint(folder: scratch / "config.json") }?.kind == .damaged)
    }
}
