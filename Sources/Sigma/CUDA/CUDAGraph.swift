/// A captured list of kernels that is launched as one.
final class CUDAGraph {
    private let device: CUDADevice
    private let executable: CUDADriver.Handle

    /// - Parameter body: enqueues the kernels into the stream that it is given; nothing runs.
    init(
        _ device: CUDADevice, _ body: (CUDAStream) throws(CUDAStatus) -> Void
    ) throws(CUDAStatus) {
        self.device = device
        let driver = device.driver
        // One of its own: whatever a capture that fails leaves behind goes with it.
        let stream = try CUDAStream(device)
        try driver.check(driver.beginCapture(stream.handle, CUDADriver.captureThreadLocal))
        var failure: CUDAStatus?
        do { try body(stream) } catch { failure = error }
        // The capture ends whatever happened.
        var graph: CUDADriver.Handle?
        let code = driver.endCapture(stream.handle, &graph)
        defer { if let graph { _ = driver.destroyGraph(graph) } }
        if let failure { throw failure }
        try driver.check(code)
        var executable: CUDADriver.Handle?
        try driver.check(driver.instantiateGraph(&executable, graph!, 0))
        self.executable = executable!
    }

    deinit {
        try? device.use()
        _ = device.driver.destroyGraphExecutable(executable)
    }

    func launch(in stream: CUDAStream) throws(CUDAStatus) {
        try device.driver.check(device.driver.launchGraph(executable, stream.handle))
    }
}

/// Graphs by the shape of the step, the last ones used.
struct GraphCache {
    struct Key: Hashable {
        let rows: Int
        let tiles: Int
        let splits: Int
        let kvType: KVType
    }

    private var graphs: [(key: Key, graph: CUDAGraph)] = []
    private static let capacity = 32

    mutating func find(_ key: Key) -> CUDAGraph? {
        guard let index = graphs.lastIndex(where: { $0.key == key }) else { return nil }
        if index != graphs.count - 1 { graphs.append(graphs.remove(at: index)) }
        return graphs.last?.graph
    }

    mutating func store(_ graph: CUDAGraph, for key: Key) {
        if graphs.count == Self.capacity { graphs.removeFirst() }
        graphs.append((key, graph))
    }

    mutating func removeAll() { graphs.removeAll() }
}
