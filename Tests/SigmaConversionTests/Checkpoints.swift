import Sigma
import SigmaConversion
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

let packageRoot = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
let fixtureFolder = packageRoot + "/Tests/Fixtures/reference"

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

/// A folder of its own for a test, removed at the end.
final class Scratch: Sendable {
    let path = FileManager.default.temporaryDirectory.path + "/sigma-\(UUID().uuidString)"

    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    static func / (scratch: Scratch, name: String) -> String { scratch.path + "/" + name }

    func write(_ name: String, _ bytes: [UInt8]) throws { try Data(bytes).write(to: URL(filePath: self / name)) }
    func write(_ name: String, _ text: String) throws { try write(name, Array(text.utf8)) }
    func read(_ name: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: self / name))) }
    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: self / name) }
    func makeFolder(_ name: String) throws {
        try FileManager.default.createDirectory(atPath: self / name, withIntermediateDirectories: true)
    }
    var files: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted() }

    /// Copies a reference checkpoint here.
    func copyFixture(_ name: String) throws {
        for file in try FileManager.default.contentsOfDirectory(atPath: fixtureFolder + "/" + name)
        where !file.hasPrefix("expected") {
            try FileManager.default.copyItem(atPath: fixtureFolder + "/\(name)/\(file)", toPath: self / file)
        }
    }
    /// Replaces keys of `config.json`; nil removes one.
    func changeConfig(_ changes: [String: String?]) throws {
        let object = try #require(try JSONValue.parse(file: self / "config.json").object)
        var json = JSONWriter()
        try json.object { json in
            for (key, value) in zip(object.keys, object.values) where !changes.keys.contains(key) {
                try json.member(key, value)
            }
            for (key, text) in changes { if let text { try json.member(key, JSONValue.parse(text)) } }
        }
        try write("config.json", json.text)
    }
    func configuration(_ overrides: [String] = []) throws -> CheckpointConfiguration {
        try CheckpointConfiguration(Checkpoint(folder: path), overrides: Overrides(overrides))
    }
    @discardableResult
    func convert(
        to output: String = "out.gguf", type: WeightType = .q8_0, outputType: WeightType? = nil,
        overrides: [String] = [],
        threads: Int = 2, isCancelled: @escaping () -> Bool = { false }
    ) throws -> (warnings: [String], path: String) {
        var warnings: [String] = []
        try Converter.convert(
            Converter.Options(
                input: path, output: self / output, type: type, outputType: outputType, overrides: Overrides(overrides),
                threads: threads), warn: { warnings.append($0) }, isCancelled: isCancelled)
        return (warnings, self / output)
    }
}

extension JSONWriter {
    mutating func member(_ key: String, _ value: JSONValue) throws {
        self.key(key)
        try element(value)
    }
    private mutating func element(_ value: JSONValue) throws {
        switch value {
        case .null: null()
        case .bool(let value): self.value(value)
        case .integer(let value): self.value(value)
        case .number(let value): self.value(value)
        case .decimal(let text): self.value(Double(text) ?? .nan)
        case .string(let value): self.value(value)
        case .array(let values): try array { json in for value in values { try json.element(value) } }
        case .object(let object):
            try self.object { json in
                for (key, value) in zip(object.keys, object.values) { try json.member(key, value) }
            }
        }
    }
}

/// A safetensors file's bytes, from a description that may be wrong.
func safetensors(_ header: String, data: [UInt8] = [], length: UInt64? = nil) -> [UInt8] {
    withUnsafeBytes(of: (length ?? UInt64(header.utf8.count)).littleEndian) { Array($0) } + Array(header.utf8) + data
}

/// A safetensors file of fp32 tensors.
func safetensors(_ tensors: [(name: String, shape: [Int], values: [Float])]) -> [UInt8] {
    var json = JSONWriter()
    var data: [UInt8] = []
    json.object { json in
        for tensor in tensors {
            let begin = data.count
            for value in tensor.values { withUnsafeBytes(of: value) { data.append(contentsOf: $0) } }
            json.object(tensor.name) {
                $0.field("dtype", "F32")
                $0.array("shape") { for extent in tensor.shape { $0.value(extent) } }
                $0.array("data_offsets") {
                    $0.value(begin)
                    $0.value(data.count)
                }
            }
        }
    }
    return safetensors(json.text, data: data)
}
