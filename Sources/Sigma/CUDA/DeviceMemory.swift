/// Bytes on the device, given back when the object goes, on whatever thread that is.
final class DeviceMemory: @unchecked Sendable {
    let device: CUDADevice
    let address: DeviceAddress
    let byteCount: Int

    /// - Throws: `CUDAStatus`, `outOfMemory` among them.
    init(_ device: CUDADevice, byteCount: Int) throws(CUDAStatus) {
        self.device = device
        self.byteCount = max(byteCount, 256)
        var address: DeviceAddress = 0
        try device.use()
        try device.driver.check(device.driver.allocate(&address, self.byteCount))
        self.address = address
    }

    deinit {
        // Nothing can be done about a failure: then the context is gone, and its memory with it.
        try? device.use()
        _ = device.driver.free(address)
    }
}

/// Pages of the host that never move, which the device reads and writes itself.
final class PinnedMemory: @unchecked Sendable {
    let device: CUDADevice
    let base: UnsafeMutableRawPointer
    let byteCount: Int
    /// Where kernels find it.
    let address: DeviceAddress

    /// - Throws: `CUDAStatus`, `outOfMemory` among them.
    init(_ device: CUDADevice, byteCount: Int) throws(CUDAStatus) {
        self.device = device
        self.byteCount = max(byteCount, 4096)
        var base: UnsafeMutableRawPointer?
        try device.use()
        let flags = CUDADriver.hostAllocPortable | CUDADriver.hostAllocMapped
        try device.driver.check(device.driver.allocateHost(&base, self.byteCount, flags))
        guard let base else { throw device.driver.status(CUDAStatus.outOfMemory) }
        var address: DeviceAddress = 0
        let code = device.driver.hostAddress(&address, base, 0)
        if code != 0 {
            _ = device.driver.freeHost(base)
            throw device.driver.status(code)
        }
        self.base = base
        self.address = address
    }

    deinit {
        try? device.use()
        _ = device.driver.freeHost(base)
    }
}

/// Work of a device in order.
final class CUDAStream: @unchecked Sendable {
    let device: CUDADevice
    let handle: CUDADriver.Handle
    private var driver: CUDADriver { device.driver }

    init(_ device: CUDADevice) throws(CUDAStatus) {
        self.device = device
        var handle: CUDADriver.Handle?
        try device.use()
        try device.driver.check(device.driver.createStream(&handle, CUDADriver.streamNonBlocking))
        self.handle = handle!
    }

    deinit {
        try? device.use()
        // Memory that its copies use goes behind it.
        try? synchronize()
        _ = driver.destroyStream(handle)
    }

    /// Waits until everything has been done.
    func synchronize() throws(CUDAStatus) { try driver.check(driver.synchronizeStream(handle)) }

    /// Asynchronous where `source` is pinned; it must stay as it is until the copy was made.
    func copy(_ count: Int, from source: UnsafeRawPointer, to target: DeviceAddress) throws(CUDAStatus) {
        if count > 0 { try driver.check(driver.copyToDeviceAsync(target, source, count, handle)) }
    }

    func copy(_ count: Int, from source: DeviceAddress, to target: UnsafeMutableRawPointer) throws(CUDAStatus) {
        if count > 0 { try driver.check(driver.copyToHostAsync(target, source, count, handle)) }
    }

    func fill(_ target: DeviceAddress, with byte: UInt8, count: Int) throws(CUDAStatus) {
        if count > 0 { try driver.check(driver.fill(target, byte, count, handle)) }
    }

    /// What is enqueued from now on waits for what was recorded in `event`.
    func wait(for event: CUDAEvent) throws(CUDAStatus) {
        try driver.check(driver.streamWaits(handle, event.handle, 0))
    }
}

/// A place in a stream that others wait for.
final class CUDAEvent: @unchecked Sendable {
    let device: CUDADevice
    let handle: CUDADriver.Handle

    /// - Parameter isTimed: whether times between events are asked for.
    init(_ device: CUDADevice, isTimed: Bool = false) throws(CUDAStatus) {
        self.device = device
        var handle: CUDADriver.Handle?
        try device.use()
        try device.driver.check(device.driver.createEvent(&handle, isTimed ? 0 : CUDADriver.eventDisableTiming))
        self.handle = handle!
    }

    deinit {
        try? device.use()
        _ = device.driver.destroyEvent(handle)
    }

    func record(in stream: CUDAStream) throws(CUDAStatus) {
        try device.driver.check(device.driver.recordEvent(handle, stream.handle))
    }

    func synchronize() throws(CUDAStatus) { try device.driver.check(device.driver.synchronizeEvent(handle)) }

    /// Whether what was recorded has come.
    func hasCome() throws(CUDAStatus) -> Bool {
        let code = device.driver.queryEvent(handle)
        if code == CUDAStatus.notReady { return false }
        try device.driver.check(code)
        return true
    }

    /// Seconds from `start` to this event; both were recorded and have come.
    func seconds(since start: CUDAEvent) throws(CUDAStatus) -> Double {
        var milliseconds: Float = 0
        try device.driver.check(device.driver.elapsedTime(&milliseconds, start.handle, handle))
        return Double(milliseconds) * 1e-3
    }
}
