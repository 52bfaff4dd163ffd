import CSigma
import SystemLibrary

/// Compiled kernels on disk.
///
/// A file is a header line with a checksum, the whole key, and the image. Whatever is not exactly that is no entry, and is written again.
/// Nothing here fails: without a cache kernels are compiled each time.
struct KernelCache: Sendable {
    /// nil: nothing is kept.
    let folder: String?
    private static let magic = "sigma-cuda-kernels 1\n"

    init(folder: String?) { self.folder = folder }

    /// What an image depends on. Two keys are the same if their texts are.
    struct Key: Sendable {
        let text: String
        /// - Parameter sources: names and texts, in their order.
        init(
            sources: [(name: String, text: String)], options: [String], compiler: (major: Int32, minor: Int32),
            driverVersion: Int32, architecture: String
        ) {
            var hash = StableHash()
            for (name, text) in sources {
                hash.add(name)
                hash.add(text)
            }
            text =
                "sources \(hash.text)\noptions \(options.joined(separator: " "))\n"
                + "nvrtc \(compiler.major).\(compiler.minor)\ndriver \(driverVersion)\narchitecture \(architecture)\n"
        }
        var fileName: String {
            var hash = StableHash()
            hash.add(text)
            return "kernels-\(hash.text).cubin"
        }
    }

    func path(of key: Key) -> String? { folder.map { $0 + "/" + key.fileName } }

    /// nil: there is none, or it is damaged.
    func image(for key: Key) -> [UInt8]? {
        guard let path = path(of: key), let file = try? MappedFile(path: path), file.bytes.count <= Self.largestFile
        else { return nil }
        let bytes = Array(file.bytes)
        guard (try? file.checkIntact()) != nil else { return nil }
        let image = bytes[min(header(key, crc: 0, count: 0).count, bytes.count)...]
        let expected = header(key, crc: checksum(image), count: image.count)
        return bytes.starts(with: expected) && !image.isEmpty ? Array(image) : nil
    }

    func store(_ image: [UInt8], for key: Key) {
        guard let folder, let path = path(of: key), image.count < Self.largestFile else { return }
        // The folder above is the system's convention and may be missing, too.
        mkdir(String(folder.prefix(upTo: folder.lastIndex(of: "/") ?? folder.startIndex)), 0o700)
        mkdir(folder, 0o700)
        let bytes = header(key, crc: checksum(image[...]), count: image.count) + image
        guard let file = try? AtomicFile(path: path, size: bytes.count) else { return }
        do {
            try bytes.withUnsafeBytes { try file.write($0, at: 0) }
            try file.finish(size: bytes.count)
        } catch {}
    }

    /// Numbers have a fixed width, so that the header's length does not depend on them.
    private func header(_ key: Key, crc: UInt32, count: Int) -> [UInt8] {
        func hex(_ value: Int) -> String {
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }
        return Array((Self.magic + "checksum \(hex(Int(crc))) bytes \(hex(count))\n" + key.text + "\n").utf8)
    }

    private func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.withUnsafeBytes { CRC32C.checksum($0) }
    }

    private static let largestFile = 256 << 20
}

/// FNV-1a in 64 bits: tells versions of our own sources apart, and guards against nobody.
private struct StableHash {
    private var state: UInt64 = 0xcbf2_9ce4_8422_2325

    /// Texts one after the other; where one ends counts.
    mutating func add(_ text: String) {
        for byte in text.utf8 { add(byte) }
        add(0xff)
    }
    private mutating func add(_ byte: UInt8) { state = (state ^ UInt64(byte)) &* 0x100_0000_01b3 }

    var text: String {
        let digits = String(state, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
