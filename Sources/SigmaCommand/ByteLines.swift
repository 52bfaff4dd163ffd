/// The lines of some bytes, without their ends: slices, whose first index is where a line begins.
public struct ByteLines: Sequence, IteratorProtocol {
    private let bytes: [UInt8]
    private var place = 0

    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    public mutating func next() -> ArraySlice<UInt8>? {
        guard place < bytes.count else { return nil }
        let end = bytes[place...].firstIndex(of: 0x0A) ?? bytes.count
        defer { place = end + 1 }
        return bytes[place..<end]
    }
}
