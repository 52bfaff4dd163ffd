/// One device with its primary context: what is asked of it once, and the ways to its memory.
///
/// Any thread may call. A thread that is new to the context makes it current first (`use`).
final class CUDADevice: @unchecked Sendable {
    let driver: CUDADriver
    let name: String
    /// Compute capability, times ten.
    let capability: Int
    let driverVersion: Int32
    let multiprocessorCount: Int
    /// Dynamic shared memory that a block may ask for.
    let sharedMemoryLimit: Int
    let memoryBytes: Int
    private let number: Int32
    private let context: CUDADriver.Handle

    static let leastCapability = 80

    /// The first device that is new enough. `CUDA_VISIBLE_DEVICES` decides which the driver shows.
    ///
    /// - Throws: `CUDAUnavailable`.
    init(_ environment: CUDAEnvironment) throws(CUDAUnavailable) {
        let driver = try CUDADriver(environment.driver)
        func check(_ call: String, _ code: Int32) throws(CUDAUnavailable) {
            guard code != 0 else { return }
            if code == CUDAStatus.noDevice { throw .noDevice }
            throw .driverFailed(call: call, status: driver.status(code))
        }
        func attribute(_ attribute: Int32, of device: Int32) throws(CUDAUnavailable) -> Int {
            var value: Int32 = 0
            try check("cuDeviceGetAttribute", driver.deviceAttribute(&value, attribute, device))
            return Int(value)
        }
        try check("cuInit", driver.initialize(0))
        var version: Int32 = 0
        try check("cuDriverGetVersion", driver.driverVersion(&version))
        var count: Int32 = 0
        try check("cuDeviceGetCount", driver.deviceCount(&count))
        guard count > 0 else { throw .noDevice }

        var chosen: Int32?
        var best = 0
        var bestName = ""
        for index in 0..<count {
            var device: Int32 = 0
            try check("cuDeviceGet", driver.device(&device, index))
            let capability =
                try attribute(CUDADriver.attributeCapabilityMajor, of: device) * 10
                + attribute(CUDADriver.attributeCapabilityMinor, of: device)
            guard capability > best, chosen == nil else { continue }
            var name = [CChar](repeating: 0, count: 256)
            try check("cuDeviceGetName", driver.deviceName(&name, Int32(name.count), device))
            best = capability
            bestName = name.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            if capability >= Self.leastCapability { chosen = device }
        }
        guard let chosen else { throw .deviceTooOld(name: bestName, capability: best) }

        self.driver = driver
        driverVersion = version
        number = chosen
        name = bestName
        capability = best
        multiprocessorCount = try attribute(CUDADriver.attributeMultiprocessors, of: chosen)
        sharedMemoryLimit = try attribute(CUDADriver.attributeSharedMemoryOptIn, of: chosen)
        var bytes = 0
        try check("cuDeviceTotalMem", driver.deviceMemory(&bytes, chosen))
        memoryBytes = bytes
        var context: CUDADriver.Handle?
        try check("cuDevicePrimaryCtxRetain", driver.retainContext(&context, chosen))
        guard let context else { throw .noDevice }
        self.context = context
        try check("cuCtxSetCurrent", driver.setContext(context))
    }

    deinit { _ = driver.releaseContext(number) }

    /// Makes the context current on the calling thread.
    func use() throws(CUDAStatus) { try driver.check(driver.setContext(context)) }

    /// Bytes that nobody uses now.
    func freeBytes() throws(CUDAStatus) -> Int {
        var (free, total) = (0, 0)
        try driver.check(driver.memoryInfo(&free, &total))
        return free
    }

    /// Copies from any memory of the host, and waits until it is there for every stream: the call alone may return before.
    func copy(_ count: Int, from source: UnsafeRawPointer, to target: DeviceAddress) throws(CUDAStatus) {
        try driver.check(driver.copyToDevice(target, source, count))
        try driver.check(driver.synchronizeStream(nil))
    }

    /// Copies to any memory of the host.
    func copy(_ count: Int, from source: DeviceAddress, to target: UnsafeMutableRawPointer) throws(CUDAStatus) {
        try driver.check(driver.copyToHost(target, source, count))
    }

    /// What the device is called in caches and reports.
    var architecture: String { "sm_\(capability)" }

    /// A failed call of the driver in the middle of work.
    func failure(_ status: CUDAStatus, _ what: String) -> SigmaError {
        if status.code == CUDAStatus.outOfMemory {
            return SigmaError(
                .unavailable, "the CUDA device has no memory left for \(what) (\(name))",
                remedy: .anyOf([
                    "Use a shorter context.", .set(.kvType, to: "q8_0"), "Use fewer sequences at once.",
                    .set(.backend, to: "cpu"),
                ]))
        }
        return SigmaError(
            .unavailable, "the CUDA device failed in \(what): \(status) (\(name))",
            remedy: .anyOf([
                "Try again; if it stays so, start anew, and see what nvidia-smi says.", .set(.backend, to: "cpu"),
            ]))
    }
}
