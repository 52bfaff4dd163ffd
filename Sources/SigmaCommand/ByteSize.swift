import ArgumentParser
import Sigma

/// A number of bytes as people write it: `1.5GiB`, `512MiB`, `2GB`, `64MB`, `4096`.
public struct ByteSize: ExpressibleByArgument, Sendable, Equatable, CustomStringConvertible {
    public var bytes: Int

    public init(bytes: Int) { self.bytes = bytes }

    /// Nil for anything else, negative sizes and sizes above 2^62 bytes. Upper and lower case are the same.
    public init?(argument: String) {
        let text = argument.lowercased()
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let scale: Double
        switch text.dropFirst(digits.count) {
        case "", "b": scale = 1
        case "kib": scale = 1024
        case "kb": scale = 1e3
        case "mib": scale = 1_048_576
        case "mb": scale = 1e6
        case "gib": scale = 1_073_741_824
        case "gb": scale = 1e9
        case "tib": scale = 1_099_511_627_776
        case "tb": scale = 1e12
        default: return nil
        }
        guard let number = Double(digits), number * scale <= 0x1p62 else { return nil }
        // Without a unit there are no fractions.
        guard scale > 1 || !digits.contains(".") else { return nil }
        bytes = Int(number * scale)
    }

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
