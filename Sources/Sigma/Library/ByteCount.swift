/// An amount of memory.
public struct ByteCount: Sendable, Equatable, Comparable {
    public var bytes: Int

    public static func bytes(_ count: Int) -> ByteCount { ByteCount(bytes: count) }
    public static func mebibytes(_ count: Double) -> ByteCount { ByteCount(bytes: Int(count * 1_048_576)) }
    public static func gibibytes(_ count: Double) -> ByteCount { ByteCount(bytes: Int(count * 1_073_741_824)) }
    public static func < (a: ByteCount, b: ByteCount) -> Bool { a.bytes < b.bytes }
}
