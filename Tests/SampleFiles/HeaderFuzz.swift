import Sigma
import SigmaConversion
import SystemLibrary

/// Opens files whose headers were damaged at random, as the commands would: native model files, plain GGUF files as sources of a
/// conversion, and GGUF files of importance matrices. Anything but success or a `SigmaError` that names the file is a finding.
///
/// Every round follows from the seed and its number alone, so that a finding can be repeated.
package final class HeaderFuzz {
    package enum Kind: String, CaseIterable, Sendable { case native, plain, importance }

    package enum Outcome: Sendable {
        /// Opened, and everything that is read at the start could be read.
        case accepted
        case refused
        /// What should not be.
        case finding(String)
    }

    /// A file on disk whose header is damaged and restored again.
    private final class Sample {
        let path: String
        let header: [UInt8]
        let size: Int
        /// Where the header's checksum is, and where the data begins; nil for files without one.
        let checksumOffset: Int?
        let descriptor: Int32

        init(path: String) throws {
            self.path = path
            let file = try GGUFFile(path: path)
            header = Array(file.file.bytes[..<file.dataOffset])
            size = file.file.bytes.count
            checksumOffset = file.entry(ModelFileFormat.Key.headerChecksum)?.offset
            descriptor = open(path, O_RDWR | O_CLOEXEC)
            guard descriptor >= 0 else { throw SigmaError(.inputOutput, "cannot open the sample", path: path) }
        }

        deinit { close(descriptor) }

        func write(_ bytes: [UInt8]) {
            _ = bytes.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        }
        func restore() {
            ftruncate(descriptor, off_t(size))
            write(header)
        }
    }

    private var samples: [Kind: Sample] = [:]
    /// Bytes of each kind's intact file.
    package var sizes: [Kind: Int] { samples.mapValues(\.size) }

    /// - Parameter folder: where the files are made; best in memory.
    package init(folder: String) throws {
        func write(_ bytes: [UInt8], _ name: String) throws -> String {
            let path = folder + "/" + name
            guard let file = fopen(path, "w") else { throw SigmaError(.inputOutput, "cannot write", path: path) }
            fwrite(bytes, 1, bytes.count, file)
            fclose(file)
            return path
        }
        let plain = try write(PlainModel { $0.contains("down") ? .q6_k : .q4_k }.bytes, "plain.gguf")
        samples[.plain] = try Sample(path: plain)
        let native = folder + "/native.gguf"
        try Converter.convert(
            Converter.Options(input: plain, output: native, overrides: Overrides(), headScreening: .on, threads: 1))
        samples[.native] = try Sample(path: native)
        samples[.importance] = try Sample(path: write(Self.importanceMatrix(), "importance.gguf"))
    }

    /// As llama.cpp's `imatrix` writes it: sums of squares and counts for each matrix.
    private static func importanceMatrix() -> [UInt8] {
        var writer = GGUFWriter(architecture: "imatrix", alignment: 32)
        writer.set("general.type", "imatrix")
        writer.set("imatrix.datasets", strings: [Array("calibration.txt".utf8)])
        writer.set("imatrix.chunk_count", UInt32(7))
        writer.set("imatrix.chunk_size", UInt32(512))
        for layer in 0..<4 {
            for (name, experts) in [("attn_q", 1), ("ffn_gate_exps", 8), ("ffn_down_exps", 8)] {
                let prefix = "blk.\(layer).\(name).weight"
                writer.addTensor(prefix + ".in_sum2", dimensions: [32, experts], type: .f32)
                writer.addTensor(prefix + ".counts", dimensions: [1, experts], type: .f32)
            }
        }
        let layout = writer.layout()
        return layout.header + [UInt8](repeating: 0x3c, count: layout.fileSize - layout.header.count)
    }

    /// Damages one file, opens it, and restores it.
    package func round(seed: UInt64, number: Int) -> (kind: Kind, fileSize: Int, outcome: Outcome) {
        var random = SplitMix64(state: seed &+ UInt64(number) &* 0x2545_f491_4f6c_dd1d)
        let kind = Kind.allCases[number % Kind.allCases.count]
        let sample = samples[kind]!
        var header = sample.header
        for _ in 0..<Int.random(in: 1...4, using: &random) { Self.damage(&header, &random) }
        // A damaged header is mostly refused for its checksum: every other one gets the right one.
        if let hole = sample.checksumOffset, Bool.random(using: &random) {
            let crc = header.withUnsafeBytes { ModelFileFormat.headerChecksum($0, hole: hole) }
            withUnsafeBytes(of: crc.littleEndian) { header.replaceSubrange(hole..<hole + 4, with: $0) }
        }
        sample.write(header)
        var size = sample.size
        if Int.random(in: 0..<16, using: &random) == 0 {
            size = Int.random(in: 0...sample.size, using: &random)
            ftruncate(sample.descriptor, off_t(size))
        }
        defer { sample.restore() }
        return (kind, size, Self.outcome(kind, sample.path))
    }

    private static func outcome(_ kind: Kind, _ path: String) -> Outcome {
        do {
            switch kind {
            case .native: try openNative(path)
            case .plain: try openPlain(path)
            case .importance: _ = try GGUFFile(path: path)
            }
            return .accepted
        } catch let error as SigmaError {
            guard error.kind == .damaged else { return .finding("an error of kind \(error.kind): \(error)") }
            guard error.path == path else { return .finding("an error that names no file: \(error)") }
            return .refused
        } catch {
            return .finding("not a SigmaError: \(error)")
        }
    }

    /// As the engine and the commands start.
    private static func openNative(_ path: String) throws {
        let file = try ModelFile(path: path)
        if let definition = try file.tokenizerDefinition() { try named(path) { _ = try Tokenizer(definition) } }
        let input = try ConversionInput(path, overrides: Overrides())
        _ = try WeightPlan(input.weights, input.configuration)
    }

    /// As a conversion starts.
    private static func openPlain(_ path: String) throws {
        let input = try ConversionInput(path, overrides: Overrides())
        _ = try WeightPlan(input.weights, input.configuration)
        if let definition = input.tokenizer { try named(path) { _ = try Tokenizer(definition) } }
    }

    /// A tokenizer knows no file; who asks for it names it.
    private static func named(_ path: String, _ body: () throws -> Void) throws {
        do { try body() } catch let error as SigmaError { throw error.inFile(path) }
    }

    // MARK: damage

    private static let numbers: [UInt64] = [
        0, 1, 2, 3, 7, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 4096, 16383, 16384, 65535, 65536, 1 << 20, 1 << 24,
        1 << 30, 1 << 31, 1 << 32, 1 << 40, 1 << 62, 1 << 63, .max, .max - 1, .max / 8, UInt64(Int32.max),
        UInt64(UInt32.max),
    ]

    private static func damage(_ header: inout [UInt8], _ random: inout SplitMix64) {
        // Most of the header is tokens; the counts, the keys' and the tensors' descriptions deserve as much.
        let place =
            switch Int.random(in: 0..<4, using: &random) {
            case 0: Int.random(in: 0..<min(1024, header.count), using: &random)
            case 1: Int.random(in: max(0, header.count - 4096)..<header.count, using: &random)
            default: Int.random(in: 0..<header.count, using: &random)
            }
        switch Int.random(in: 0..<7, using: &random) {
        case 0: header[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: header[place] = UInt8.random(in: 0...255, using: &random)
        case 2: header[place] = [0, 1, 0x7f, 0x80, 0xff].randomElement(using: &random)!
        case 3, 4:
            // A number of four or eight bytes.
            let width = Bool.random(using: &random) ? 4 : 8
            let number = numbers.randomElement(using: &random)!
            for i in 0..<min(width, header.count - place) {
                header[place + i] = UInt8(truncatingIfNeeded: number >> (8 * UInt64(i)))
            }
        case 5:
            // Something from elsewhere in the header.
            let count = min(Int.random(in: 1...64, using: &random), header.count - place)
            let from = Int.random(in: 0...header.count - count, using: &random)
            let piece = Array(header[from..<from + count])
            header.replaceSubrange(place..<place + count, with: piece)
        default:
            // All that follows moves by a few bytes.
            let count = min(Int.random(in: 1...16, using: &random), header.count - place)
            if Bool.random(using: &random) {
                header.removeSubrange(place..<place + count)
                header += [UInt8](repeating: 0, count: count)
            } else {
                header.insert(contentsOf: (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }, at: place)
                header.removeLast(count)
            }
        }
    }
}
