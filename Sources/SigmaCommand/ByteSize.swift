import ArgumentParser
import Sigma

/// A number of bytes as people write it: `1.5GiB`, `512M`, `4 GiB`, `2GB`, `4096`. A letter alone means the binary unit.
public struct ByteSize: ExpressibleByArgument, Sendable, Equatable, CustomStringConvertible {
    public var bytes: Int

    public init(bytes: Int) { self.bytes = bytes }

    /// Nil for anything else, negative sizes and sizes above 2^62 bytes. Upper and lower case are the same.
    public init?(argument: String) {
        let text = argument.lowercased()
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = text.dropFirst(digits.count).drop { $0 == " " }
        guard text.dropFirst(digits.count).isEmpty || !unit.isEmpty else { return nil }
        let scale: Double
        switch unit {
        case "", "b": scale = 1
        case "k", "kib": scale = 1024
        case "kb": scale = 1e3
        case "m", "mib": scale = 1_048_576
        case "mb": scale = 1e6
        case "g", "gib": scale = 1_073_741_824
        case "gb": scale = 1e9
        case "t", "tib": scale = 1_099_511_627_776
        case "tb": scale = 1e12
        default: return nil
        }
        guard let number = Double(digits), number * scale <= 0x1p62 else { return nil }
        // Without a unit there are no fractions.
        guard scale > 1 || !digits.contains(".") else { return nil }
        bytes = Int(number * scale)
    }

    /// What an error says of values that are none.
    static let hint =
        "A size is a number of bytes, or has a unit: 512K, 64MiB, 1.5G, 4GB (K, M, G and T mean KiB, MiB, GiB and TiB)."

    /// In binary units: "1.50 GiB".
    public var description: String { Self.text(bytes) }

    public static func text(_ bytes: Int) -> String {
        var value = Double(bytes)
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1024 || unit == "GiB" {
                return unit == "B" ? "\(bytes) B" : JSONWriter.fixed(value, decimals: value < 100 ? 2 : 0) + " " + unit
            }
            value /= 1024
        }
        return "\(bytes) B"
    }
}
