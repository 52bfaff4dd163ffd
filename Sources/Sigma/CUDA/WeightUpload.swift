import Synchronization

/// Records of a model file on their way to where a device reads them.
///
/// A few threads read pieces into pinned memory of their own, compare checksums and copy on; the host holds no more of the model than
/// `stagingBytes`, however large it is.
final class WeightUpload: Sendable {
    /// One record: a tensor of its own, or an expert.
    struct Item: Sendable {
        enum Target: Sendable {
            case device(DeviceAddress)
            /// Memory of the host that has room for the record's size rounded up to 4096.
            case host(UInt)
        }
        let name: String
        let offset: Int
        let byteCount: Int
        let checksum: UInt32
        let target: Target
    }

    private static let pieceBytes = 4 << 20
    private static let readerCount = 4
    private static let buffersPerReader = 2
    static let stagingBytes = pieceBytes * readerCount * buffersPerReader

    private let device: CUDADevice
    private let reader: any RecordReader
    private let path: String
    private let items: [Item]
    private let totalBytes: Int
    private let next = Atomic<Int>(0)
    private let doneBytes = Atomic<Int>(0)
    private let failure = Mutex<(any Error)?>(nil)

    init(_ items: [Item], device: CUDADevice, reader: any RecordReader, path: String) {
        // In the order of the file: disks like that.
        self.items = items.sorted { $0.offset < $1.offset }
        self.device = device
        self.reader = reader
        self.path = path
        totalBytes = max(1, items.reduce(0) { $0 + $1.byteCount })
    }

    /// Returns when everything is there.
    ///
    /// - Parameter progress: called on this thread with 0...1; what it throws ends the upload.
    /// - Throws: `SigmaError`: `.inputOutput` if something cannot be read, `.damaged` if it is not what was converted, `.unavailable` if the
    ///   device fails; what `progress` throws.
    func run(progress: (Double) throws -> Void) throws {
        let helpers = (1..<Self.readerCount).compactMap { _ in try? NativeThread { self.work { _ in } } }
        work(progress)
        for helper in helpers { helper.join() }
        if let failure = failure.withLock({ $0 }) { throw failure }
    }

    private func work(_ progress: (Double) throws -> Void) {
        do {
            let lane = try Lane(device)
            while failure.withLock({ $0 == nil }) {
                let index = next.add(1, ordering: .relaxed).oldValue
                guard index < items.count else { break }
                try lane.upload(items[index], reader, path)
                let done = doneBytes.add(items[index].byteCount, ordering: .relaxed).newValue
                try progress(Double(done) / Double(totalBytes))
            }
            try lane.finish()
        } catch {
            let error = (error as? CUDAStatus).map { device.failure($0, "the upload of weights") } ?? error
            failure.withLock { $0 = $0 ?? error }
        }
    }

    /// A thread's stream and buffers. While a buffer is copied the next one is filled.
    private final class Lane {
        private let stream: CUDAStream
        private let memory: PinnedMemory
        private let events: [CUDAEvent]
        private var turn = 0

        init(_ device: CUDADevice) throws(CUDAStatus) {
            try device.use()
            stream = try CUDAStream(device)
            memory = try PinnedMemory(device, byteCount: pieceBytes * buffersPerReader)
            var events: [CUDAEvent] = []
            for _ in 0..<buffersPerReader { events.append(try CUDAEvent(device)) }
            self.events = events
        }

        func upload(_ item: Item, _ reader: any RecordReader, _ path: String) throws {
            var crc: UInt32 = 0
            for start in stride(from: 0, to: item.byteCount, by: pieceBytes) {
                let count = min(pieceBytes, item.byteCount - start)
                switch item.target {
                case .host(let base):
                    let target = UnsafeMutableRawPointer(bitPattern: base)! + start
                    try reader.read(count, at: item.offset + start, into: target)
                    crc = CRC32C.checksum(
                        UnsafeRawBufferPointer(start: target, count: count), continuing: crc)
                case .device(let address):
                    let buffer = memory.base + turn * pieceBytes
                    // Until the copy from this buffer was made; at once where nothing was recorded.
                    try events[turn].synchronize()
                    try reader.read(count, at: item.offset + start, into: buffer)
                    crc = CRC32C.checksum(
                        UnsafeRawBufferPointer(start: buffer, count: count), continuing: crc)
                    try stream.copy(count, from: buffer, to: address + DeviceAddress(start))
                    try events[turn].record(in: stream)
                    turn = (turn + 1) % buffersPerReader
                }
            }
            guard crc == item.checksum else {
                throw SigmaError(
                    .damaged,
                    "the weights are damaged: expected checksum \(String(item.checksum, radix: 16)), found \(String(crc, radix: 16))",
                    path: path, item: item.name, offset: UInt64(item.offset),
                    remedy: "Copy the file again from its source, or convert the checkpoint again.")
            }
        }

        func finish() throws(CUDAStatus) { try stream.synchronize() }
    }
}
