/// An amount of memory.
public struct ByteCount: Sendable, Equatable, Comparable {
    public var bytes: Int

    public static func bytes(_ count: Int) -> ByteCount { ByteCount(bytes: count) }
    /// Rounded down; what is no amount (negative, or not a number) counts as 0, what is too large as the largest there is.
    public static func mebibytes(_ count: Double) -> ByteCount { scaled(count, 1_048_576) }
    public static func gibibytes(_ count: Double) -> ByteCount { scaled(count, 1_073_741_824) }

    private static func scaled(_ count: Double, _ unit: Double) -> ByteCount {
        let bytes = count * unit
        if bytes.isNaN || bytes <= 0 { return ByteCount(bytes: 0) }
        return ByteCount(bytes: Int(exactly: bytes.rounded(.down)) ?? .max)
    }

    public static func < (a: ByteCount, b: ByteCount) -> Bool { a.bytes < b.bytes }
}
